"""Prequential scores: each new event against the list that was live for its user at its timestamp.

Guarantees: a list is scored by events while it was live, never by events that it was trained on; an
event before the first publication is counted and not scored; equal inputs give equal figures,
whatever the order of rows and the pseudonyms.

`data.exposure` finds the live list. `base_only_ndcg` is the score of the base alone. A group of
fewer than `MIN_GROUP_SIZE` users has no figure but its number.

An event that arrives after the nightly run of its day is trained on, but never scored here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import Interval
from pipeline.data.cluster_robust import MIN_GROUP_SIZE, Mean, mean_ci
from pipeline.data.exposure import OWNER, SHOWN, bases_alone, exposure_intervals, shown_at
from pipeline.data.split import between
from pipeline.data.targets import Task

ALL: Final = "all"
"""Slice of all users."""
NEW: Final = "new"
"""Slice of users without an earlier event."""
_LISTS: Final = "lists"
"""Name of the publication of lists that were never published."""

_ROW, _DAY, _FIRST, _BEFORE = "row", "day", "first", "before"
_RANK, _MODELLED, _BASE_OWNER, _BASE_RANK = "rank", "modelled", "base_owner", "base_rank"


@dataclass(frozen=True)
class _Group:
    """A model version and a group of users.

    Attributes
    ----------
    slice
        ``all``; by the list shown ``model`` or ``fallback``; by the number of events of the user
        before the span ``new`` (none), ``cold`` (≤ first quartile), ``hot`` (> third) or ``warm``.
    user_days
        UTC days of users; a day counts twice if the list was replaced during it.
    """

    model_version: str
    slice: str
    users: int
    user_days: int
    events: int


@dataclass(frozen=True)
class PrequentialRow(_Group):
    """Live quality of a model version for a group of users.

    Attributes
    ----------
    hit_rate
        Share of the events whose item was among the first `k`.
    ndcg
        NDCG@k of each user-day (its distinct items against the list), averaged.
    base_only_hit_rate, base_only_ndcg
        The same events against the base's list alone.
    """

    hit_rate: Mean
    ndcg: Mean
    base_only_hit_rate: Mean
    base_only_ndcg: Mean


@dataclass(frozen=True)
class Prequential:
    """Live quality of a span.

    Attributes
    ----------
    events
        New target events; each is scored, `unlisted` or `repeated`.
    unlisted
        Events before the first publication.
    repeated
        Under *discovery*: events on items that the user had before the list's as-of, which no list
        contains.
    rows
        Versions in the order of their publication, ``all`` first.
    """

    k: int
    task: Task
    span: Interval
    events: int
    unlisted: int
    repeated: int
    rows: tuple[PrequentialRow, ...]


@dataclass(frozen=True)
class LiveFigures(_Group):
    """Live quality of a version for a group, as the ledger keeps it; None for a small group."""

    hit_rate: float | None
    ndcg: float | None
    ndcg_lo: float | None
    ndcg_hi: float | None
    ndcg_se: float | None
    base_only_hit_rate: float | None
    base_only_ndcg: float | None


@dataclass(frozen=True)
class PrequentialFigures(LiveFigures):
    """A row in a file: every mean with its standard error and interval.

    Figures of fewer than `MIN_GROUP_SIZE` users are None.
    """

    hit_rate_se: float | None
    hit_rate_lo: float | None
    hit_rate_hi: float | None
    base_only_hit_rate_se: float | None
    base_only_hit_rate_lo: float | None
    base_only_hit_rate_hi: float | None
    base_only_ndcg_se: float | None
    base_only_ndcg_lo: float | None
    base_only_ndcg_hi: float | None

    @classmethod
    def of(cls, row: PrequentialRow) -> Self:
        """Flatten a row."""
        values: dict[str, Any] = {}
        for name, value in vars(row).items():
            for part, figure in vars(value).items() if isinstance(value, Mean) else ():
                key = name if part == "mean" else f"{name}_{part}"
                values[key] = figure if row.users >= MIN_GROUP_SIZE else None
            values.setdefault(name, value)
        return cls(**values)

    @property
    def summary(self) -> LiveFigures:
        """Figures for the ledger."""
        names = [field.name for field in fields(LiveFigures)]
        return LiveFigures(**{name: getattr(self, name) for name in names})


def past_of(users: Collection[str], span: Interval) -> pl.Expr:
    """Select all events of users before the end of a span.

    Parameters
    ----------
    users
        Users to select.
    span
        Only its end counts.

    Returns
    -------
    polars.Expr
        A filter on events.
    """
    return pl.col(c.USER_ID).is_in(sorted(users)) & (pl.col(c.TIMESTAMP) < span.end)


def prequential(
    events: pl.DataFrame,
    past: pl.DataFrame,
    publications: pl.DataFrame,
    lists: pl.DataFrame,
    *,
    span: Interval,
    k: int,
    task: Task,
) -> Prequential:
    """Score the new target events of a span.

    Parameters
    ----------
    events
        `user_id`, `item_id`, `timestamp` of the target events; those outside the span are left out.
    past
        `user_id`, `item_id`, `timestamp` of all events, of any kind, of these users before the end
        of the span (`past_of`).
    publications, lists
        Rows of `columns.PUBLICATIONS` and, of those `active_publications`, of
        `columns.RECOMMENDATIONS` (`lists_for`).
    span, k
        Days to score, and number of entries of a list that count.
    task
        Task of the lists.

    Returns
    -------
    Prequential
        Rows by version and slice.
    """
    rows = events.filter(between(span)).select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
    # Items before users: a tie in time must not be broken by a pseudonym.
    rows = rows.sort(c.TIMESTAMP, c.ITEM_ID, c.USER_ID).with_row_index(_ROW)
    listed = _listed(rows, publications, lists)
    scored = listed if task == "repeat" else _unseen(listed, past)
    earlier = past.filter(pl.col(c.TIMESTAMP) < span.start)
    before = earlier.group_by(c.USER_ID).agg(pl.len().cast(pl.Int64).alias(_BEFORE))
    ranked = _ranked(scored, lists).join(before, on=c.USER_ID, how="left")
    # Joins may reorder rows, and the last digits of a mean depend on the order.
    ranked = ranked.with_columns(
        pl.col(c.TIMESTAMP).dt.date().alias(_DAY), pl.col(_BEFORE).fill_null(0)
    ).sort(_ROW)
    return Prequential(
        k=k,
        task=task,
        span=span,
        events=rows.height,
        unlisted=rows.height - listed.height,
        repeated=listed.height - scored.height,
        rows=tuple(_prequential_rows(ranked, lists, k)),
    )


def list_quality(
    lists: pl.DataFrame,
    events: pl.DataFrame,
    past: pl.DataFrame,
    *,
    span: Interval,
    k: int,
    task: Task,
) -> PrequentialRow | None:
    """Score lists as if they had been live for a whole span.

    Parameters
    ----------
    lists
        `user_id`, `position`, `item_id`, computed from events before the span.
    events, past
        As in `prequential`; users without a list do not count.
    span, k, task
        As in `prequential`.

    Returns
    -------
    PrequentialRow or None
        None without a scored event.
    """
    rows = lists.with_columns(
        pl.lit(_LISTS).alias(c.PUBLICATION_ID), pl.lit(c.Slot.MODEL.value).alias(c.SLOT)
    )
    # One publication that is live from the start of the span, with these lists as its base.
    publication = dict.fromkeys(c.PUBLICATIONS) | {
        c.PUBLICATION_ID: _LISTS,
        c.GENERATION: 1,
        c.MODEL_VERSION: "",
        c.RECIPE: "",
        c.AS_OF: span.start,
        c.LIVE_FROM: span.start,
    }
    scores = prequential(
        events,
        past,
        pl.DataFrame([publication], schema=c.PUBLICATIONS),
        rows,
        span=span,
        k=k,
        task=task,
    )
    return next((row for row in scores.rows if row.slice == ALL), None)


def _listed(rows: pl.DataFrame, publications: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    """Add to each event the list shown to its user, and the list of the base alone."""
    shown = shown_at(rows, exposure_intervals(publications, lists))
    # The same events as if no patch had replaced a list of the base.
    bases = exposure_intervals(bases_alone(publications), lists)
    alone = shown_at(rows.select(_ROW, c.USER_ID, c.TIMESTAMP), bases)
    return shown.join(alone.select(_ROW, pl.col(OWNER).alias(_BASE_OWNER)), on=_ROW, how="left")


def _unseen(rows: pl.DataFrame, past: pl.DataFrame) -> pl.DataFrame:
    """Keep the events whose item the user did not have when the list was computed."""
    first = past.group_by(c.USER_ID, c.ITEM_ID).agg(pl.col(c.TIMESTAMP).min().alias(_FIRST))
    rows = rows.join(first, on=[c.USER_ID, c.ITEM_ID], how="left")
    return rows.filter(pl.col(_FIRST).is_null() | (pl.col(_FIRST) >= pl.col(c.AS_OF))).drop(_FIRST)


def _ranked(rows: pl.DataFrame, lists: pl.DataFrame) -> pl.DataFrame:
    """Add the position of each event's item in the list shown and in the base's; null if absent."""
    for publication, owner, rank in ((SHOWN, OWNER, _RANK), (c.BASE, _BASE_OWNER, _BASE_RANK)):
        places = lists.select(
            pl.col(c.PUBLICATION_ID).alias(publication),
            pl.col(c.USER_ID).alias(owner),
            c.ITEM_ID,
            pl.col(c.POSITION).alias(rank),
        )
        rows = rows.join(places, on=[publication, owner, c.ITEM_ID], how="left")
    return rows


def _prequential_rows(rows: pl.DataFrame, lists: pl.DataFrame, k: int) -> Iterator[PrequentialRow]:
    """Score every version on every slice with an event."""
    # A list is the model's if at least one of its entries is.
    keys = pl.col(c.PUBLICATION_ID).alias(SHOWN), pl.col(c.USER_ID).alias(OWNER)
    model = lists.filter(pl.col(c.SLOT) == c.Slot.MODEL.value).select(*keys).unique()
    model = model.with_columns(pl.lit(value=True).alias(_MODELLED))
    rows = rows.join(model, on=[SHOWN, OWNER], how="left").sort(_ROW)
    modelled = rows[_MODELLED].fill_null(value=False)
    versions = rows.select(c.GENERATION, c.MODEL_VERSION).unique().sort(c.GENERATION)
    for version in versions[c.MODEL_VERSION].unique(maintain_order=True):
        here = rows[c.MODEL_VERSION] == version
        count = rows.filter(here).unique(c.USER_ID).filter(pl.col(_BEFORE) > 0)[_BEFORE]
        # Quartiles of users with earlier events; 0 if all users are new.
        low, high = (count.quantile(q, "linear") or 0.0 for q in (0.25, 0.75))
        earlier = rows[_BEFORE]
        slices: Mapping[str, pl.Series] = {
            ALL: here,
            c.Slot.MODEL.value: here & modelled,
            c.Slot.FALLBACK.value: here & ~modelled,
            NEW: here & (earlier == 0),
            "cold": here & (earlier > 0) & (earlier <= low),
            "warm": here & (earlier > low) & (earlier <= high),
            "hot": here & (earlier > high),
        }
        for name, chosen in slices.items():
            if chosen.any():
                yield _row(rows.filter(chosen), str(version), name, k)


def _row(rows: pl.DataFrame, version: str, name: str, k: int) -> PrequentialRow:
    keys = [c.USER_ID, _DAY, c.BASE, SHOWN]
    # Target items are distinct: a second event on an item does not count.
    items = rows.unique([*keys, c.ITEM_ID], keep="first", maintain_order=True)
    days = (
        items.with_columns(_gain(rank, k).alias(rank) for rank in (_RANK, _BASE_RANK))
        .group_by(keys, maintain_order=True)
        .agg(pl.len().alias(_ROW), pl.col(_RANK, _BASE_RANK).sum())
    )
    # ideal[n] is the gain of the best list of k entries for n target items.
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    best = ideal[np.minimum(days[_ROW].to_numpy(), k)]
    means = [x for rank in (_RANK, _BASE_RANK) for x in _means(rows, days, best, rank, k)]
    users = rows[c.USER_ID].n_unique()
    return PrequentialRow(version, name, users, days.height, rows.height, *means)


def _gain(rank: str, k: int) -> pl.Expr:
    position = pl.col(rank)
    return pl.when(position <= k).then(1.0 / (position + 1).cast(pl.Float64).log(2)).otherwise(0.0)


def _means(
    rows: pl.DataFrame, days: pl.DataFrame, best: NDArray[np.float64], rank: str, k: int
) -> tuple[Mean, Mean]:
    hit = (rows[rank] <= k).fill_null(value=False).cast(pl.Float64).to_numpy()
    gain = days[rank].to_numpy() / best
    return mean_ci(hit, rows[c.USER_ID]), mean_ci(gain, days[c.USER_ID])
