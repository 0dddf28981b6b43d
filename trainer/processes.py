"""Training in several processes: who computes which part of a batch, and what all of them agree on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from ..kernels.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """This process among all that train one model; rank 0 writes files and reports."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of `count` images are this process's, as even as can be."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Processes()


def is_first() -> bool:
    """Whether this process, before or after it trains with others, is the one that reports."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def started_processes() -> Iterator[Processes]:
    """The processes that ``torchrun`` started, able to talk to each other; without it, this one alone.

    gloo on the CPU, nccl where there is a GPU.

    Raises
    ------
    InputError
        If torchrun's variables are there but not whole.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE
        return
    if distributed.is_initialized():
        yield Processes(rank=distributed.get_rank(), size=distributed.get_world_size())
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is set, but {', '.join(missing)} not; start with torchrun, or unset WORLD_SIZE")
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(rank=distributed.get_rank(), size=distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
