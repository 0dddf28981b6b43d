"""A stand-in for a device's events and graphs: a clock of its own that every call moves by what it is said to take."""

from __future__ import annotations

from collections.abc import Callable


class FakeGpu:
    """Counts what timing asks for; `now_s` moves by `launch_s` a launch and by what the calls add themselves."""

    def __init__(self, launch_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.launch_s = launch_s
        self.flushes = 0
        self.waits = 0
        self.hidden = 0
        self.graphs: list[int] = []

    def takes(self, seconds: float) -> Callable[[], None]:
        """A call whose work takes so long."""

        def call() -> None:
            self.now_s += seconds

        return call

    def mark(self) -> object:
        return self.now_s

    def between_s(self, start: object, end: object) -> float:
        assert isinstance(start, float)
        assert isinstance(end, float)
        return end - start

    def wait(self) -> None:
        self.waits += 1

    def graph(self, call: Callable[[], object], repeat: int) -> Callable[[], object]:
        self.graphs.append(repeat)

        def replay() -> None:
            self.now_s += self.launch_s
            for _ in range(repeat):
                call()

        return replay

    def flush(self) -> None:
        self.flushes += 1

    def hide_launch(self) -> None:
        self.hidden += 1


class Ticking(FakeGpu):
    """Each look at the clock finds it a millisecond later."""

    def mark(self) -> object:
        self.now_s += 1e-3
        return self.now_s
