"""Decide: capture, sensitivity, candidates, solve."""
