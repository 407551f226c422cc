"""HTML page of all nights: decisions, lift, live quality, cost, and live lists of three users.

Guarantees: the newest night comes first; a figure that a night lacks is a dash; users are named by
letters, not by ids; equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.base import Instant
from pipeline.evaluation.prequential import LiveFigures
from pipeline.number_text import change
from pipeline.report import trends, wording
from pipeline.report.headline import LIGHTS, Headline
from pipeline.report.markup import Cell, Row, Table, render
from pipeline.report.night import Dated, PastRun
from pipeline.report.titles import REFERENCES, LiftName

_HEAD = (
    "Night|name", "Status", "What happened|wholly", "Lift over the version before|w",
    "Lift over the best baseline|w", "Live hit rate|n", "Drift", "Training|n", "Size on disk|n",
)  # fmt: skip
_CSS = {"good": "w ok", "look": "w other", "act": "w bad"}


@dataclass(frozen=True)
class NightRow:
    """A night of the page.

    Attributes
    ----------
    lifts
        Run with the lift of its live recipe, by reference; absent without this lift.
    over_first
        Run with the lift of its version over version 1; None without a version or this lift.
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
    lifts: Mapping[LiftName, PastRun] = field(default_factory=dict)
    over_first: PastRun | None = None
    live: LiveFigures | None = None
    drift: str | None = None
    seconds: float | None = None
    size: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class UserList:
    """Titles of a user's live list; `about` describes the user and the list."""

    person: str
    about: str
    titles: tuple[str, ...]


def nights_page(
    nights: Sequence[NightRow],
    lists: Sequence[UserList],
    metric: str,
    size: int,
    margin: float,
    *,
    earlier: int = 0,
) -> str:
    """Return the page.

    Parameters
    ----------
    nights
        Oldest first.
    lists
        Live lists of a few users, as they are when the page is drawn.
    metric
        Name of the primary metric.
    size
        Bytes of the workspace.
    margin
        As for `evaluation.lift.verdict`.
    earlier
        Number of nights before these.
    """
    live = [Dated(night.as_of, night.live) for night in nights if night.live is not None]
    pictures: dict[str, bytes] = {}
    versions = [night.over_first for night in nights if night.over_first is not None]
    # Version 1 alone has no interval: there is nothing to compare yet.
    compared = any(row.lift_lo is not None for row in versions)
    if compared:
        pictures["over_first.svg"] = trends.first_figure(versions)
    for name in REFERENCES:
        past = [night.lifts[name] for night in nights if name in night.lifts]
        if past and not (compared and name == "over_before"):
            pictures[f"{name}.svg"] = trends.lift_figure(past, name, margin)
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
        training=wording.TRAINING,
        verdicts=wording.verdict_words(margin),
        lists=lists,
        origin=(),
    )


def _count(nights: int, earlier: int) -> str:
    if earlier:
        return f"the last {nights:,} of {nights + earlier:,} nights"
    return f"{nights:,} night{'' if nights == 1 else 's'}"


def _cells(night: NightRow) -> Row:
    live, result = night.live, night.headline
    return (
        Cell(f"{night.as_of:%Y-%m-%d %H:%M}", "name w", address=night.address),
        Cell(LIGHTS[result.status], _CSS[result.status]),
        # What to do about a refused night is on its own page, and of the newest one above.
        result.text if result.status == "look" else result.news,
        *(_lift(night.lifts.get(name)) for name in REFERENCES),
        wording.NONE if live is None else wording.share(live.hit_rate),
        night.drift or wording.NONE,
        wording.NONE if night.seconds is None else f"{night.seconds:,.0f} s",
        wording.NONE if night.size is None else wording.size(night.size),
    )


def _lift(row: PastRun | None) -> str:
    if row is None:
        return wording.NONE
    mean, low, high = (change(x or 0.0) for x in (row.lift, row.lift_lo, row.lift_hi))
    return f"{mean} ({low.removesuffix(' %')} to {high.removesuffix(' %')})"
