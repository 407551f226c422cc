"""Live quality run by run: a table and a figure.

Guarantees: equal rows give equal bytes; a run without a score is named and leaves a gap; nothing is
computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from pipeline.evaluation.prequential import ALL, LiveFigures
from pipeline.report.figure import BLUE, GREY, INK, LIGHT, ORANGE, canvas, png, short
from pipeline.report.svg_card import svg
from pipeline.report.table import grid
from pipeline.report.wording import metric_label, number
from pipeline.workspace.artifacts import LiveFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
_NOTHING = "no night has scored live lists yet: the second night is the first that can"
_Score: TypeAlias = tuple[datetime, LiveFigures, float]
"""As-of, a score of enough people, and its NDCG."""


def live_table(nights: Sequence[tuple[datetime, LiveFile]]) -> str:
    """Return a line for each run, given by its as-of, and version."""
    if not nights:
        return _NOTHING
    k = nights[-1][1].k
    header = (
        "night", "version", "users", "events", f"hit rate@{k}", metric_label(f"ndcg_at_{k}"),
        "95 % interval", "base only", "unlisted",
    )  # fmt: skip
    return grid(header, [row for as_of, live in nights for row in _lines(as_of, live)])


def _lines(as_of: datetime, live: LiveFile) -> Iterator[tuple[str, ...]]:
    day, unlisted = f"{as_of:%Y-%m-%d}", number(live.unlisted)
    scores = _scores(live)
    if not scores:
        yield (day, "–", "0", "0", "–", "–", "–", "–", unlisted)
    for at, score in enumerate(scores):
        bounds = "–"
        if score.ndcg_lo is not None and score.ndcg_hi is not None:
            bounds = f"{score.ndcg_lo:.4f} to {score.ndcg_hi:.4f}"
        yield (
            "" if at else day,
            score.model_version,
            number(score.users),
            number(score.events),
            _figure(score.hit_rate),
            _figure(score.ndcg),
            bounds,
            _figure(score.base_only_ndcg),
            "" if at else unlisted,
        )


def _scores(live: LiveFile) -> list[LiveFigures]:
    """Return what each version reached with all users."""
    return [row for row in live.rows if row.slice == ALL]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def live_chart(nights: Sequence[tuple[datetime, LiveFile]], kind: str) -> bytes:
    """Draw the NDCG of live lists over the nights with 95 % intervals, as one of `FORMATS`.

    A version's name stands where it begins; where patches changed something, a diamond says what
    the base alone would have reached.
    """
    scores = [
        (as_of, score, score.ndcg)
        for as_of, live in nights
        for score in _scores(live)
        if score.ndcg is not None
    ]
    k = next((live.k for as_of, live in reversed(nights) if scores and as_of == scores[-1][0]), 0)
    label = metric_label(f"ndcg_at_{k}") if scores else ""
    title = _title(scores, label)
    about = "each new event against the list that was live when it happened · 95 % intervals"
    figure, axes = canvas(1, title, about, row=3.2, left=0.11, width=0.85, foot=0.6)
    axes.grid(visible=False)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.plot(
        [_at(as_of) for as_of, *_ in scores], [ndcg for *_, ndcg in scores], color=BLUE, linewidth=1
    )
    version = None
    for as_of, score, ndcg in scores:
        _draw(axes, _at(as_of), score, ndcg, named=score.model_version != version)
        version = score.model_version
    if scores:
        _frame(axes, scores)
    axes.set_ylabel(label, parse_math=False, fontsize=9, color=GREY)
    return png(figure) if kind == "png" else svg(figure, "live-history", title)


def _draw(axes: Axes, at: float, score: LiveFigures, ndcg: float, *, named: bool) -> None:
    top = ndcg
    if score.ndcg_lo is not None and score.ndcg_hi is not None:
        axes.plot([at, at], [score.ndcg_lo, score.ndcg_hi], color=BLUE, linewidth=2)
        top = score.ndcg_hi
    axes.plot([at], [ndcg], "o", color=BLUE, markersize=6)
    if score.base_only_ndcg not in (None, ndcg):
        axes.plot([at], [score.base_only_ndcg], "D", color=ORANGE, markersize=5, fillstyle="none")
    if named:
        axes.annotate(
            f"version {short(score.model_version)}", (at, top), (0, 4),
            textcoords="offset points", ha="center", fontsize=8.5, color=INK, parse_math=False,
        )  # fmt: skip


def _frame(axes: Axes, scores: Sequence[_Score]) -> None:
    """Give the axes their range, and every night, or a few of many, its day."""
    nights = sorted({as_of for as_of, *_ in scores})
    step = -(-len(nights) // 8)
    shown = nights[::-1][::step][::-1]
    axes.set_xticks([_at(night) for night in shown], [f"{night:%Y-%m-%d}" for night in shown])
    axes.margins(x=0.08)
    highest = max(ndcg if score.ndcg_hi is None else score.ndcg_hi for _, score, ndcg in scores)
    axes.set_ylim(0, highest * 1.15 or 1)
    if any(score.base_only_ndcg not in (None, ndcg) for _, score, ndcg in scores):
        axes.annotate("◇ without the day's patches", (0.99, 0.03), xycoords="axes fraction",
                      ha="right", fontsize=8.5, color=ORANGE)  # fmt: skip


def _at(instant: datetime) -> float:
    """Return days since 1970."""
    return instant.timestamp() / 86_400


def _title(scores: Sequence[_Score], label: str) -> str:
    if not scores:
        return "No live list has been scored yet"
    _, last, ndcg = scores[-1]
    version, users = short(last.model_version), number(last.users)
    return f"Live, version {version} reached {ndcg:.4f} {label} with {users} people"
