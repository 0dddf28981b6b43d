"""Random convolutions for hypothesis: every size at random, the image large enough for the kernel."""

from dataclasses import dataclass

from hypothesis import strategies as st

from sparseplan.kernels.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Most:
    """The largest extents drawn, on each axis; `rows` and `columns` are pixels beyond the smallest possible image."""

    taps: int = 4
    stride: int = 3
    dilation: int = 3
    padding: int = 3
    rows: int = 9
    columns: int = 20


@st.composite
def random_convolutions(
    draw: st.DrawFn,
    *,
    n: st.SearchStrategy[int],
    channels: st.SearchStrategy[int],
    outputs: st.SearchStrategy[int],
    groups: st.SearchStrategy[int] | None = None,
    most: Most | None = None,
) -> Problem:
    """Dense float32 convolutions; tests put another dtype and pattern on them.

    Parameters
    ----------
    channels, outputs : strategy
        Input and output channels of a group.
    groups : strategy, optional
        1 to 3 if left out.
    """
    most = most or Most()
    count = draw(st.integers(1, 3) if groups is None else groups)
    kernel, stride, dilation, padding = (
        (draw(st.integers(low, high)), draw(st.integers(low, high)))
        for low, high in ((1, most.taps), (1, most.stride), (1, most.dilation), (0, most.padding))
    )
    least_h, least_w = (
        max(1, spread * (taps - 1) + 1 - 2 * zeros)
        for spread, taps, zeros in zip(dilation, kernel, padding, strict=True)
    )
    return Problem(
        op="conv2d",
        n=draw(n),
        c_in=count * draw(channels),
        c_out=count * draw(outputs),
        h_in=draw(st.integers(least_h, least_h + most.rows)),
        w_in=draw(st.integers(least_w, least_w + most.columns)),
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=count,
    )
