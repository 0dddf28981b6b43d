"""Explain a plan in plain text: what each layer got, why, and what would change it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ..kernels.errors import InputError
from ..perfmodel.schema import Interval
from .reasons import OTHER_DENSE, faster_kernel, milliseconds, percent, speed, why_lost, zeros
from .schema import Candidate, LayerPlan, Plan, WidthPlan


def explain(plan: Plan, layer: str | None = None) -> str:
    """A table of the whole plan, or everything about one of its layers.

    Raises
    ------
    InputError
        If the plan has no layer of that name; the message lists close ones.
    """
    if layer is None:
        return _explain_plan(plan)
    for planned in plan.layers:
        if planned.name == layer:
            return _explain_layer(planned, plan)
    for skipped in plan.skipped:
        if skipped.name == layer:
            return f"{skipped.name} ({skipped.kind}) was not planned: {skipped.reason}\n"
    names = [known.name for known in plan.layers] + [known.name for known in plan.skipped]
    close = difflib.get_close_matches(layer, names, n=3, cutoff=0.4) or names[:3]
    raise InputError(f"the plan has no layer {layer!r}; close names: {', '.join(close)}")


def _explain_plan(plan: Plan) -> str:
    totals, solver = plan.totals, plan.solver
    rows = [
        (
            layer.name + (f" (x{layer.calls})" if layer.calls > 1 else ""),
            OTHER_DENSE if layer.chosen.other_dense else layer.chosen.pattern,
            "" if layer.chosen.pattern == "dense" else percent(layer.chosen.sparsity),
            layer.chosen.kernel,
            milliseconds(layer.calls * layer.dense.time_s.median) + _mark(layer.dense),
            milliseconds(layer.calls * layer.chosen.time_s.median) + _mark(layer.chosen),
            f"+{layer.chosen.loss_increase:.3g}",
        )
        for layer in plan.layers
    ]
    header = ("layer", "pattern", "zeros", "kernel", "dense", "planned", "loss")
    lines = [
        f"Plan for {plan.model}, input {_by(plan.input_shape)}, {plan.dtype_policy}, "
        f"{plan.threads} thread{'s' if plan.threads > 1 else ''} of {plan.machine}",
        f"Target: {_target(plan)}",
        f"Solver: {solver.status.replace('_', ' ')}: {solver.message}"
        + (f" (gap {percent(solver.gap_frac)}, {solver.time_s:.2g} s)" if solver.gap_frac is not None else ""),
        *_unusable(plan),
        "",
        *_table([header, *rows]),
        *_legend(plan),
        "",
        f"Dense network    {_range(totals.dense_time_s)}",
        f"Planned network  {_range(totals.planned_time_s)}, "
        f"{totals.dense_time_s.median / totals.planned_time_s.median:.2f}x by medians",
        f"Between layers   {_range(totals.rest_time_s)}, part of both",
        f"Best reachable   {totals.best_reachable_speedup:.2f}x at the upper quantile of the time",
        f"Loss             +{totals.loss_increase:.3g}, {_LOSS[plan.sensitivity_source]}, before training",
        f"Weights          {_weights(plan)}",
    ]
    if totals.planned_bytes is not None and totals.dense_bytes is not None:
        lines.append(f"Model file       {totals.dense_bytes / 1e6:.4g} MB -> {totals.planned_bytes / 1e6:.4g} MB")
    if plan.widths:
        rows_of_widths = _table([_width_row(width) for width in plan.widths])
        lines += ["", "Widths that layers share:", *(f"  {line}" for line in rows_of_widths)]
    if plan.fixed_widths:
        lines += ["", "Output widths that stay:"]
        lines += [f"  {fixed.name}: {fixed.reason}" for fixed in plan.fixed_widths]
    if plan.front:
        lines += ["", "Least loss against time:", *_table(_front(plan))]
    if plan.skipped:
        lines += ["", "Not planned:"]
        lines += [f"  {skipped.name} ({skipped.kind}): {skipped.reason}" for skipped in plan.skipped]
    return "\n".join(lines) + "\n"


def _unusable(plan: Plan) -> list[str]:
    return [
        f"Pattern {each.pattern}: no kernel on this machine can use it in any layer ({each.reason}); what "
        "only it could prune stays dense, allow other --patterns"
        for each in plan.unusable_patterns
    ]


def _mark(candidate: Candidate) -> str:
    return _OUTSIDE if candidate.extrapolated else ""


def _legend(plan: Plan) -> list[str]:
    marked = any(candidate.extrapolated for layer in plan.layers for candidate in (layer.chosen, layer.dense))
    return [f"{_OUTSIDE} {_OUTSIDE_MEANS}; 'profile --extend' measures these layers"] if marked else []


_OUTSIDE = "*"
_OUTSIDE_MEANS = "outside the measured range: less certain, hence the wider interval"


def _weights(plan: Plan) -> str:
    if not plan.target.given:
        return "as they are: under SAS the network computes what it did, until it is trained"
    if plan.sensitivity_source == "magnitude":
        return (
            "no calibration data: losses are guessed from the size of the weights alone, which misleads across layers; "
            "give --data"
        )
    if plan.pruned_layers_path is None:
        return "zeros by magnitude; with --database the others are refitted and the whole network is searched"
    return f"refitted after removal at full width, from {plan.pruned_layers_path}; training starts from them" + (
        ", cut to the widths that stay" if any(width.kept < width.group.units for width in plan.widths) else ""
    )


def _front(plan: Plan) -> list[tuple[str, ...]]:
    header = ("  speedup", "time", "loss", "layers pruned", "widths narrowed")
    rows = [
        (
            f"  {point.speedup:.2f}x",
            milliseconds(point.time_s.median),
            f"+{point.loss_increase:.3g}",
            f"{len(point.layers)} of {len(plan.layers)}",
            f"{len(point.widths)} of {len(plan.widths)}",
        )
        for point in plan.front
    ]
    return [row if plan.widths else row[:-1] for row in (header, *rows)]


def _width_row(width: WidthPlan) -> tuple[str, str, str, str]:
    sharing = ", ".join(dict.fromkeys(part.module for part in width.group.slices))
    return width.group.name, f"{width.kept} of {width.group.units}", f"+{width.loss_increase:.3g}", sharing


_LOSS = {
    "calibration": "nat of cross-entropy on calibration data",
    "magnitude": "share of the squared weights that goes, summed over layers (no calibration data)",
}


def _explain_layer(layer: LayerPlan, plan: Plan) -> str:
    chosen, dense = layer.chosen, layer.dense
    lines = [
        f"{layer.name}: {layer.reason}",
        "",
        f"Chosen   {zeros(chosen)} on {chosen.kernel}, {_range(chosen.time_s)}, bound by {layer.binding_resource}"
        + _outside(chosen),
        f"Dense    {dense.kernel}, {_range(dense.time_s)}{_outside(dense)}",
        *_widths(layer, plan),
        f"Calls    {layer.calls} in one forward pass; times are of one call",
        *_unusable(plan),
    ]
    if layer.considered:
        header = ("considered", "kernel", "time", "loss", "why it lost")
        rows = [
            (
                zeros(candidate),
                candidate.kernel,
                _range(candidate.time_s),
                f"+{candidate.loss_increase:.3g}",
                why_lost(candidate, chosen, dense) + _outside(candidate),
            )
            for candidate in layer.considered
        ]
        lines += ["", *_table([header, *rows])]
    if layer.break_even_sparsity:
        lines += ["", "Sparsity at which a pattern pays:"]
        lines += [f"  {way}: {_pays(layer, way)}" for way in layer.break_even_sparsity]
    lines += ["", f"What would change this: {_what_would_change(layer, plan)}"]
    kernel = faster_kernel(layer.considered, chosen)
    if kernel is not None:
        lines.append(f"Another kernel: {kernel}.")
    if plan.front:
        lines.append(f"At other targets: {_along_front(layer, plan)}.")
    return "\n".join(lines) + "\n"


def _outside(candidate: Candidate) -> str:
    return f"; {_OUTSIDE_MEANS}" if candidate.extrapolated else ""


def _widths(layer: LayerPlan, plan: Plan) -> list[str]:
    """The groups that decide the widths of a layer."""
    named = [
        f"{'output' if part.axis == 'out' else 'input'} {width.kept} of {width.group.units} ({width.group.name})"
        for width in plan.widths
        for part in width.group.slices
        if part.module == layer.name
    ]
    return [f"Widths   {'; '.join(named)}"] if named else []


def _pays(layer: LayerPlan, way: str) -> str:
    first, last = layer.break_even_sparsity[way], layer.useful_sparsity.get(way)
    if first is None:
        return "loses to dense at every sparsity"
    return f"beats dense from {percent(first)}" + (
        "" if last is None else f"; beyond {percent(last)} more zeros gain next to nothing"
    )


def _what_would_change(layer: LayerPlan, plan: Plan) -> str:
    chosen, dense = layer.chosen, layer.dense
    if not plan.target.given:
        return "a plan to a target, in place of --sas."
    if layer.problem.weight_shape != layer.full_problem.weight_shape or chosen.time_s.median == 0.0:
        return _other_widths(layer, plan)
    sparse = [candidate for candidate in layer.considered if candidate.pattern != "dense"]
    sure = [candidate for candidate in sparse if candidate.time_s.high < dense.time_s.median]
    if chosen.pattern != "dense":
        milder = [candidate for candidate in sure if candidate.loss_increase < chosen.loss_increase]
        harder = [candidate for candidate in sure if candidate.time_s.high < chosen.time_s.high]
        changes = [f"a lower target: {_near(milder, chosen)}, or dense"] if milder else ["a lower target: dense"]
        if harder:
            changes.append(f"a higher one: {_near(harder, chosen)}")
        return "; ".join(changes) + _from_which(plan) + "."
    if sure:
        ratio = speed(_nearest(sure, chosen), dense)
        return f"a higher target than {_target(plan)}: {_near(sure, chosen)} ({ratio}){_from_which(plan)}."
    reachable = [(way, first) for way, first in layer.break_even_sparsity.items() if first is not None]
    if reachable:
        way, first = min(reachable, key=lambda each: each[1])
        return (
            f"zeros beyond {percent(first)} (where {way} breaks even), a narrower prediction (profile with a larger "
            "budget), or a faster kernel."
        )
    return "only another machine, another batch size or a faster kernel: none beats dense here at any sparsity."


def _other_widths(layer: LayerPlan, plan: Plan) -> str:
    """The next levels of the groups that cut a layer, or that took it out."""
    changes = []
    for width in plan.widths:
        if all(part.module != layer.name for part in width.group.slices):
            continue
        wider = [level for level in width.considered if level.kept > width.kept]
        narrower = [level for level in width.considered if level.kept < width.kept]
        for asked, levels in (("lower", wider[:1]), ("higher", narrower[-1:])):
            changes += [
                f"a {asked} target: {level.kept} in place of {width.kept} of {width.group.units} units of "
                f"{width.group.name}, loss +{level.loss_increase:.3g} in place of +{width.loss_increase:.3g}"
                for level in levels
            ]
    others = "; ".join(changes) or "another target"
    return f"{others}{_from_which(plan)}; widths are weighed in all layers that share them."


def _from_which(plan: Plan) -> str:
    return "" if plan.front else " (plan with --sweep to see from which target on)"


def _along_front(layer: LayerPlan, plan: Plan) -> str:
    """What the layer gets at each speedup of the front, changes alone."""
    found: list[str] = []
    before = ""
    for point in plan.front:
        here = next((each for each in point.layers if each.name == layer.name), None)
        text = "dense" if here is None else f"{here.pattern} {percent(here.sparsity)}"
        if text != before:
            found.append(f"{text} from {point.speedup:.2f}x")
        before = text
    return ", ".join(found)


def _near(candidates: Sequence[Candidate], chosen: Candidate) -> str:
    return zeros(_nearest(candidates, chosen))


def _nearest(candidates: Sequence[Candidate], chosen: Candidate) -> Candidate:
    return min(candidates, key=lambda candidate: abs(candidate.time_s.median - chosen.time_s.median))


def _target(plan: Plan) -> str:
    target = plan.target
    texts = {
        "speedup": f"{target.speedup:g}x faster than the best dense network" if target.speedup else "",
        "latency_s": f"at most {milliseconds(target.latency_s)} a batch" if target.latency_s else "",
        "throughput_per_s": f"at least {target.throughput_per_s:g} images a second" if target.throughput_per_s else "",
        "max_accuracy_drop_points": (
            f"at most {target.max_accuracy_drop_points:g} points of calibration accuracy lost before training"
            if target.max_accuracy_drop_points is not None
            else ""
        ),
        "model_bytes": f"at most {target.model_bytes / 1e6:.4g} MB as a file" if target.model_bytes else "",
    }
    return ", and ".join(texts[name] for name in target.given) or "none: layers under SAS, as asked, for accuracy"


def _range(time: Interval) -> str:
    return f"{milliseconds(time.median)} [{time.low * 1e3:.3g}, {time.high * 1e3:.3g}]"


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(size) for size in shape)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
