"""Base of all figures: a canvas with a title, axes style, colours, labels, PNG bytes.

Guarantees: equal calls give equal bytes; pyplot and its global state are not used. Colours are from
the palette of Okabe and Ito (2008), distinguishable with colour vision deficiency.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from pipeline.number_text import MINUS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE = "#0072B2"
ORANGE = "#D55E00"
GREY = "#6B6B6B"
LIGHT = "#D9D9D9"
INK = "#222222"
SMALL = 8.5
_WIDTH = 8.0
_DPI = 144
_WRAP = 68


def canvas(
    n_rows: int,
    title: str,
    about: str,
    *,
    row: float = 0.42,
    left: float = 0.25,
    width: float = 0.72,
    foot: float = 0.55,
) -> tuple[Figure, Axes]:
    """Return a figure with a title, a line about it, and axes for `n_rows` rows.

    Parameters
    ----------
    n_rows
        Number of rows; 0 leaves room for one.
    title, about
        The title is wrapped, `about` is not.
    row
        Height of a row in inches.
    left, width
        Left edge and width of the axes as shares of the figure's width.
    foot
        Space below the axes in inches.
    """
    lines = textwrap.wrap(title, _WRAP) or [""]
    head = 0.55 + 0.24 * len(lines)
    height = head + foot + row * max(n_rows, 1)
    figure = empty_figure(figsize=(_WIDTH, height), dpi=_DPI)
    axes = figure.add_axes((left, foot / height, width, row * max(n_rows, 1) / height))
    figure.text(
        0.02, 1 - 0.12 / height, "\n".join(lines), fontsize=13, fontweight="bold", color=INK,
        va="top", parse_math=False,
    )  # fmt: skip
    figure.text(
        0.02, 1 - (0.2 + 0.24 * len(lines)) / height, about[:1].upper() + about[1:], fontsize=9,
        color=GREY, va="top", parse_math=False,
    )  # fmt: skip
    style_axes(axes, 9)
    return figure, axes


def empty_figure(**options: Any) -> Figure:
    """Return a white figure; the options are those of matplotlib's `Figure`."""
    return _figure_class()(facecolor="white", **options)


@cache
def _figure_class() -> type[Figure]:
    """Import matplotlib on first use: most commands draw nothing."""
    from matplotlib.figure import Figure

    return Figure


def style_axes(axes: Axes, size: float) -> None:
    """Reduce axes to a baseline, labels without ticks, and a pale vertical grid.

    Parameters
    ----------
    size
        Font size of labels in points.
    """
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT)
    axes.tick_params(axis="both", length=0, labelsize=size, labelcolor=INK)
    axes.grid(axis="x", color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_fontsize(size)
        axis.label.set_color(GREY)


def write(axes: Axes, x: float, y: float, text: str, colour: str = INK, **style: Any) -> None:
    """Write a label, vertically centred at `y`.

    Parameters
    ----------
    x, y
        Data coordinates, unless `style` has another ``transform``.
    style
        Properties of a matplotlib ``Text``, which replace the defaults.
    """
    # A name may contain "$", which matplotlib would parse as mathematics.
    axes.text(
        x, y, text, **{"va": "center", "fontsize": SMALL, "color": colour, **style},
        parse_math=False,
    )  # fmt: skip


def write_right(axes: Axes, y: float, text: str, colour: str, va: str = "center") -> None:
    """Write a label right of the axes.

    Parameters
    ----------
    y
        Data coordinate, such as the last value of a line.
    va
        Vertical alignment.
    """
    write(axes, 1.015, y, text, colour, fontsize=9, va=va, transform=axes.get_yaxis_transform())


def day_number(instant: datetime) -> float:
    """Return days since 1970-01-01 UTC, the coordinate of an instant on an axis."""
    return instant.timestamp() / 86_400


def label_days(axes: Axes, instants: Sequence[datetime], most: int = 4) -> None:
    """Label days below the axes, and draw horizontal lines instead of vertical ones.

    Parameters
    ----------
    instants
        Instants of the points.
    most
        Maximum number of labels; they are at least 1/(`most` + 1) of the axis apart.
    """
    axes.grid(visible=False)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    days = sorted(set(instants))
    if not days:
        axes.set_xticks([])
        return
    first, last = day_number(days[0]), day_number(days[-1])
    # A single instant has no span: the axis gets a day on each side.
    pad = max((last - first) * 0.08, 1.0)
    axes.set_xlim(first - pad, last + pad)
    # The newest one always has its label.
    chosen, gap = [days[-1]], (days[-1] - days[0]) / (most + 1)
    for day in (days[round(at * (len(days) - 1) / (most - 1))] for at in range(most - 1)):
        if all(abs(day - other) > gap for other in chosen):
            chosen.append(day)
    axes.set_xticks([*map(day_number, chosen)], [f"{day.day} {day:%b}" for day in chosen])


def spread(heights: Sequence[float], gap: float, low: float) -> list[float]:
    """Move labels apart so that they do not overlap.

    Parameters
    ----------
    heights
        Wanted positions, highest first.
    gap
        Minimum distance.
    low
        Lower end of the axes.

    Returns
    -------
    Positions, moved down first, then up until all are at least `low`.
    """
    # Downwards first, so that the highest label stays at its line.
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else height)
    # Then upwards, for labels that fell below the axes.
    floor = low
    for at in reversed(range(len(placed))):
        placed[at] = max(placed[at], floor)
        floor = placed[at] + gap
    return placed


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a figure, the first one on top.

    Parameters
    ----------
    names
        Cut by `short`.
    """
    axes.set_yticks(range(len(names)), map(short, names), parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def percent(value: float, _: float) -> str:
    """Format a tick of an axis of relative changes.

    Parameters
    ----------
    value
        Relative change, .02 for ``+2 %``.
    _
        Position of the tick, which matplotlib passes.
    """
    # Ticks are round numbers: decimals of 0, as `change` writes them, would only take space.
    return f"{100 * value:{'+' if value else ''}.4g} %".replace("-", MINUS)


def short(text: str, most: int = 26) -> str:
    """Return a name, cut to the space of a figure.

    Parameters
    ----------
    most
        Maximum number of characters, the ellipsis included.
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    # matplotlib would write its version into the file: equal figures would differ after an update.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
