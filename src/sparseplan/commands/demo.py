"""``sparseplan demo``: the main job from end to end on scikit-learn's digits, which need no download."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ..data_spec import load_data
from ..kernels.progress import Progress, silent
from ..model_spec import load_model
from ..runtime.schema import Measurements
from ..trainer.loop import train as train_model
from ..trainer.schema import TrainConfig
from ..trainer.store import RunFolder
from .bench import bench
from .extend import extend
from .plan import plan
from .profile import profile
from .report import report
from .train import train

MODEL = "zoo:digits_wide"
DATA = "digits"
INPUT = (64, 1, 8, 8)
TARGET_SPEEDUP = 2.0
DENSE_EPOCHS = 12
PRUNE_EPOCHS = 16


def demo(run: str | Path | None = None, *, progress: Progress = silent) -> tuple[Path, Measurements]:
    """Profile, train a dense network, plan, train to the plan, measure and report; a few minutes on two cores.

    Parameters
    ----------
    run : path, optional
        A new run folder; ``runs/demo-DATE-TIME`` when left out.

    Returns
    -------
    tuple
        The run folder and what was measured.
    """
    folder = Path(run) if run is not None else Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    dense = RunFolder(folder / "dense")
    folder.mkdir(parents=True, exist_ok=True)
    profile(folder / "profile.json", "quick", progress=progress)
    extend(folder / "profile.json", MODEL, input=INPUT, progress=progress)
    train_model(
        load_model(MODEL),
        load_data(DATA),
        (),
        config=TrainConfig(epochs=DENSE_EPOCHS),
        run_dir=dense.path,
        progress=progress,
    )
    plan(
        MODEL,
        INPUT,
        profile=folder / "profile.json",
        out=folder / "plan.json",
        weights=dense.planned_weights,
        data=DATA,
        target_speedup=TARGET_SPEEDUP,
        progress=progress,
    )
    planned = folder / "planned"
    train(
        folder / "plan.json",
        MODEL,
        data=DATA,
        run=planned,
        weights=dense.planned_weights,
        epochs=PRUNE_EPOCHS,
        progress=progress,
    )
    measurements = bench(planned, processes=1, progress=progress)
    report(planned)
    return planned, measurements
