"""sparseplan: is pruning worth it on this machine, and if so, how."""
