"""Figures of a night as PNG bytes: a title that states the finding, direct labels, no legend.

Promises: equal rows give equal bytes; nothing of pyplot's global state is touched; colours are
Okabe and Ito's, and never the only sign.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.report.night import LiftRow, RecipeRow, SliceRow
from pipeline.report.words import (
    change,
    lifts_title,
    metric_label,
    number,
    plain,
    recipes_title,
    slices_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE = "#0072B2"
_ORANGE = "#D55E00"
_GREY = "#6B6B6B"
_LIGHT = "#D9D9D9"
_INK = "#222222"
_WIDTH = 8.0
_ROW = 0.42
_DPI = 144
_WRAP = 68
_LONGEST = 26
_MOST = 16


def recipes_figure(recipes: Sequence[RecipeRow], metric: str, winner: str | None) -> bytes:
    """Draw the primary metric of each recipe with its 95 % interval, best on top."""
    rows = sorted(
        (row for row in recipes if row.mean is not None),
        key=lambda row: (-(row.mean or 0), row.name),
    )[:_MOST]
    figure, axes = _canvas(
        len(rows), recipes_title(recipes, metric), "mean over the people judged, 95 % interval"
    )
    top = max((row.hi if row.hi is not None else row.mean or 0) for row in rows) if rows else 1.0
    for at, row in enumerate(rows):
        mean = row.mean or 0.0
        colour = _BLUE if row.name == winner else _GREY
        lo, hi = (mean if row.lo is None else row.lo), (mean if row.hi is None else row.hi)
        axes.barh(at, mean, height=0.56, color=colour, alpha=0.28, linewidth=0)
        _interval(axes, at, mean, lo, hi, colour)
        _label(axes, hi + top * 0.015, at, f"{mean:.4f}", colour, bold=row.name == winner)
    _rows(axes, [_role(row) for row in rows])
    axes.set_xlim(0, top * 1.12 or 1)
    axes.set_xlabel(metric_label(metric), parse_math=False)
    return _png(figure)


def lifts_figure(lifts: Sequence[LiftRow], against: str, needed: float | None) -> bytes:
    """Draw each recipe's lift over `against` with its 95 % interval and the lift a switch needs."""
    rows = sorted(lifts, key=lambda row: (-row.lift, row.name))[:_MOST]
    about = f"difference on the same people ÷ mean of {_short(against)}, 95 % interval"
    figure, axes = _canvas(len(rows), lifts_title(lifts, against), about, width=0.56)
    ends = [0.0, *(row.lo for row in rows), *(row.hi for row in rows)]
    if needed is not None:
        ends.append(needed)
        axes.axvline(needed, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    axes.axvline(0, color=_INK, linewidth=1, zorder=1)
    for at, row in enumerate(rows):
        sure = row.proved
        worse = row.underpowered is None and row.hi < 0
        colour = _BLUE if sure else _ORANGE if worse else _GREY
        _interval(axes, at, row.lift, row.lo, row.hi, colour)
        note = f"{change(row.lift)}" + ("\ntoo little evidence" if row.underpowered else "")
        _label(axes, high + span * 0.09, at, note, colour, bold=sure)
    _rows(axes, [row.name for row in rows])
    axes.set_xlim(low - span * 0.05, high + span * 0.05)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel(f"lift over {_short(against)}", parse_math=False)
    if needed is not None:
        axes.text(
            needed,
            1.01,
            f" a switch needs {change(needed)}",
            transform=axes.get_xaxis_transform(),
            fontsize=8.5,
            color=_INK,
            va="bottom",
        )
    return _png(figure)


def slices_figure(slices: Sequence[SliceRow], metric: str, challenger: str, against: str) -> bytes:
    """Draw both recipes in each group of people, with 95 % intervals."""
    rows = list(slices)[:_MOST]
    about = f"blue dot: {_short(challenger)} · grey diamond: {_short(against)} · 95 % intervals"
    figure, axes = _canvas(len(rows), slices_title(slices, challenger, against), about, row=0.52)
    top = max((max(row.candidate[2], row.champion[2]) for row in rows), default=1.0)
    for at, row in enumerate(rows):
        _interval(axes, at - 0.15, *row.candidate, _BLUE)
        _interval(axes, at + 0.15, *row.champion, _GREY, marker="D")
        end = max(row.candidate[2], row.champion[2]) + top * 0.02
        told = change(row.candidate[0] / row.champion[0] - 1) if row.champion[0] > 0 else "n/a"
        _label(axes, end, at, told, _INK)
    _rows(axes, [f"{plain(row.name)}\n{number(row.users)} people" for row in rows])
    axes.set_xlim(0, top * 1.15 or 1)
    axes.set_xlabel(metric_label(metric), parse_math=False)
    return _png(figure)


def _canvas(
    n_rows: int, title: str, about: str, *, row: float = _ROW, width: float = 0.72
) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    lines = textwrap.wrap(title, _WRAP) or [""]
    head, foot = 0.55 + 0.24 * len(lines), 0.55
    height = head + foot + row * max(n_rows, 1)
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    axes = figure.add_axes((0.25, foot / height, width, row * max(n_rows, 1) / height))
    figure.text(
        0.02, 1 - 0.12 / height, "\n".join(lines), fontsize=13, fontweight="bold", color=_INK,
        va="top", parse_math=False,
    )  # fmt: skip
    figure.text(
        0.02, 1 - (0.2 + 0.24 * len(lines)) / height, about, fontsize=9, color=_GREY, va="top",
        parse_math=False,
    )  # fmt: skip
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LIGHT)
    axes.tick_params(axis="both", length=0, labelsize=9, labelcolor=_INK)
    axes.grid(axis="x", color=_LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set_fontsize(9)
    axes.xaxis.label.set_color(_GREY)
    return figure, axes


def _interval(
    axes: Axes, at: float, mean: float, lo: float, hi: float, colour: str, marker: str = "o"
) -> None:
    axes.plot([lo, hi], [at, at], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    axes.plot([mean], [at], marker, color=colour, markersize=6, zorder=3, clip_on=False)


def _label(axes: Axes, x: float, y: float, text: str, colour: str, *, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, va="center", fontsize=9, color=colour, fontweight=weight)


def _rows(axes: Axes, names: Sequence[str]) -> None:
    labels = ["\n".join(_short(line) for line in name.split("\n")) for name in names]
    axes.set_yticks(range(len(labels)), labels, parse_math=False)
    axes.set_ylim(len(labels) - 0.4, -0.6)


def _percent(value: float, _: float) -> str:
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return f"{sign}{abs(100 * value):.4g} %"


def _role(row: RecipeRow) -> str:
    return row.name if row.role == "candidate" else f"{row.name}\n{row.role}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the library's own line of metadata, equal rows give equal bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
