"""History of live quality: a table for a terminal, and a figure.

Guarantees: equal runs give equal bytes; a run without scores stays visible as a gap; nothing is
computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.base import Instant
from pipeline.evaluation.prequential import ALL, LiveFigures
from pipeline.report import figure, wording
from pipeline.report.svg_card import svg
from pipeline.report.table import grid
from pipeline.report.titles import live_title
from pipeline.report.wording import NONE, metric_label, number, span
from pipeline.workspace.artifacts import LiveFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
_NOTHING = "no nightly run has scored live lists yet; the second run is the first that can"


class LiveRun(LiveFile):
    """Prequential scores of a nightly run."""

    as_of: Instant
    run_id: str

    @property
    def scores(self) -> list[LiveFigures]:
        """Scores over all users, by version."""
        return [row for row in self.rows if row.slice == ALL]


def live_table(runs: Sequence[LiveRun]) -> str:
    """Return a line per run and version, or a note without runs."""
    if not runs:
        return _NOTHING
    k = runs[-1].k
    header = (
        "run", "version", "users", "events", f"hit rate@{k}", metric_label(f"ndcg_at_{k}"),
        "95 % interval", "base only", "unlisted",
    )  # fmt: skip
    return grid(header, [row for run in runs for row in _lines(run)])


def _lines(run: LiveRun) -> Iterator[tuple[str, ...]]:
    day, unlisted = f"{run.as_of:%Y-%m-%d}", number(run.unlisted)
    if not run.scores:
        yield (day, NONE, "0", "0", NONE, NONE, NONE, NONE, unlisted)
    for at, score in enumerate(run.scores):
        yield (
            "" if at else day,
            score.model_version,
            number(score.users),
            number(score.events),
            wording.figure(score.hit_rate),
            wording.figure(score.ndcg),
            span(score.ndcg_lo, score.ndcg_hi),
            wording.figure(score.base_only_ndcg),
            "" if at else unlisted,
        )


def live_chart(runs: Sequence[LiveRun], kind: str) -> bytes:
    """Draw the prequential NDCG by nightly run with 95 % intervals.

    The name of a version stands at its first run. A diamond is the score of the base lists alone,
    where patches changed it.

    Parameters
    ----------
    runs
        Oldest first.
    kind
        One of `FORMATS`.
    """
    rows = [(run.as_of, row) for run in runs for row in run.scores if row.ndcg is not None]
    title, label = "No live list has been scored yet", ""
    if rows:
        metric = f"ndcg_at_{runs[-1].k}"
        title, label = live_title(rows[-1][1], metric), metric_label(metric)
    about = f"prequential scores of the live lists, 95 % intervals{patch_note(rows)}"
    drawn, axes = figure.canvas(1, title, about, row=3.2, left=0.11, width=0.85, foot=0.6)
    draw_scores(axes, rows, "version ")
    figure.label_days(axes, [as_of for as_of, _ in rows], 8)
    axes.set_ylabel(label, parse_math=False)
    return figure.png(drawn) if kind == "png" else svg(drawn, "live-history", title)


def draw_scores(axes: Axes, rows: Sequence[tuple[datetime, LiveFigures]], prefix: str) -> None:
    """Draw prequential scores with their intervals, and name each version at its first run.

    Parameters
    ----------
    rows
        As-of and scores of all users, oldest first.
    prefix
        Text before the name of a version.
    """
    version, top = None, 0.0
    for as_of, row in rows:
        at, ndcg = figure.day_number(as_of), row.ndcg or 0.0
        high = ndcg if row.ndcg_hi is None else row.ndcg_hi
        if row.ndcg_lo is not None and row.ndcg_hi is not None:
            axes.plot([at] * 2, [row.ndcg_lo, row.ndcg_hi], color=figure.BLUE, linewidth=1.6)
        if row.base_only_ndcg is not None and _patched(row):
            color, values = figure.ORANGE, [row.base_only_ndcg]
            axes.plot([at], values, "D", color=color, markersize=5, fillstyle="none")
        # A version that returns later is named again.
        if row.model_version != version:
            name = prefix + figure.short(row.model_version, 8)
            figure.write(axes, at, high, name, figure.GREY, ha="center", va="bottom")
        version, top = row.model_version, max(top, high)
    days = [figure.day_number(as_of) for as_of, _ in rows]
    values = [row.ndcg or 0.0 for _, row in rows]
    axes.plot(days, values, "-o", color=figure.BLUE, linewidth=1.2, markersize=5)
    axes.set_ylim(0, top * 1.15 or 1)


def patch_note(rows: Sequence[tuple[datetime, LiveFigures]]) -> str:
    """Explain the diamonds of `draw_scores`; empty without any."""
    return "; diamond: without patches" if any(_patched(row) for _, row in rows) else ""


def _patched(row: LiveFigures) -> bool:
    """Return whether patches changed a scored list."""
    return row.base_only_ndcg not in (None, row.ndcg)
