"""Kernels for NVIDIA GPUs: torch's libraries, and our own in Triton, whose modules load when a weight is packed."""
