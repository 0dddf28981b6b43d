"""The page: one file, well-formed, complete, safe, and plain about what is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import FakeModel, losing_measurements, renamed, sample_inputs

from sparseplan.kernels.errors import InputError
from sparseplan.planner.schema import FrontPoint
from sparseplan.reports.curves import speedup_curves
from sparseplan.reports.html import render_report, write_report
from sparseplan.reports.inputs import ReportInputs

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}
INPUTS = sample_inputs()
SECTIONS = (
    "headline",
    "hosts",
    "roofline",
    "curves",
    "prediction",
    "layers",
    "training",
    "solver",
    "machine",
    "target",
)


class Page(HTMLParser):
    """Checks that every element is closed in order; collects text, ids, references and elements."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._seen(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._between(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.pieces.append(data)

    def _seen(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._between(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def _between(self, tag: str) -> None:
        # A <wbr> stands inside a word; any other element sets its text apart.
        if tag != "wbr":
            self.pieces.append(" ")

    @property
    def text(self) -> str:
        return " ".join("".join(self.pieces).replace("\u00a0", " ").split())


def render(inputs: ReportInputs) -> str:
    return render_report(inputs, speedup_curves(inputs.plan, FakeModel()))


@pytest.fixture(scope="module")
def html() -> str:
    return render(INPUTS)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_nothing_is_loaded_from_anywhere(html: str, page: Page) -> None:
    assert "://" not in html
    assert "@import" not in html
    assert "@font-face" not in html
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "img", "iframe", "object"})
    for _, attributes in page.elements:
        for name in ("href", "src", "clip-path", "style"):
            for target in re.findall(r"url\(([^)]*)\)", attributes.get(name) or ""):
                assert target.startswith("#")
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes


def test_ids_are_unique_and_every_reference_leads_somewhere(html: str, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    references = {(attributes.get("href") or "").removeprefix("#") for _, attributes in page.elements} - {""}
    references |= set(re.findall(r"url\(#([^)]+)\)", html))
    assert len(references) > 20
    assert references <= set(page.ids)


def test_sections_come_in_order(page: Page) -> None:
    assert [identity for identity in page.ids if identity in SECTIONS] == list(SECTIONS)


def test_headline_numbers(page: Page) -> None:
    assert "1.87× faster than the best dense way to run this network on this machine" in page.text
    assert "accuracy 98.1 % → 97.8 %" in page.text
    for number in ("3.55 ms (3.51–3.59)", "1.90 ms (1.88–1.92)", "1.97 ms (1.82–2.13)", "1.87× (1.83–1.91)"):
        assert number in page.text
    assert "at least 1.50× as fast as the best dense network met" in page.text


def test_every_part_is_there(page: Page) -> None:
    for words in (
        "layer3.0.conv2",
        "unstructured at 96.5 % zeros saves 89 % of this layer's predicted time",
        "predicted to beat dense from",
        "has no weight matrix to prune",
        "proved optimal",
        "gap 0.3 %",
        "Intel(R) Xeon(R) 6975P-C",
        "torch 2.13.0",
        "bandwidth of memory",
        "cifar10:data/cifar10",
        "float32 multiply-add",
        "median error",
    ):
        assert words in page.text
    # hosts, roofline, six layers' curves, prediction, three training curves
    figures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(figures) == 12
    assert all(figure["role"] == "img" and len(figure["aria-label"] or "") > 20 for figure in figures)


def test_reverted_layers_are_flagged(page: Page) -> None:
    flags = [attributes for tag, attributes in page.elements if "warn" in (attributes.get("class") or "").split()]
    assert len(flags) == 1
    assert "layer3.1.depthwise" in page.text
    assert "0.288× reverted" in page.text


def test_the_same_run_gives_the_same_page(html: str) -> None:
    assert render(INPUTS) == html


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a</style><img src=x onerror=alert(1)>", '"x" & $y_{'])
def test_a_hostile_layer_name_is_text(name: str) -> None:
    hostile = Page(render(renamed(INPUTS, "layer1.0.conv1", name)))
    assert {tag for tag, _ in hostile.elements}.isdisjoint({"script", "img"})
    assert not any(attribute.startswith("on") for _, attributes in hostile.elements for attribute in attributes)
    assert " ".join(name.split()) in hostile.text
    assert len(hostile.ids) == len(set(hostile.ids))


def test_hostile_words_anywhere_are_text() -> None:
    words = "<script>alert('1')</script>"
    plan, measurements, manifest = INPUTS.plan, INPUTS.measurements, INPUTS.manifest
    assert manifest is not None
    first = plan.layers[0]
    chosen = first.chosen.model_copy(update={"kernel": words, "pattern": words})
    layer = first.model_copy(update={"reason": words, "binding_resource": words, "chosen": chosen})
    skipped = plan.skipped[0].model_copy(update={"name": words, "kind": words, "reason": words})
    hostile = replace(
        INPUTS,
        plan=plan.model_copy(
            update={
                "model": words,
                "layers": (layer, *plan.layers[1:]),
                "skipped": (skipped,),
                "solver": plan.solver.model_copy(update={"message": words}),
            }
        ),
        measurements=measurements.model_copy(
            update={
                "verdict": words,
                "fingerprint": measurements.fingerprint.model_copy(update={"cpu_model": words}),
            }
        ),
        manifest=manifest.model_copy(update={"data": words, "dense_weights": words}),
    )
    html = render_report(hostile, ())
    assert "<script" not in html
    assert Page(html).text.count(words) >= 12


def test_missing_parts_are_named_in_their_place() -> None:
    bare = replace(
        INPUTS,
        history=None,
        profile=None,
        manifest=None,
        measurements=INPUTS.measurements.model_copy(update={"layers": ()}),
    )
    page = Page(render_report(bare, ()))
    for words in (
        "No roofline: the run folder has no machine profile",
        "No curves: there is no performance model",
        "Nothing to compare: no layer was measured",
        "No training history",
        "No machine profile in the run folder",
        "No run.json",
    ):
        assert words in page.text
    assert [identity for identity in page.ids if identity in SECTIONS] == list(SECTIONS)
    assert len([tag for tag, _ in page.elements if tag == "svg"]) == 1


def test_a_profile_without_ceilings_at_its_thread_count_says_so() -> None:
    assert INPUTS.profile is not None
    profile = INPUTS.profile.model_copy(update={"ceilings": ()})
    assert (
        "the profile has no ceilings at its thread count"
        in Page(render_report(replace(INPUTS, profile=profile), ())).text
    )


def test_one_shot_pruning_says_that_no_epoch_was_trained() -> None:
    assert INPUTS.history is not None
    history = INPUTS.history.model_copy(update={"epochs": ()})
    page = Page(render_report(replace(INPUTS, history=history), ()))
    assert "no epoch was trained" in page.text
    assert "97.8 %" in page.text


def test_a_network_not_worth_pruning_is_said_plainly() -> None:
    page = Page(render_report(replace(INPUTS, measurements=losing_measurements(INPUTS.plan)), ()))
    assert "Pruning is not worth it on this machine" in page.text
    assert "so the dense network is kept" in page.text
    assert "dense kept compile, float32" in page.text
    assert "as fast as the best dense network missed" in page.text


def test_a_plan_without_layers_can_be_shown() -> None:
    plan = INPUTS.plan.model_copy(update={"layers": ()})
    measurements = INPUTS.measurements.model_copy(update={"layers": ()})
    assert (
        "The plan has no layers." in Page(render_report(replace(INPUTS, plan=plan, measurements=measurements), ())).text
    )


def test_a_profile_of_another_machine_is_noticed() -> None:
    assert INPUTS.profile is not None
    assert "differs from the machine that was measured" not in Page(render_report(INPUTS, ())).text
    fingerprint = INPUTS.profile.fingerprint.model_copy(update={"torch_version": "2.9.0"})
    page = Page(
        render_report(replace(INPUTS, profile=INPUTS.profile.model_copy(update={"fingerprint": fingerprint})), ())
    )
    assert "torch version: profile 2.9.0, measurement 2.13.0" in page.text


def test_writing_is_whole_or_an_input_error(tmp_path: Path, html: str) -> None:
    path = tmp_path / "report.html"
    write_report(path, html)
    assert path.read_text(encoding="utf-8") == html
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="cannot write"):
        write_report(tmp_path / "missing" / "report.html", html)


def test_the_front_is_drawn_where_there_is_one(page: Page) -> None:
    assert "Each point is the plan of least expected loss" not in page.text
    plan = INPUTS.plan
    points = tuple(
        FrontPoint(speedup=speedup, time_s=plan.totals.dense_time_s, loss_increase=loss, layers=())
        for speedup, loss in ((1.0, 0.0), (1.4, 0.02), (2.0, 0.3))
    )
    totals = plan.totals.model_copy(update={"dense_bytes": 4e6, "planned_bytes": 1e6})
    shown = Page(render(replace(INPUTS, plan=plan.model_copy(update={"front": points, "totals": totals}))))
    assert "Each point is the plan of least expected loss" in shown.text
    assert "1.40× asked" in shown.text
    assert "3.81 MiB → 977 KiB" in shown.text
