"""Foresee: roofline terms, fit, prediction with an interval."""
