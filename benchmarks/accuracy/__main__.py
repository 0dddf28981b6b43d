"""``python -m benchmarks.accuracy EXPERIMENT --out DIR``: an experiment; goes on where it was interrupted."""

from __future__ import annotations

import argparse
import sys

from sparseplan.kernels.errors import SparseplanError
from sparseplan.progress_bar import ProgressBar

from . import filters, gsl, gsl_grid, planned, sas, ssl
from .options import add_options, options_of

EXPERIMENTS = {
    "lenet-ssl": (ssl.lenet, 20),
    "convnet-ssl": (ssl.convnet, 60),
    "resnet20-depth": (ssl.resnet20_depth, 60),
    "resnet20-sas": (sas.resnet20_sas, 90),
    "convnet-sas": (sas.convnet_sas, 90),
    "convnet-gsl": (gsl.convnet_gsl, 60),
    "convnet-gsl-grid": (gsl_grid.convnet_gsl_grid, 60),
    "resnet20-sweep": (planned.resnet20_sweep, 30),
    "resnet56-filters": (filters.resnet56_filters, 60),
    "resnet56-planned": (planned.resnet56_planned, 60),
}
"""By name: what runs it, and the epochs of the full run."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    commands = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    for name, (run, epochs) in EXPERIMENTS.items():
        text = (run.__doc__ or "").splitlines()[0]
        add_options(commands.add_parser(name, help=text, description=text), epochs=epochs)
    given = parser.parse_args(arguments)
    run, _ = EXPERIMENTS[given.experiment]
    try:
        with ProgressBar() as bar:
            text = run(options_of(given, progress=bar), say=lambda table: sys.stderr.write(table + "\n"))
    except SparseplanError as error:
        sys.stderr.write(f"benchmarks.accuracy {given.experiment}: error: {error}\n")
        return 2
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
