"""What can run: patterns, problems, the registry of kernels, and the kernels with their references."""
