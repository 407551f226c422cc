"""What live lists were worth to people, over the nights: a table and a figure from frozen rows.

Promises: equal rows give equal bytes; a night without a score is named and leaves a gap; nothing is
computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.report.figure import BLUE, GREY, INK, LIGHT, ORANGE, canvas, png, short
from pipeline.report.svg_card import svg
from pipeline.report.table import grid
from pipeline.report.wording import metric_label, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
_NOTHING = "no night has scored live lists yet: the second night is the first that can"


@dataclass(frozen=True)
class LiveScore:
    """What one version reached with everybody between two nights.

    Attributes
    ----------
    hit_rate, ndcg, ndcg_lo, ndcg_hi
        Mean over user-days with its 95 % interval; nothing where too few people came back.
    base_only_hit_rate, base_only_ndcg
        The same without the patches of the day.
    """

    model_version: str
    users: int
    user_days: int
    events: int
    hit_rate: float | None
    ndcg: float | None
    ndcg_lo: float | None
    ndcg_hi: float | None
    base_only_hit_rate: float | None
    base_only_ndcg: float | None


@dataclass(frozen=True)
class LiveNight:
    """What a night scored.

    Attributes
    ----------
    unlisted
        Events to which nothing had been shown.
    """

    as_of: datetime
    k: int
    unlisted: int
    scores: tuple[LiveScore, ...]


_Told = tuple[LiveNight, LiveScore, float]
"""A score of enough people, its night and its NDCG."""


def live_table(nights: Sequence[LiveNight]) -> str:
    """Return a line a night and version."""
    if not nights:
        return _NOTHING
    label = metric_label(f"ndcg_at_{nights[-1].k}")
    header = (
        "night", "version", "users", "events", f"hit rate@{nights[-1].k}", label, "95 % interval",
        "base only", "unlisted",
    )  # fmt: skip
    return grid(header, [row for night in nights for row in _lines(night)])


def _lines(night: LiveNight) -> Iterator[tuple[str, ...]]:
    day, unlisted = f"{night.as_of:%Y-%m-%d}", number(night.unlisted)
    if not night.scores:
        yield (day, "–", "0", "0", "–", "–", "–", "–", unlisted)
    for at, score in enumerate(night.scores):
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


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def live_chart(nights: Sequence[LiveNight], kind: str) -> bytes:
    """Draw the NDCG of live lists over the nights with 95 % intervals, as one of `FORMATS`.

    A version's name stands where it begins; where patches changed something, a diamond says what
    the base alone would have reached.
    """
    told = [
        (night, score, score.ndcg)
        for night in nights
        for score in night.scores
        if score.ndcg is not None
    ]
    title = _title(told)
    k = told[-1][0].k if told else 0
    label = metric_label(f"ndcg_at_{k}") if told else ""
    about = "each new event against the list that was live when it happened · 95 % intervals"
    figure, axes = canvas(1, title, about, row=3.2, left=0.11, width=0.85, foot=0.6)
    axes.grid(visible=False)
    axes.grid(axis="y", color=LIGHT, linewidth=0.6)
    axes.plot(
        [_at(n.as_of) for n, *_ in told], [ndcg for *_, ndcg in told], color=BLUE, linewidth=1
    )
    version = None
    for night, score, ndcg in told:
        _draw(axes, _at(night.as_of), score, ndcg, named=score.model_version != version)
        version = score.model_version
    if told:
        _frame(axes, told)
    axes.set_ylabel(label, parse_math=False, fontsize=9, color=GREY)
    return png(figure) if kind == "png" else svg(figure, "live-history", title)


def _draw(axes: Axes, at: float, score: LiveScore, ndcg: float, *, named: bool) -> None:
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


def _frame(axes: Axes, told: Sequence[_Told]) -> None:
    """Give the axes their range, and every night, or a few of many, its day."""
    nights = sorted({night.as_of for night, *_ in told})
    step = -(-len(nights) // 8)
    shown = nights[::-1][::step][::-1]
    axes.set_xticks([_at(night) for night in shown], [f"{night:%Y-%m-%d}" for night in shown])
    axes.margins(x=0.08)
    highest = max(ndcg if score.ndcg_hi is None else score.ndcg_hi for _, score, ndcg in told)
    axes.set_ylim(0, highest * 1.15 or 1)
    if any(score.base_only_ndcg not in (None, ndcg) for _, score, ndcg in told):
        axes.annotate("◇ without the day's patches", (0.99, 0.03), xycoords="axes fraction",
                      ha="right", fontsize=8.5, color=ORANGE)  # fmt: skip


def _at(instant: datetime) -> float:
    """Return days since 1970."""
    return instant.timestamp() / 86_400


def _title(told: Sequence[_Told]) -> str:
    if not told:
        return "No live list has been scored yet"
    night, last, ndcg = told[-1]
    return (
        f"Live, version {short(last.model_version)} reached {ndcg:.4f} "
        f"{metric_label(f'ndcg_at_{night.k}')} with {number(last.users)} people"
    )
