"""The command line: reads options, calls the function of the same name, prints its result.

Wrong input ends with one line on standard error and exit code 2. With ``--json`` standard output carries JSON alone;
progress always goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .kernels.errors import InputError, SparseplanError, SparseplanWarning
from .train_options import add_recipe, recipe_of

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_INPUT = 2
DTYPES = ("float32", "bfloat16", "any", "int8")


class _Parser(argparse.ArgumentParser):
    """Argument errors in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message}; see '{self.prog} --help'\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], str] = options.handler
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", SparseplanWarning)
            warnings.showwarning = partial(_show_warning, options.command, warnings.showwarning)
            with _library_output_to_stderr():
                text = command(options)
    except SparseplanError as error:
        return _fail(options.command, str(error))
    except KeyboardInterrupt:
        return _fail(options.command, "interrupted; files that were complete before are untouched")
    if text:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="sparseplan", description="Is pruning worth it on this machine? Plan it, train it, prove it.")
    parser.add_argument("--version", action="version", version=f"sparseplan {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    profile = _add(commands, "profile", _profile, "measure this machine and write its profile")
    profile.add_argument("--out", type=Path, help="profile to write (profile.json; with --extend, that profile)")
    profile.add_argument(
        "--budget", choices=("quick", "standard", "full"), default="standard", help="60 s, 5 or 30 min"
    )
    profile.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    profile.add_argument("--threads", type=int, help="threads of the kernels (all usable cores)")

    profile.add_argument("--show", type=Path, metavar="P.json", help="summarise this profile (or ref:NAME) instead")
    profile.add_argument("--plot", type=Path, metavar="FILE.svg", help="with --show: write its roofline plot")
    profile.add_argument("--extend", type=Path, metavar="P.json", help="add the layers of --model to this profile")
    profile.add_argument("--model", metavar="SPEC", help="with --extend: the model whose layers are measured")
    profile.add_argument("--input", type=_shape, metavar="N,C,H,W", help="with --extend: shape of one batch")
    profile.add_argument("--dtype", choices=DTYPES, default="float32", help="with --extend")

    measure = _add(commands, "measure", _measure, "time kernels on given problems")
    measure.add_argument("problems", type=Path, metavar="PROBLEMS.jsonl")
    measure.add_argument("--out", type=Path, required=True, help="records to write, one JSON object a line")
    measure.add_argument("--kernel", default="auto", metavar="auto|all|NAME")
    measure.add_argument("--threads", type=int, help="instead of the thread count of each problem")
    measure.add_argument("--device", choices=("cpu", "cuda"), default="cpu")

    predict = _add(commands, "predict", _predict, "what the model of a machine says of given problems")
    predict.add_argument("problems", type=Path, metavar="PROBLEMS.jsonl")
    predict.add_argument("--profile", type=Path, required=True)
    predict.add_argument("--out", type=Path, required=True, help="records to write, one JSON object a line")
    predict.add_argument("--kernel", default="auto", metavar="auto|all|NAME")

    validate = _add(commands, "validate", _validate, "judge a profile on problems that it never saw")
    validate.add_argument("--profile", type=Path, required=True)
    validate.add_argument("--problems", type=Path, metavar="PROBLEMS.jsonl", help="instead of random ones")
    validate.add_argument("--budget", choices=("quick", "standard", "full"), default="quick", help="1, 5 or 30 min")
    validate.add_argument("--seed", type=int, default=1, help="of the random problems")
    validate.add_argument("--out", type=Path, default=Path("validation.json"), help="result; a plot goes beside it")

    plan = _add(commands, "plan", _plan, "decide what sparsity each layer of a model gets")
    _add_model(plan)
    plan.add_argument("--input", type=_shape, required=True, metavar="N,C,H,W", help="shape of one batch")
    plan.add_argument("--profile", type=Path, required=True)
    plan.add_argument("--data", metavar="SPEC", help="data that calibrates the loss of each choice")
    target = plan.add_argument_group("targets", "one or several; the plan meets them all")
    target.add_argument("--target-speedup", type=float, metavar="X", help="against the best dense network")
    target.add_argument("--target-latency-ms", type=float, metavar="T", help="of one batch")
    target.add_argument("--target-throughput", type=float, metavar="N", help="images a second, in such batches")
    target.add_argument("--max-accuracy-drop", type=float, metavar="POINTS", help="before any training")
    target.add_argument("--max-model-mb", type=float, metavar="MB", help="of the model as a file, zeros packed")
    plan.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="any: float32 or bfloat16; int8: float32 or int8, by layer"
    )
    plan.add_argument("--patterns", metavar="LIST", help="comma-separated, e.g. unstructured,filter+shape,lowrank")
    plan.add_argument(
        "--database", type=Path, metavar="DIR", help="plan thoroughly, and keep what was found there for the next plan"
    )
    plan.add_argument("--search-s", type=float, default=60.0, metavar="S", help="with --database: time to search (60)")
    plan.add_argument(
        "--shared-widths",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="filter, channel and depth shrink the network itself, in all layers that share channels (yes)",
    )
    plan.add_argument(
        "--sas", type=int, metavar="M", help="in place of a target: layers behind an activation under SAS 1:M (2, 4, 8)"
    )
    plan.add_argument("--sweep", type=int, default=0, metavar="N", help="add the front of loss against time, N points")
    plan.add_argument("--out", type=Path, required=True, help="plan to write")

    explain = _add(commands, "explain", _explain, "why a layer got what it got, and what would change it")
    explain.add_argument("plan", type=Path, metavar="PLAN.json")
    explain.add_argument("layer", nargs="?", metavar="LAYER")

    tune = _add(commands, "tune", _tune, "measure a plan before training, correct it until it meets its target")
    tune.add_argument("plan", type=Path, metavar="PLAN.json")
    tune.add_argument("--out", type=Path, help="corrected plan to write (over the old one)")
    tune.add_argument("--profile", type=Path, help="instead of the plan's")
    tune.add_argument("--weights", type=Path, help="as given to plan")
    tune.add_argument("--data", metavar="SPEC", help="as given to plan")
    tune.add_argument("--rounds", type=int, default=3, metavar="N", help="most measurements (3)")

    train = _add(commands, "train", _train, "train a model to a plan")
    train.add_argument("--plan", type=Path, required=True)
    _add_model(train)
    train.add_argument("--data", required=True, metavar="SPEC")
    train.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder")
    add_recipe(train)
    train.add_argument("--resume", action="store_true", help="go on after an interruption")

    bench = _add(commands, "bench", _bench, "measure a run: dense against planned, end to end")
    bench.add_argument("run", type=Path, metavar="DIR")
    bench.add_argument("--processes", type=int, default=3, metavar="N", help="that measure, one after another (3)")
    export = _add(commands, "export", _export, "write the planned network of a run as one file")
    export.add_argument("run", type=Path, metavar="DIR")
    export.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help=".safetensors, .pt2, .onnx or .xml (OpenVINO)"
    )
    report = _add(commands, "report", _report, "write DIR/report.html")
    report.add_argument("run", type=Path, metavar="DIR")
    demo = _add(commands, "demo", _demo, "all of it, on data that needs no download")
    demo.add_argument("--run", type=Path, metavar="DIR", help="run folder to make (runs/demo-DATE-TIME)")
    return parser


def _add(
    commands: argparse._SubParsersAction[_Parser], name: str, handler: Callable[[argparse.Namespace], str], text: str
) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument("--json", action="store_true", help="machine-readable result on standard output")
    parser.set_defaults(handler=handler)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="SPEC",
        help="zoo:NAME, torchvision:NAME, timm:NAME, path/file.py:callable or package.module:callable",
    )
    parser.add_argument("--weights", type=Path, help="dense weights to start from (safetensors)")


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a shape, allowed are whole numbers, e.g. 16,3,32,32"
        ) from None


def _version() -> str:
    from . import __version__

    return __version__


@contextmanager
def _library_output_to_stderr() -> Iterator[None]:
    """Send what C libraries print (HiGHS does) to standard error: standard output carries results alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _show_warning(
    command: str,
    show: Callable[..., None],
    message: Warning | str,
    category: type[Warning],
    *details: Any,
    **named: Any,
) -> None:
    """Ours in one line, as errors; everybody else's as ever."""
    if issubclass(category, SparseplanWarning):
        sys.stderr.write(f"sparseplan {command}: warning: {message}\n")
    else:
        show(message, category, *details)


def _fail(command: str, message: str) -> int:
    one_line = " ".join(message.split())
    sys.stderr.write(f"sparseplan {command}: error: {one_line}\n")
    return EXIT_INPUT


# Each command imports what it needs when it runs, so that --help loads no torch.


def _profile(options: argparse.Namespace) -> str:
    from .commands.extend import extend
    from .commands.profile import DEFAULT_OUT, profile
    from .progress_bar import ProgressBar
    from .render import render_profile

    if options.plot is not None and options.show is None:
        raise InputError("--plot belongs to --show; give the profile to plot with --show P.json")
    if options.show is not None:
        return _show(options)
    if (options.extend is None) != (options.model is None) or (options.model is None) != (options.input is None):
        raise InputError("--extend, --model and --input belong together; give all three, or none of them")
    with ProgressBar() as bar:
        if options.extend is None:
            out = options.out or DEFAULT_OUT
            result = profile(out, options.budget, device=options.device, threads=options.threads, progress=bar)
        else:
            out = options.out or options.extend
            result = extend(
                options.extend, options.model, input=options.input, dtype=options.dtype, out=options.out, progress=bar
            )
    return result.model_dump_json() if options.json else render_profile(result, out)


def _show(options: argparse.Namespace) -> str:
    from .commands.show import show
    from .render import render_summary

    given = [name for name in ("out", "threads", "extend", "model", "input") if getattr(options, name) is not None]
    if given:
        raise InputError(f"--show measures nothing: --{given[0]} does not belong to it; leave one of them out")
    summary = show(options.show, plot=options.plot)
    return summary.model_dump_json() if options.json else render_summary(summary, options.show)


def _measure(options: argparse.Namespace) -> str:
    from .commands.measure import measure
    from .progress_bar import ProgressBar
    from .render import render_measured

    with ProgressBar() as bar:
        records = measure(
            options.problems,
            options.out,
            kernel=options.kernel,
            threads=options.threads,
            device=options.device,
            progress=bar,
        )
    return "\n".join(record.model_dump_json() for record in records) if options.json else render_measured(records)


def _predict(options: argparse.Namespace) -> str:
    from .commands.predict import predict
    from .render import render_predicted

    records = predict(options.problems, options.profile, out=options.out, kernel=options.kernel)
    return "\n".join(record.model_dump_json() for record in records) if options.json else render_predicted(records)


def _validate(options: argparse.Namespace) -> str:
    from .commands.validate import validate
    from .progress_bar import ProgressBar
    from .render import render_validation

    with ProgressBar() as bar:
        result = validate(
            options.profile,
            out=options.out,
            problems=options.problems,
            budget=options.budget,
            seed=options.seed,
            progress=bar,
        )
    return result.model_dump_json() if options.json else render_validation(result, options.out)


def _plan(options: argparse.Namespace) -> str:
    from .commands.plan import plan
    from .planner.explain import explain
    from .progress_bar import ProgressBar

    with ProgressBar() as bar:
        result = plan(
            options.model,
            options.input,
            profile=options.profile,
            out=options.out,
            weights=options.weights,
            data=options.data,
            target_speedup=options.target_speedup,
            target_latency_ms=options.target_latency_ms,
            target_throughput=options.target_throughput,
            max_accuracy_drop=options.max_accuracy_drop,
            max_model_mb=options.max_model_mb,
            dtype=options.dtype,
            patterns=None if options.patterns is None else options.patterns.split(","),
            database=options.database,
            search_s=options.search_s,
            sweep=options.sweep,
            shared_widths=options.shared_widths,
            sas=options.sas,
            progress=bar,
        )
    if result.solver.status == "infeasible":
        raise InputError(f"{result.solver.message}; the fastest plan is in {options.out}")
    return result.model_dump_json() if options.json else explain(result)


def _explain(options: argparse.Namespace) -> str:
    from .commands.explain import explain
    from .planner.store import load_plan

    text = explain(options.plan, options.layer)
    if not options.json:
        return text
    plan = load_plan(options.plan)
    layers = [layer for layer in plan.layers if options.layer in (None, layer.name)]
    return "\n".join(layer.model_dump_json() for layer in layers)


def _tune(options: argparse.Namespace) -> str:
    from .commands.tune import tune
    from .progress_bar import ProgressBar
    from .render import render_loop

    with ProgressBar() as bar:
        report = tune(
            options.plan,
            out=options.out,
            profile=options.profile,
            weights=options.weights,
            data=options.data,
            rounds=options.rounds,
            progress=bar,
        )
    return report.model_dump_json() if options.json else render_loop(report)


def _train(options: argparse.Namespace) -> str:
    from .commands.train import train
    from .progress_bar import ProgressBar
    from .render import render_history
    from .trainer.processes import is_first

    with ProgressBar() as bar:
        history = train(
            options.plan,
            options.model,
            data=options.data,
            run=options.run,
            weights=options.weights,
            resume=options.resume,
            progress=bar,
            **recipe_of(options),
        )
    if not is_first():
        return ""
    return history.model_dump_json() if options.json else render_history(history, options.run)


def _bench(options: argparse.Namespace) -> str:
    from .commands.bench import bench
    from .planner.store import load_plan
    from .progress_bar import ProgressBar
    from .render import render_measurements
    from .trainer.store import RunFolder

    with ProgressBar() as bar:
        measurements = bench(options.run, processes=options.processes, progress=bar)
    if options.json:
        return measurements.model_dump_json()
    return render_measurements(measurements, load_plan(RunFolder(options.run).plan))


def _export(options: argparse.Namespace) -> str:
    import json

    from .commands.export import export

    done = export(options.run, options.to)
    if options.json:
        return json.dumps({"path": str(done.path), "size_bytes": done.size_bytes, "output_error": done.output_error})
    checked = "" if done.output_error is None else f"; its output differs by {done.output_error:.1e} of the largest"
    return f"{done.path}: {done.size_bytes / 1e6:.2f} MB{checked}"


def _report(options: argparse.Namespace) -> str:
    import json

    from .commands.report import report

    path = report(options.run)
    return json.dumps({"report": str(path)}) if options.json else str(path)


def _demo(options: argparse.Namespace) -> str:
    from .commands.demo import demo
    from .planner.store import load_plan
    from .progress_bar import ProgressBar
    from .render import render_measurements
    from .trainer.store import RunFolder

    with ProgressBar() as bar:
        run, measurements = demo(options.run, progress=bar)
    if options.json:
        return measurements.model_dump_json()
    folder = RunFolder(run)
    return f"{render_measurements(measurements, load_plan(folder.plan))}\n\nReport: {folder.report}"
