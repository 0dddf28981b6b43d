"""Every kernel of the registry over the layers of known networks, against torch and scipy: ``make bench-kernels``."""
