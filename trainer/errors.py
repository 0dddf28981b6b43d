"""How training ends early on request."""

from __future__ import annotations

from ..kernels.errors import SparseplanError


class Interrupted(SparseplanError):
    """Training was stopped from the keyboard; the last checkpoint is whole and can be resumed."""
