"""Whole networks: plans against the ways others choose what to prune."""
