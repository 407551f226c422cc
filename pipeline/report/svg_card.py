"""SVG cards: figures of a nightly run, narrow enough for a phone, for embedding in a page.

Guarantees: equal calls give equal bytes; ids are unique across cards with different keys; text is
stored as text, so it stays sharp and accessible; pyplot and its global state are not used.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from pipeline.report.figure import GREY, INK, SMALL, empty_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.2
"""Width of a card in inches; on a phone its smallest text is still 10 px high."""
_TITLE = 11
# Characters per line at `WIDTH`: matplotlib does not wrap text.
_TITLE_WRAP = 38
_ABOUT_WRAP = 56
_NAME = 20
SVG = "http://www.w3.org/2000/svg"
# XML 1.0 allows no other control characters, and a name from the data may hold some.
_NO_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_REFERENCE = re.compile(r"(?<=url\(#)[^)]+")
# matplotlib sets these in its style element, which `svg` removes.
_DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt"}


def card(
    body: float,
    title: str,
    about: str,
    *,
    left: float = 1.42,
    right: float = 0.62,
    foot: float = 0.5,
    panels: int = 1,
) -> tuple[Figure, tuple[Axes, ...]]:
    """Return a figure with a title, lines about it, and axes side by side.

    Parameters
    ----------
    body
        Height of the axes in inches.
    title, about
        Both are wrapped.
    left, right, foot
        Space beside and below the axes in inches.
    panels
        Number of axes.
    """
    titles = textwrap.wrap(title, _TITLE_WRAP, break_on_hyphens=False) or [""]
    lines = textwrap.wrap(about[:1].upper() + about[1:], _ABOUT_WRAP, break_on_hyphens=False)
    head = 0.3 + 0.2 * len(titles) + 0.15 * len(lines)
    height = head + body + foot
    figure = empty_figure(figsize=(WIDTH, height))
    figure.text(
        0.06 / WIDTH, 1 - 0.04 / height, "\n".join(titles), fontsize=_TITLE, fontweight="bold",
        color=INK, va="top", linespacing=1.25, parse_math=False,
    )  # fmt: skip
    figure.text(
        0.06 / WIDTH, 1 - (0.1 + 0.2 * len(titles)) / height, "\n".join(lines), fontsize=SMALL,
        color=GREY, va="top", linespacing=1.3, parse_math=False,
    )  # fmt: skip
    gap = 0.22
    width = (WIDTH - left - right - gap * (panels - 1)) / panels
    grounds = []
    for at in range(panels):
        begin = (left + at * (width + gap)) / WIDTH
        axes = figure.add_axes((begin, foot / height, width / WIDTH, body / height))
        style_axes(axes, SMALL)
        grounds.append(axes)
    return figure, tuple(grounds)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a card, the first one on top.

    Parameters
    ----------
    names
        Wrapped to two lines, then cut.
    """
    axes.set_yticks(range(len(names)), [fold(name) for name in names], parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def svg(figure: Figure, key: str, alt: str) -> bytes:
    """Return a figure as an SVG file that can be embedded in HTML.

    Parameters
    ----------
    key
        Prefix of all ids, which makes them unique on a page.
    alt
        Alternative text for screen readers (``aria-label``).
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # Dates and versions in the metadata, and random ids, would make equal figures differ.
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": key}), warnings.catch_warnings():
        # Text stays text: the browser has the fonts that matplotlib lacks.
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = Xml.fromstring(_NO_XML.sub("", buffer.getvalue().decode()))  # noqa: S314 - our own
    root.attrib = {
        "xmlns": SVG, "viewBox": root.attrib["viewBox"], "width": root.attrib["width"],
        "height": root.attrib["height"], "role": "img", "aria-label": _NO_XML.sub("", alt),
        **_DEFAULTS,
    }  # fmt: skip
    # In HTML a style element of one figure would apply to the whole page.
    for parent in list(root.iter()):
        for style in parent.findall(f"{{{SVG}}}style"):
            parent.remove(style)
    _rename(root, key)
    return Xml.tostring(root, encoding="unicode").encode() + b"\n"


def fold(name: str, width: int = _NAME, most: int = 2) -> str:
    """Wrap each line of a name, also after underscores.

    Parameters
    ----------
    width
        Maximum number of characters per line.
    most
        Maximum number of lines; the rest is cut.
    """
    lines = [
        part
        for line in name.split("\n")
        for part in textwrap.wrap(line.replace("_", "_ "), width, max_lines=most, placeholder="…")
    ]
    return "\n".join(line.replace("_ ", "_") for line in lines)


def _rename(root: Xml.Element, key: str) -> None:
    """Remove namespaces and unused ids, and prefix the other ids with the key."""
    # matplotlib gives every group an id; only referenced ones are kept.
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', Xml.tostring(root, encoding="unicode")))
    for node in root.iter():
        node.tag = _local(node.tag)
        kept = {_local(name): value for name, value in node.attrib.items()}
        if "href" in kept:
            kept["href"] = f"#{key}-{kept['href'][1:]}"
        if "id" in kept:
            kept["id"] = f"{key}-{kept['id']}" if kept["id"] in used else ""
        node.attrib = {
            name: value if name == "aria-label" else _REFERENCE.sub(rf"{key}-\g<0>", value)
            for name, value in kept.items()
            if value
        }


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]
