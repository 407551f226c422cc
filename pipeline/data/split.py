"""The global time split: what is learnt from, what judges, and who.

Promises: half-open intervals in UTC that touch and never overlap; nothing at or after as-of is
looked at; the truth follows the seen policy of serving; the order of rows changes nothing.

One letter is a purchase of that item on that day, ``|`` is the cutoff, the line ends at as-of.
`truth` names what the holdout asks for under each task; ``-`` is nobody to judge. (The drawing
is read by the tests.)
::

             train [start, cutoff)  holdout [cutoff, as_of)      truth
             0         1         2                      repeat   discovery
             012345678901234567890|1234567
    ann      a..b......a..........|a.c....              ac       c
    bob      ....b................|..b....              b        -
    cat      .....................|a......              -        -
    dan      a....................|.......              -        -
    eve      ...c................b|b..z..a              abz      az

`cat` has no history yet. `dan` comes back too late. `z` is new: nobody can list it, yet it stays
in the denominator, so that a model cannot gain by knowing less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, cast

import polars as pl
from pydantic import Field, field_validator

from pipeline import columns as c
from pipeline.base import Frozen, Interval, format_instant, to_utc
from pipeline.data.features import RATING_THRESHOLD
from pipeline.data.targets import (
    LAST,
    REPEAT_SHARE,
    Task,
    is_target,
    ratings_since,
    repeat_share,
    target_kinds,
    target_pairs,
    targets_of,
)
from pipeline.errors import DataError

UNDERPOWERED: Final = "underpowered"
EMPTY_HOLDOUT: Final = "empty_holdout"


class SplitConfig(Frozen):
    """How the last days before as-of are set aside to judge models."""

    holdout_days: int = Field(default=7, ge=1, description="Length of the holdout in days.")
    holdout_days_options: tuple[int, ...] = Field(
        default=(7, 14, 28),
        min_length=1,
        description="Lengths that the holdout may grow to, until enough users can be judged.",
    )
    min_users: int = Field(
        default=200, ge=2, description="Users that a holdout needs to judge a model."
    )
    max_silence_days: int = Field(
        default=7, ge=1, description="Without an event for longer than this there is nothing to do."
    )
    task: Literal["auto", "repeat", "discovery"] = Field(
        default="auto",
        description="May lists hold what a user already had? `auto` looks at how often people "
        "come back for the same item.",
    )
    target_kinds: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kinds of events that a list shall bring about; by default the strongest kind "
        "that the data hold.",
    )

    @field_validator("holdout_days_options")
    @classmethod
    def _rising(cls, choices: tuple[int, ...]) -> tuple[int, ...]:
        if list(choices) != sorted(set(choices)) or choices[0] < 1:
            raise ValueError("must rise, from 1 day on")
        return choices


@dataclass(frozen=True)
class Split:
    """One holdout and the people who judge on it.

    Attributes
    ----------
    train, holdout
        Touching half-open intervals; `train.end` is the cutoff.
    holdout_days
        Length of the holdout.
    task
        Whether the truth (and every list) may hold what a user already had.
    repeat_share
        Share of the target pairs of the last 28 days that the user had before; None without any.
    target_kinds
        Kinds that count as truth.
    judged
        Users that each length tried would have had: ((days, users), ...).
    flags
        `underpowered` and `empty_holdout`, by name.
    truth
        `user_id`, `item_id`: the distinct items of every judged user, sorted.
    ratings
        `user_id`, `item_id`, `value`: the newest rating of each pair in the holdout, whoever gave
        it; ``None`` where the data hold no rating at all.
    """

    train: Interval
    holdout: Interval
    holdout_days: int
    task: Task
    repeat_share: float | None
    target_kinds: tuple[str, ...]
    judged: tuple[tuple[int, int], ...]
    flags: tuple[str, ...]
    truth: pl.DataFrame
    ratings: pl.DataFrame | None = None

    @property
    def cutoff(self) -> datetime:
        """End of the training window, start of the holdout."""
        return self.holdout.start

    @property
    def users(self) -> pl.Series:
        """Ids of the judged users, sorted."""
        return self.truth[c.USER_ID].unique().sort()

    @property
    def n_users(self) -> int:
        """Number of judged users."""
        return self.truth[c.USER_ID].n_unique()


def before(instant: datetime) -> pl.Expr:
    """Select the events before an instant."""
    return pl.col(c.TIMESTAMP) < to_utc(instant)


def between(span: Interval) -> pl.Expr:
    """Select the events of a half-open span."""
    return pl.col(c.TIMESTAMP).is_between(span.start, span.end, closed="left")


def last_event(events: pl.DataFrame, as_of: datetime) -> datetime:
    """Return the instant of the newest event before `as_of`; `DataError` where there is none."""
    newest = events.filter(before(as_of))[c.TIMESTAMP].max()
    if not isinstance(newest, datetime):
        raise DataError(
            "split.no_event", f"no event lies before as-of {format_instant(as_of)}", where="events"
        )
    return to_utc(newest)


def is_silent(last: datetime, as_of: datetime, config: SplitConfig) -> bool:
    """Say whether the newest event is so old that a night has nothing to do."""
    return as_of - last > timedelta(days=config.max_silence_days)


def split(
    events: pl.DataFrame,
    as_of: datetime,
    config: SplitConfig,
    *,
    first: bool,
    holdout_days: int | None = None,
    rating_threshold: float = RATING_THRESHOLD,
) -> Split:
    """Set the last days before `as_of` aside.

    Parameters
    ----------
    events
        Columns `user_id`, `item_id`, `kind`, `value`, `timestamp`; rows at or after `as_of` are
        left out here, whatever the caller did before.
    first
        There is no champion: take the longest length that judges `min_users`. Otherwise the
        shortest one, beginning with `holdout_days`.
    holdout_days
        Length of the night before; the length only grows. None: the config's.
    rating_threshold
        A rating below it is no truth.

    Raises
    ------
    DataError
        No event before as-of, or none before the latest possible cutoff: nothing to learn from.
    """
    as_of = to_utc(as_of)
    start = config.holdout_days if first else max(config.holdout_days, holdout_days or 0)
    options = (days for days in config.holdout_days_options if first or days > start)
    lengths = sorted({start, *options})
    last_event(events, as_of)
    rows = events.filter(before(as_of))
    begin = cast(datetime, rows[c.TIMESTAMP].min())
    usable = [days for days in lengths if begin < as_of - timedelta(days=days)]
    if not usable:
        raise DataError(
            "split.history_too_short",
            f"the first event is of {format_instant(begin)}: a holdout of {lengths[0]} days "
            f"before as-of {format_instant(as_of)} leaves nothing to learn from",
            where="events",
        )
    kinds = target_kinds(rows, config.target_kinds, rating_threshold)
    wanted = is_target(kinds, rating_threshold)
    share = repeat_share(rows, wanted, as_of)
    inferred: Task = "repeat" if share is not None and share >= REPEAT_SHARE else "discovery"
    policy = inferred if config.task == "auto" else config.task
    pairs = target_pairs(rows, wanted, as_of - timedelta(days=usable[-1]))
    truths = {days: targets_of(pairs, as_of - timedelta(days=days), policy) for days in usable}
    judged = {days: truth[c.USER_ID].n_unique() for days, truth in truths.items()}
    chosen = _choose(judged, config.min_users, longest=first)
    cutoff = as_of - timedelta(days=chosen)
    flags = {
        UNDERPOWERED: judged[chosen] < config.min_users,
        EMPTY_HOLDOUT: pairs.filter(pl.col(LAST) >= cutoff).is_empty(),
    }
    return Split(
        train=Interval(begin, cutoff),
        holdout=Interval(cutoff, as_of),
        holdout_days=chosen,
        task=policy,
        repeat_share=share,
        target_kinds=kinds,
        judged=tuple(judged.items()),
        flags=tuple(flag for flag, raised in flags.items() if raised),
        truth=truths[chosen],
        ratings=ratings_since(rows, cutoff),
    )


def _choose(judged: Mapping[int, int], enough: int, *, longest: bool) -> int:
    """Return the length to use; without one that judges enough users, the one that judges most."""
    able = [days for days, users in judged.items() if users >= enough]
    if able:
        return max(able) if longest else min(able)
    return max(judged, key=lambda days: (judged[days], days))
