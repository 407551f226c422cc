"""History of live quality: a table for a terminal, and a figure.

Guarantees: equal runs give equal bytes; a run without scores stays visible as a gap; nothing is
computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
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
    scored = [
        (run, score, score.ndcg) for run in runs for score in run.scores if score.ndcg is not None
    ]
    title, label = "No live list has been scored yet", ""
    if scored:
        newest, last, _ = scored[-1]
        metric = f"ndcg_at_{newest.k}"
        title, label = live_title(last, metric), metric_label(metric)
    about = "each new event scored against the list that was live at its timestamp · 95 % intervals"
    drawn, axes = figure.canvas(1, title, about, row=3.2, left=0.11, width=0.85, foot=0.6)
    figure.horizontal_lines(axes)
    at = [figure.day_number(run.as_of) for run, *_ in scored]
    axes.plot(at, [ndcg for *_, ndcg in scored], color=figure.BLUE, linewidth=1)
    for x, (_, score, ndcg) in zip(at, scored, strict=True):
        _draw(axes, x, score, ndcg)
    # A version that returns later is named again.
    points = zip(at, (score for _, score, _ in scored), strict=True)
    for version, same in groupby(points, lambda point: point[1].model_version):
        x, first = next(same)
        axes.annotate(
            f"version {figure.short(version)}", (x, first.ndcg_hi or first.ndcg or 0.0), (0, 4),
            textcoords="offset points", ha="center", fontsize=8.5, color=figure.INK,
            parse_math=False,
        )  # fmt: skip
    if scored:
        _frame(axes, scored)
    axes.set_ylabel(label, parse_math=False)
    return figure.png(drawn) if kind == "png" else svg(drawn, "live-history", title)


def _draw(axes: Axes, at: float, score: LiveFigures, ndcg: float) -> None:
    if score.ndcg_lo is not None and score.ndcg_hi is not None:
        axes.plot([at, at], [score.ndcg_lo, score.ndcg_hi], color=figure.BLUE, linewidth=2)
    axes.plot([at], [ndcg], "o", color=figure.BLUE, markersize=6)
    # Equal scores: no patch changed a scored list.
    if score.base_only_ndcg not in (None, ndcg):
        axes.plot(
            [at], [score.base_only_ndcg], "D", color=figure.ORANGE, markersize=5, fillstyle="none"
        )


def _frame(axes: Axes, scored: Sequence[tuple[LiveRun, LiveFigures, float]]) -> None:
    """Set the range of the axes, and label at most 8 runs with their day."""
    nights = sorted({run.as_of for run, *_ in scored})
    # Counted back from the newest run, which always has its label.
    step = -(-len(nights) // 8)
    shown = nights[::-1][::step][::-1]
    axes.set_xticks([*map(figure.day_number, shown)], [f"{night:%Y-%m-%d}" for night in shown])
    axes.margins(x=0.08)
    highest = max(ndcg if score.ndcg_hi is None else score.ndcg_hi for _, score, ndcg in scored)
    axes.set_ylim(0, highest * 1.15 or 1)
    if any(score.base_only_ndcg not in (None, ndcg) for _, score, ndcg in scored):
        axes.annotate("◇ without the day's patches", (0.99, 0.03), xycoords="axes fraction",
                      ha="right", fontsize=8.5, color=figure.ORANGE)  # fmt: skip
