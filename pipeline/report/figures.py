"""Figures of a night as PNG bytes: a title that states the finding, direct labels, no legend.

Promises: equal rows give equal bytes; nothing of pyplot's global state is touched; colours are
Okabe and Ito's, and never the only sign.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.report.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    canvas,
    interval,
    label,
    name_rows,
    percent,
    png,
    short,
)
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

_MOST = 16


def recipes_figure(recipes: Sequence[RecipeRow], metric: str, winner: str | None) -> bytes:
    """Draw the primary metric of each recipe with its 95 % interval, best on top."""
    rows = sorted(
        (row for row in recipes if row.mean is not None),
        key=lambda row: (-(row.mean or 0), row.name),
    )[:_MOST]
    figure, axes = canvas(
        len(rows), recipes_title(recipes, metric), "mean over the people judged, 95 % interval"
    )
    top = max((row.hi if row.hi is not None else row.mean or 0) for row in rows) if rows else 1.0
    for at, row in enumerate(rows):
        mean = row.mean or 0.0
        colour = BLUE if row.name == winner else GREY
        lo, hi = (mean if row.lo is None else row.lo), (mean if row.hi is None else row.hi)
        axes.barh(at, mean, height=0.56, color=colour, alpha=0.28, linewidth=0)
        interval(axes, at, mean, lo, hi, colour)
        label(axes, hi + top * 0.015, at, f"{mean:.4f}", colour, bold=row.name == winner)
    name_rows(axes, [_role(row) for row in rows])
    axes.set_xlim(0, top * 1.12 or 1)
    axes.set_xlabel(metric_label(metric), parse_math=False)
    return png(figure)


def lifts_figure(lifts: Sequence[LiftRow], against: str, needed: float | None) -> bytes:
    """Draw each recipe's lift over `against` with its 95 % interval and the lift a switch needs."""
    rows = sorted(lifts, key=lambda row: (-row.lift, row.name))[:_MOST]
    about = f"difference on the same people ÷ mean of {short(against)}, 95 % interval"
    figure, axes = canvas(len(rows), lifts_title(lifts, against), about, width=0.56)
    ends = [0.0, *(row.lo for row in rows), *(row.hi for row in rows)]
    if needed is not None:
        ends.append(needed)
        axes.axvline(needed, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for at, row in enumerate(rows):
        sure = row.proved
        worse = row.underpowered is None and row.hi < 0
        colour = BLUE if sure else ORANGE if worse else GREY
        interval(axes, at, row.lift, row.lo, row.hi, colour)
        note = f"{change(row.lift)}" + ("\ntoo little evidence" if row.underpowered else "")
        label(axes, high + span * 0.09, at, note, colour, bold=sure)
    name_rows(axes, [row.name for row in rows])
    axes.set_xlim(low - span * 0.05, high + span * 0.05)
    axes.xaxis.set_major_formatter(percent)
    axes.set_xlabel(f"lift over {short(against)}", parse_math=False)
    if needed is not None:
        axes.text(
            needed,
            1.01,
            f" a switch needs {change(needed)}",
            transform=axes.get_xaxis_transform(),
            fontsize=8.5,
            color=INK,
            va="bottom",
        )
    return png(figure)


def slices_figure(slices: Sequence[SliceRow], metric: str, challenger: str, against: str) -> bytes:
    """Draw both recipes in each group of people, with 95 % intervals."""
    rows = list(slices)[:_MOST]
    about = f"blue dot: {short(challenger)} · grey diamond: {short(against)} · 95 % intervals"
    figure, axes = canvas(len(rows), slices_title(slices, challenger, against), about, row=0.52)
    top = max((max(row.candidate[2], row.champion[2]) for row in rows), default=1.0)
    for at, row in enumerate(rows):
        interval(axes, at - 0.15, *row.candidate, BLUE)
        interval(axes, at + 0.15, *row.champion, GREY, marker="D")
        end = max(row.candidate[2], row.champion[2]) + top * 0.02
        told = change(row.candidate[0] / row.champion[0] - 1) if row.champion[0] > 0 else "n/a"
        label(axes, end, at, told, INK)
    name_rows(axes, [f"{plain(row.name)}\n{number(row.users)} people" for row in rows])
    axes.set_xlim(0, top * 1.15 or 1)
    axes.set_xlabel(metric_label(metric), parse_math=False)
    return png(figure)


def _role(row: RecipeRow) -> str:
    return row.name if row.role == "candidate" else f"{row.name}\n{row.role}"
