"""Matplotlib figures as SVG that can stand inside an HTML page among others."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

DENSE_COLOUR = "#8a8478"
PLANNED_COLOUR = "#0f6a8b"
WARNING_COLOUR = "#c2571a"
INK_COLOUR = "#3b3832"
FAINT_COLOUR = "#d9d4c8"
SERIES_COLOURS = (PLANNED_COLOUR, "#a8407f", "#5c7d1e", "#c58a12", "#5b5b9e")
"""Told apart by people with any kind of colour vision, together with different markers."""

_TOOLTIP = "tooltip:"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FONT = ' font-family="Helvetica, Arial, sans-serif"'
"""Inside a page, the page's own font."""
_STYLE: dict[Any, Any] = {
    # Text stays text: it can be searched, read aloud, and is a tenth of the size of outlines.
    "svg.fonttype": "none",
    # Layer names are not formulas, whatever they contain.
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK_COLOUR,
    "axes.labelcolor": INK_COLOUR,
    "axes.edgecolor": DENSE_COLOUR,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT_COLOUR,
    "grid.linewidth": 0.5,
    "xtick.color": INK_COLOUR,
    "ytick.color": INK_COLOUR,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "lines.linewidth": 1.6,
    "figure.facecolor": "none",
}


def inline_svg(paint: Callable[[Axes], None], *, key: str, label: str, size_in: tuple[float, float]) -> Markup:
    """Paint one pair of axes and return it as an ``<svg>`` element.

    Parameters
    ----------
    paint : callable
        Draws on the axes.
    key : str
        Different for each figure of a page; the prefix of its ids.
    label : str
        What the figure shows, for those who do not see it.
    size_in : tuple of float
        Width and height in inches; the page scales it.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": key}), warnings.catch_warnings():
        # A letter that matplotlib's own font lacks is drawn by the reader's browser.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=size_in, layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.subplots())
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return Markup(_embeddable(target.getvalue(), key=key, label=label))


def standalone_svg(drawn: Markup) -> str:
    """An ``<svg>`` element of `inline_svg` as a file of its own, for viewers that know no page around it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"{_FONT}'
        + str(drawn)[len("<svg") :]
    )


def tooltip(artist: Artist, text: str) -> None:
    """Let a browser show `text` when the pointer rests on the artist."""
    artist.set_gid(_TOOLTIP + text)


def _embeddable(text: str, *, key: str, label: str) -> str:
    """Drop what is meant for a file of its own, and make ids unique in the page."""
    root = ElementTree.fromstring(_printable(text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    referenced = set(re.findall(r'(?:href="|url\()#([\w.-]+)', text))
    for element in root.iter():
        _rewrite(element, key=key, referenced=referenced)
        element.tail = None
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": _printable(label)}
    return ElementTree.tostring(root, encoding="unicode")


def _printable(text: str) -> str:
    """Text with a replacement character for what XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _rewrite(element: ElementTree.Element, *, key: str, referenced: set[str]) -> None:
    attributes = element.attrib
    identity = attributes.pop("id", "")
    if identity in referenced:
        attributes["id"] = f"{key}-{identity}"
    if identity.startswith(_TOOLTIP):
        title = ElementTree.Element("title")
        title.text = identity.removeprefix(_TOOLTIP)
        element.insert(0, title)
    if "href" in attributes:
        attributes["href"] = attributes["href"].replace("#", f"#{key}-")
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{key}-")
    if "d" in attributes:
        attributes["d"] = " ".join(attributes["d"].split())
    if element.tag == "text":
        attributes["style"] = re.sub(r"font-family:[^;]*;?\s*", "", attributes["style"])
    elif element.text is not None and not element.text.strip():
        element.text = None
