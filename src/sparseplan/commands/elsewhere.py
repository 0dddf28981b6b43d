"""A profile of another machine is a hint, not a measurement: say so."""

from __future__ import annotations

import warnings
from pathlib import Path

from ..kernels.errors import SparseplanWarning
from ..kernels.spec import Machine
from ..profiles.fingerprint import differences, read_fingerprint
from ..profiles.schema import MachineProfile


def warn_if_elsewhere(profile: MachineProfile, path: Path, machine: Machine) -> None:
    """Warn where a profile was made on another machine or with other versions, naming what differs."""
    other = differences(profile.fingerprint, read_fingerprint(machine))
    if other:
        warnings.warn(
            f"{path} was not made on this machine as it is now ({'; '.join(other)}); times are predicted for the "
            "machine of the profile; make a new one with 'sparseplan profile' to plan for this one",
            SparseplanWarning,
            stacklevel=3,
        )
