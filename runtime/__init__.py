"""Run it: swap kernels into a model and measure."""
