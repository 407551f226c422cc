"""Rates of answers: what was counted of each group, and its intervals, clustered by person.

Promises: of a group of fewer than `FEWEST` people only their number is told; an interval takes one
person's exposures for what they are, no independent proofs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, format_instant
from pipeline.data.cluster_robust import FEWEST, Mean, ratio_of, share_of

EXPOSED: Final = "exposures"
ANSWERED: Final = "answers"
CLICKED: Final = "clicks"
PURCHASED: Final = "purchases"
RATED: Final = "ratings"
RETURNED: Final = "returned"
REVENUE: Final = "revenue"
UNPRICED: Final = "unpriced"
_COUNTED: Final = (ANSWERED, CLICKED, PURCHASED, RATED, RETURNED, REVENUE, UNPRICED)

EVERYBODY: Final = "all"
VERSION: Final = "version"
PUBLICATION: Final = "publication"
RATES: Final = ("answer_rate", "ctr", "conversion", "revenue_per_exposure", "return_rate")


@dataclass(frozen=True)
class Figures:
    """What a group of people did with what it was shown.

    Attributes
    ----------
    exposures
        Entries of lists shown to a person, once for each 24 hours of the span.
    answers, clicks, purchases, ratings
        Exposures that were answered at all, and so; an exposure may be answered in several ways.
    returned
        Of `purchases`, those with a return of the item in the rest of the span.
    revenue
        Sum of quantity · price of purchases whose price is known; `unpriced` counts the others.
    answer_rate, ctr, conversion, revenue_per_exposure
        `answers`, `clicks`, `purchases`, `revenue` ÷ `exposures`.
    return_rate
        `returned` ÷ `purchases`, ``None`` without any.
    """

    exposures: int
    answers: int
    clicks: int
    purchases: int
    ratings: int
    returned: int
    revenue: float
    unpriced: int
    answer_rate: Mean
    ctr: Mean
    conversion: Mean
    revenue_per_exposure: Mean
    return_rate: Mean | None


@dataclass(frozen=True)
class AnswerRow:
    """One group, such as ``version`` (`by`) 7 (`name`); few people have no figures."""

    by: str
    name: str
    people: int
    figures: Figures | None

    def to_dict(self) -> dict[str, Any]:
        """As flat, plain JSON: ``ctr``, ``ctr_se``, ``ctr_lo``, ``ctr_hi``, and so on."""
        told: dict[str, Any] = {"by": self.by, "name": self.name, "people": self.people}
        found: dict[str, Any] = {} if self.figures is None else asdict(self.figures)
        for name in Figures.__dataclass_fields__:
            value = found.get(name)
            if name not in RATES:
                told[name] = value
                continue
            told[name] = None if value is None else value["mean"]
            for part in ("se", "lo", "hi"):
                told[f"{name}_{part}"] = None if value is None else value[part]
        return told


@dataclass(frozen=True)
class Claims:
    """What events say of the list they answer, beside what was joined.

    Attributes
    ----------
    agree
        The publication, and the position where one is named, are those that were joined.
    contradict
        Another publication or position was joined.
    unmatched
        Nothing was joined: that item was in no list that the person was shown in time.
    """

    agree: int
    contradict: int
    unmatched: int


@dataclass(frozen=True)
class Answers:
    """The answers of one span.

    Attributes
    ----------
    people
        Who did something in it.
    events
        What they did, returns apart; `joined` of these answer a list, `late` of these one that was
        shown last on an earlier day: they are in no row.
    unshown
        Events of people to whom nothing was shown then: before the first publication.
    rows
        ``all`` first; then by publication, version, recipe, segment, slot and position.
    """

    span: Interval
    window_days: int
    people: int
    events: int
    joined: int
    late: int
    unshown: int
    claims: Claims
    rows: tuple[AnswerRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "span": [format_instant(self.span.start), format_instant(self.span.end)],
            "window_days": self.window_days,
            "people": self.people,
            "events": self.events,
            "joined": self.joined,
            "late": self.late,
            "unshown": self.unshown,
            "claims": asdict(self.claims),
            "rows": [row.to_dict() for row in self.rows],
        }


def rows_of(
    by: str, names: Iterable[str], exposed: pl.DataFrame, answered: pl.DataFrame
) -> Iterator[AnswerRow]:
    """Yield a row for each group that anything was shown to.

    Parameters
    ----------
    by
        Column of both frames that holds the group's name.
    names
        Groups, in the order of the rows.
    exposed
        `by`, `user_id`, `exposures`: a row a group and person.
    answered
        `by`, `user_id` and what was done: a row an exposure that was answered.
    """
    keys = [by, c.USER_ID]
    sums = answered.group_by(keys, maintain_order=True).agg(pl.col(_COUNTED).sum())
    both = exposed.with_columns(pl.col(EXPOSED).cast(pl.Float64))
    both = both.join(sums, on=keys, how="full", coalesce=True)
    both = both.with_columns(pl.col(EXPOSED, *_COUNTED).fill_null(0.0))
    there = both.filter((pl.col(EXPOSED) > 0) | (pl.col(ANSWERED) > 0))
    parts = there.partition_by(by, as_dict=True)
    for name in names:
        if (part := parts.get((name,))) is not None:
            yield AnswerRow(by, name, part.height, _figures(part))


def _figures(people: pl.DataFrame) -> Figures | None:
    shown = people[EXPOSED].to_numpy()
    if people.height < FEWEST or not shown.any():
        return None
    done = {name: people[name].to_numpy() for name in _COUNTED}
    total = {name: math.fsum(values.tolist()) for name, values in done.items()}
    bought = done[PURCHASED]
    return Figures(
        exposures=round(math.fsum(shown.tolist())),
        answers=round(total[ANSWERED]),
        clicks=round(total[CLICKED]),
        purchases=round(total[PURCHASED]),
        ratings=round(total[RATED]),
        returned=round(total[RETURNED]),
        revenue=total[REVENUE],
        unpriced=round(total[UNPRICED]),
        answer_rate=share_of(done[ANSWERED], shown),
        ctr=share_of(done[CLICKED], shown),
        conversion=share_of(bought, shown),
        revenue_per_exposure=ratio_of(done[REVENUE], shown, most=np.inf),
        return_rate=share_of(done[RETURNED], bought) if bought.any() else None,
    )
