"""Accuracy of the trainer's families on real data; ``python -m benchmarks.accuracy --help``."""
