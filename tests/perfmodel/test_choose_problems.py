"""What to measure next."""

from itertools import islice

from synthetic_machine import profile_of

from sparseplan.kernels.registry import REGISTRY
from sparseplan.kernels.spec import Machine
from sparseplan.perfmodel.choose_problems import Chooser
from sparseplan.perfmodel.judge import family_of
from sparseplan.profiles.fresh_problems import fresh_problems
from sparseplan.profiles.schema import KernelSample
from sparseplan.profiles.timing import TimeStats

CHOOSER = Chooser(machine=Machine(isa=("baseline",)), registry=REGISTRY)
CANDIDATES = tuple(islice(fresh_problems("quick", 2, seed=5), 160))
KERNEL = "linear_unstructured_f32_sell__baseline"


def test_some_of_the_candidates_of_every_family() -> None:
    chosen = CHOOSER(profile_of(()), CANDIDATES, 40)
    assert len(chosen) == len(set(chosen)) == 40
    assert set(chosen) <= set(CANDIDATES)
    assert {family_of(problem) for problem in chosen} == {family_of(problem) for problem in CANDIDATES}


def test_what_is_known_comes_last() -> None:
    """Problems near measured ones are more certain than others of their family."""
    linears = [problem for problem in CANDIDATES if family_of(problem) == "linear float32 unstructured"]
    known, unknown = linears[: len(linears) // 2], linears[len(linears) // 2 :]
    samples = tuple(
        KernelSample(
            problem=problem,
            kernel=kernel,
            time_s=TimeStats(median=1e-4, low=0.99e-4, high=1.01e-4, n=20),
            pack_time_s=0.0,
            noisy=False,
        )
        for problem in known
        for kernel in (KERNEL, KERNEL.replace("sell", "n4"))
    )
    profile = profile_of(()).model_copy(update={"samples": samples})
    chosen = CHOOSER(profile, linears, len(linears))
    places = {problem: place for place, problem in enumerate(chosen)}
    mean = [sum(places[problem] for problem in group) / len(group) for group in (known, unknown)]
    assert mean[0] > mean[1]
