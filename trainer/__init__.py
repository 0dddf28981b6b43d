"""Make it so: penalties, masks, the training loop."""

from .errors import Interrupted

__all__ = ["Interrupted"]
