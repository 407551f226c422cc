"""Figures of one nightly run as SVG: a title that states the finding, direct labels, no legend.

Guarantees: as `svg_card`; a colour is never the only difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pipeline.evaluation.beyond_accuracy import COVERAGE, GINI, NOVELTY
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.lift import verdict
from pipeline.number_text import change
from pipeline.report.figure import BLUE, GREY, INK, ORANGE, percent, short, write
from pipeline.report.night import LiftRow, NightPage, SliceRow
from pipeline.report.pair import PairedRow
from pipeline.report.svg_card import card, name_rows, svg
from pipeline.report.titles import (
    forest_title,
    lifts_title,
    reach_title,
    reasons_title,
    recipes_title,
)
from pipeline.report.wording import metric_label, plain, share
from pipeline.workspace.artifacts import RecipeEvaluation

EffectRow: TypeAlias = LiftRow | SliceRow | PairedRow
"""Row of a forest plot: a lift with its interval."""
_MOST = 16
_ROW = 0.34
_COLOURS: Final = {"better": BLUE, "worse": ORANGE}


def recipes_figure(page: NightPage) -> bytes:
    """Draw the primary metric of each recipe with its 95 % interval, the best on top."""
    names = page.ranked[:_MOST]
    label = metric_label(page.metric)
    title = recipes_title(page.values(NDCG), page.metric)
    about = f"{label}: mean over the evaluated users, 95 % interval"
    figure, (axes,) = card(_ROW * len(names), title, about, foot=0.35)
    intervals = [_interval(page.evaluations[name], page.metric) for name in names]
    top = max(hi for _, _, hi in intervals) if names else 1.0
    for at, (name, (mean, lo, hi)) in enumerate(zip(names, intervals, strict=True)):
        colour, weight = _stroke(page, name)
        axes.barh(at, mean, height=0.56, color=colour, alpha=0.28, linewidth=0)
        axes.plot([lo, hi], [at, at], color=colour, linewidth=2)
        axes.plot([mean], [at], "o", color=colour, markersize=5)
        write(axes, hi + top * 0.02, at, f"{mean:.4f}", fontweight=weight)
    name_rows(axes, [_label(page, name) for name in names])
    # matplotlib warns about an axis of length 0, and warnings are errors in the tests.
    axes.set_xlim(0, top * 1.04 or 1)
    axes.locator_params(axis="x", nbins=4)
    return svg(figure, "recipes", title)


def lifts_figure(
    lifts: Sequence[LiftRow], against: str, needed: float | None, margin: float
) -> bytes:
    """Draw the lift of each recipe with its 95 % interval, the highest on top.

    Parameters
    ----------
    lifts
        At least one row.
    against
        Recipe that the lifts are over.
    needed
        Lift that a switch needs; None for no line.
    margin
        As for `evaluation.lift.verdict`.
    """
    rows = [(row.name, row) for row in sorted(lifts, key=lambda row: (-row.lift, row.name))]
    about = "lift on the same users, with its 95 % interval"
    title, label = lifts_title(lifts, against, margin), f"lift over {short(against)}"
    return forest("lifts", rows, title, about, label, margin, needed)


def slices_figure(
    slices: Sequence[SliceRow], challenger: str, against: str, margin: float
) -> bytes:
    """Draw the lift in each user group with its 95 % interval.

    Parameters
    ----------
    slices
        At least one row.
    challenger, against
        The two recipes that are compared.
    margin
        As for `evaluation.lift.verdict`.
    """
    rows = [(f"{short(plain(row.name))} ({row.users:,})", row) for row in slices]
    about = f"lift of {short(challenger)} over {short(against)}, 95 % intervals; (users)"
    title = forest_title(slices, challenger, against, margin)
    label = f"lift over {short(against)}"
    return forest("slices", rows, title, about, label, margin)


def forest(
    key: str,
    rows: Sequence[tuple[str, EffectRow]],
    title: str,
    about: str,
    label: str,
    margin: float,
    needed: float | None = None,
) -> bytes:
    """Draw a forest plot: one lift with its 95 % interval per row.

    Blue: better; orange: worse; grey: neither; a hollow mark: too little evidence for the gate.

    Parameters
    ----------
    key
        Name of the figure, see `svg`.
    rows
        Label and lift of each row, at least one; the first `_MOST` are drawn.
    title, about, label
        Title, line below it, and label of the axis.
    margin
        As for `evaluation.lift.verdict`.
    needed
        Lift of the dashed line; None for none.
    """
    names, shown = zip(*rows[:_MOST], strict=True)
    if any(row.underpowered for row in shown):
        about += "; hollow: too little evidence for the gate"
    if len(rows) > _MOST:
        about += f"; the first {_MOST} of {len(rows)}"
    figure, (axes,) = card(_ROW * len(shown), title, about)
    low, high = _span(shown, needed)
    span = high - low
    if needed is not None:
        axes.axvline(needed, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        label += f" (dashed: a switch needs {change(needed)})"
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for at, row in enumerate(shown):
        if row.lift is None or row.lo is None or row.hi is None:
            write(axes, high + span * 0.09, at, "n/a", GREY)
            continue
        colour = _COLOURS.get(verdict(row.lo, row.hi, margin), GREY)
        ends = [max(row.lo, low), min(row.hi, high)]
        # An interval that lies beyond the axis has its ends in the wrong order after the cut.
        if ends[0] <= ends[1]:
            axes.plot(ends, [at, at], color=colour, linewidth=1 if row.underpowered else 2)
        for end, inside, mark in ((low, row.lo >= low, "<"), (high, row.hi <= high, ">")):
            if not inside:  # an arrow marks that the interval extends beyond the axis
                axes.plot([end], [at], mark, color=colour, markersize=4)
        if low <= row.lift <= high:
            face = "white" if row.underpowered else colour
            axes.plot([row.lift], [at], "o", color=colour, markerfacecolor=face, markersize=5)
        weight = "normal" if colour == GREY else "bold"
        write(axes, high + span * 0.09, at, change(row.lift), colour, fontweight=weight)
    name_rows(axes, names)
    axes.set_xlim(low - span * 0.05, high + span * 0.05)
    axes.locator_params(axis="x", nbins=4)
    axes.xaxis.set_major_formatter(percent)
    # Two dollar signs in a recipe's name would start a formula.
    axes.set_xlabel(label, parse_math=False)
    return svg(figure, key, title)


def _span(rows: Sequence[EffectRow], needed: float | None) -> tuple[float, float]:
    """Return the ends of the axis; rows with too little evidence count only if all are such."""
    # The interval of a tiny group may be ±300 %: the others would be mere points beside it.
    sure = [row for row in rows if not row.underpowered] or rows
    ends = [x for row in sure for x in (row.lift, row.lo, row.hi, needed, 0.0) if x is not None]
    low, high = min(ends), max(ends)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def reach_figure(page: NightPage) -> bytes:
    """Draw coverage, Gini index and novelty of each recipe's lists."""
    coverage = page.values(COVERAGE)
    names = [name for name in page.ranked[:_MOST] if name in coverage]
    panels = [("coverage", [coverage[name] for name in names])]
    for metric, label in ((GINI, "Gini, 0 to 1"), (NOVELTY, "novelty, bits")):
        values = page.values(metric)
        # A panel without the metric of a recipe would show a bar of 0.
        if values.keys() >= set(names):
            panels.append((label, [values[name] for name in names]))
    title = reach_title(coverage, page.decision.recipe)
    about = "more coverage and novelty and a lower Gini index: more varied lists"
    figure, grounds = card(
        _ROW * len(names), title, about, panels=len(panels), foot=0.3, right=0.12, left=1.42
    )
    for axes, (label, heights) in zip(grounds, panels, strict=True):
        top = max(heights) or 1.0
        for at, (name, value) in enumerate(zip(names, heights, strict=True)):
            colour, weight = _stroke(page, name)
            alpha = 0.5 if colour == BLUE else 0.28
            axes.barh(at, value, height=0.56, color=colour, alpha=alpha, linewidth=0)
            text = share(value) if label == "coverage" else f"{value:.3g}"
            write(axes, top * 0.03, at, text, fontweight=weight)
        first = axes is grounds[0]
        name_rows(axes, [_label(page, name) if first else "" for name in names])
        axes.set_xlim(0, top)
        axes.set_xticks([])
        axes.set_xlabel(label)
    return svg(figure, "reach", title)


def reasons_figure(reasons: Mapping[str, int], rows: int) -> bytes:
    """Draw the number of rows in quarantine by reason, the most frequent on top.

    Parameters
    ----------
    reasons
        Rows by reason; a row may have several.
    rows
        Rows in quarantine.
    """
    shown = sorted(reasons.items(), key=lambda reason: (-reason[1], reason[0]))[:_MOST]
    title = reasons_title(reasons, rows)
    about = "rows in quarantine by reason; a row may have several"
    figure, (axes,) = card(_ROW * len(shown), title, about, foot=0.15, right=0.9)
    top = shown[0][1]
    for at, (_, count) in enumerate(shown):
        axes.barh(at, count, height=0.56, color=ORANGE, alpha=0.6, linewidth=0)
        write(axes, count + top * 0.02, at, f"{count:,} ({share(count / rows)})")
    name_rows(axes, [plain(reason) for reason, _ in shown])
    axes.set_xlim(0, top)
    axes.set_xticks([])
    return svg(figure, "reasons", title)


def _stroke(page: NightPage, name: str) -> tuple[str, str]:
    """Return colour and font weight of a recipe; the champion after the run is highlighted."""
    return (BLUE, "bold") if name == page.decision.recipe else (GREY, "normal")


def _interval(evaluation: RecipeEvaluation, metric: str) -> tuple[float, float, float]:
    """Return mean and bounds; without an interval both bounds are the mean."""
    mean, lo, hi = evaluation.interval(metric)
    mean = mean or 0.0
    return mean, mean if lo is None else lo, mean if hi is None else hi


def _label(page: NightPage, name: str) -> str:
    return name if (role := page.role(name)) == "candidate" else f"{name}\n{role}"
