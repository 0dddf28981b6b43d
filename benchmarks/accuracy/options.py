"""What every experiment is told: data, epochs, seeds, how much of the data, where results go."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sparseplan.data_spec import load_data
from sparseplan.kernels.progress import Progress, silent
from sparseplan.trainer.data import DataSplits, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentOptions:
    """One call of an experiment.

    Attributes
    ----------
    data : Path
        Folder with ``mnist/``, ``cifar10-jpeg.tar.gz`` and ``weights/``.
    subset : int or None
        Training images to use, the first of a fixed shuffle; None is all. Validation and test data stay whole.
    device : str
        ``cpu`` or ``cuda``.
    profile : str or None
        Of the machine that is planned for: a path or ``ref:NAME``; None is ``OUT/profile.json``.
    only : tuple of str
        Names of the variants to train; none means all.
    measure : bool
        Time the pruned networks, once all are trained.
    bfloat16 : bool
        Train with bfloat16 autocast.
    """

    data: Path
    out: Path
    epochs: int
    seeds: tuple[int, ...]
    subset: int | None
    device: str
    profile: str | None = None
    only: tuple[str, ...] = ()
    measure: bool = False
    bfloat16: bool = False
    progress: Progress = silent

    @property
    def machine_profile(self) -> str:
        """Path or ``ref:NAME`` of the profile to plan with."""
        return self.profile or str(self.out / "profile.json")

    def splits(self, spec: str) -> DataSplits:
        """The data that a SPEC below the data folder names, cut to the subset."""
        scheme, _, rest = spec.partition(":")
        data = load_data(f"{scheme}:{self.data / rest}", progress=self.progress)
        if self.subset is None or self.subset >= len(data.train):
            return data
        index = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: self.subset]
        return replace(data, train=Split(images=data.train.images[index], labels=data.train.labels[index]))


def add_options(parser: argparse.ArgumentParser, *, epochs: int) -> None:
    """The command-line options that all experiments share."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for runs and results")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"of each training ({epochs})")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="how many, from 0 (3)")
    parser.add_argument("--subset", type=int, metavar="N", help="training images (all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--profile", metavar="P", help="machine to plan for, a path or ref:NAME (OUT/profile.json)")
    parser.add_argument("--only", default="", metavar="A,B", help="variants to train, by name (all)")
    parser.add_argument("--bfloat16", action="store_true", help="train with bfloat16 autocast")
    parser.add_argument("--measure", action="store_true", help="at the end time the pruned networks; be idle then")


def options_of(arguments: argparse.Namespace, *, progress: Progress = silent) -> ExperimentOptions:
    return ExperimentOptions(
        data=arguments.data,
        out=arguments.out,
        epochs=arguments.epochs,
        seeds=tuple(range(arguments.seeds)),
        subset=arguments.subset,
        device=arguments.device,
        profile=arguments.profile,
        only=tuple(name for name in arguments.only.split(",") if name),
        measure=arguments.measure,
        bfloat16=arguments.bfloat16,
        progress=progress,
    )
