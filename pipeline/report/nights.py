"""HTML page of all nights: decisions, lift, live quality, cost, and live lists of three users.

Guarantees: the newest night comes first; a figure that a night lacks is a dash; users are named by
letters, not by ids; equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.base import Instant
from pipeline.evaluation.prequential import LiveFigures
from pipeline.number_text import change
from pipeline.report import trends, wording
from pipeline.report.headline import LIGHTS, Headline
from pipeline.report.markup import Cell, Row, Table, render
from pipeline.report.night import Dated, PastRun

_HEAD = (
    "Night|name", "Status", "What happened|wholly", "Lift over the best baseline",
    "Live hit rate|n", "Drift", "Training, with refit|n", "Size on disk|n",
)  # fmt: skip
_CSS = {"good": "w ok", "look": "w other", "act": "w bad"}


@dataclass(frozen=True)
class NightRow:
    """A night of the page.

    Attributes
    ----------
    past
        Metrics of the live recipe; None if the run did not decide.
    live
        Prequential scores of the lists that were live before the run, over all users.
    seconds
        Duration of all trainings; None if the files of the run are gone.
    size
        Bytes of the run's folder; None if it is gone.
    address
        Address of the night's page, relative to this one; None without a page.
    """

    as_of: Instant
    headline: Headline
    past: PastRun | None = None
    live: LiveFigures | None = None
    drift: str | None = None
    seconds: float | None = None
    size: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class UserList:
    """Titles of a user's live list; `about` describes the user."""

    person: str
    about: str
    titles: tuple[str, ...]


def nights_page(
    nights: Sequence[NightRow],
    lists: Sequence[UserList],
    metric: str,
    size: int,
    *,
    earlier: int = 0,
) -> str:
    """Return the page.

    Parameters
    ----------
    nights
        Oldest first.
    lists
        Live lists of a few users.
    metric
        Name of the primary metric.
    size
        Bytes of the workspace.
    earlier
        Number of nights before these.
    """
    past = [night.past for night in nights if night.past is not None]
    live = [Dated(night.as_of, night.live) for night in nights if night.live is not None]
    pictures = {}
    if any(row.lift is not None for row in past):
        pictures["lift.svg"] = trends.lift_figure(past)
    if any(row.ndcg is not None for _, row in live):
        pictures["live.svg"] = trends.live_figure(live, metric)
    return render(
        "nights.html",
        title="Nightjar: all nights",
        newest=nights[-1] if nights else None,
        light=LIGHTS[nights[-1].headline.status] if nights else "",
        count=_count(len(nights), earlier),
        size=wording.size(size),
        pictures=pictures,
        nights=Table(_HEAD, map(_cells, reversed(nights))),
        lists=lists,
        origin=(),
    )


def _count(nights: int, earlier: int) -> str:
    if earlier:
        return f"the last {nights:,} of {nights + earlier:,} nights"
    return f"{nights:,} night{'' if nights == 1 else 's'}"


def _cells(night: NightRow) -> Row:
    past, live, result = night.past, night.live, night.headline
    lift = wording.NONE
    if past is not None and past.lift is not None:
        bounds = (change(end).removesuffix(" %") for end in (past.lift_lo or 0, past.lift_hi or 0))
        lift = f"{change(past.lift)} ({' to '.join(bounds)})"
    return (
        Cell(f"{night.as_of:%Y-%m-%d %H:%M}", "name", address=night.address),
        Cell(LIGHTS[result.status], _CSS[result.status]),
        result.news if result.status == "good" else result.text,
        lift,
        wording.NONE if live is None else wording.share(live.hit_rate),
        night.drift or wording.NONE,
        wording.NONE if night.seconds is None else f"{night.seconds:,.0f} s",
        wording.NONE if night.size is None else wording.size(night.size),
    )
