"""Global time split into training window and holdout, with the holdout's ground truth.

Guarantees: both intervals are half-open, in UTC, touch and never overlap; no event at or after
as-of is read; ground truth and served lists follow the same task; the order of rows is irrelevant.

One letter is a purchase of that item on that day, ``|`` is the cutoff, the line ends at as-of.
`truth` lists the target items of the holdout under each task; ``-``: the user is not evaluated.
(The tests read the drawing.)
::

             train [start, cutoff)  holdout [cutoff, as_of)      truth
             0         1         2                      repeat   discovery
             012345678901234567890|1234567
    ann      a..b......a..........|a.c....              ac       c
    bob      ....b................|..b....              b        -
    cat      .....................|a......              -        -
    dan      a....................|.......              -        -
    eva      ...c................b|b..z..a              abz      az

`cat` has no event before the cutoff, `dan` none in the holdout. `z` is new: no model can list it,
but it stays in the denominator, so that a smaller catalogue does not improve a model's score.
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
    """Separation of the last days before as-of, on which models are evaluated."""

    holdout_days: int = Field(default=7, ge=1, description="Initial length of the holdout in days.")
    holdout_days_options: tuple[int, ...] = Field(
        default=(7, 14, 28),
        min_length=1,
        description="Lengths in days that the holdout may grow to until it has `min_users` users.",
    )
    min_users: int = Field(
        default=200, ge=2, description="Users that a holdout needs for a decision."
    )
    max_silence_days: int = Field(
        default=7,
        ge=1,
        description="A nightly run does nothing if the newest event is older than so many days.",
    )
    task: Literal["auto", "repeat", "discovery"] = Field(
        default="auto",
        description="`repeat`: lists may include items that the user had; `discovery`: they "
        "exclude them; `auto`: repeat if users often buy the same item again.",
    )
    target_kinds: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kinds of events that count as targets; by default the strongest kind in the "
        "data.",
    )

    @field_validator("holdout_days_options")
    @classmethod
    def _rising(cls, choices: tuple[int, ...]) -> tuple[int, ...]:
        if list(choices) != sorted(set(choices)) or choices[0] < 1:
            raise ValueError("must be at least 1 day and in ascending order")
        return choices


@dataclass(frozen=True)
class Split:
    """One holdout with its ground truth.

    Attributes
    ----------
    train, holdout
        Touching half-open intervals; `train.end` is the cutoff.
    holdout_days
        Length of the holdout.
    task
        `repeat` if ground truth and lists may include items that the user had.
    repeat_share
        Share of the target pairs of the last 28 days that the user had before; ``None`` without
        such pairs.
    target_kinds
        Kinds of events that count as targets.
    judged
        Number of users with ground truth for each possible length: ((days, users), ...).
    flags
        `underpowered` (fewer than `min_users` users) and `empty_holdout`, where they apply.
    truth
        `user_id`, `item_id`: distinct target items of every evaluated user, sorted.
    ratings
        `user_id`, `item_id`, `value`: newest rating of each pair in the holdout, of all users;
        ``None`` if the data have no rating at all.
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
        """Ids of the evaluated users, sorted."""
        return self.truth[c.USER_ID].unique().sort()

    @property
    def n_users(self) -> int:
        """Number of evaluated users."""
        return self.truth[c.USER_ID].n_unique()


def before(instant: datetime) -> pl.Expr:
    """Select the events before an instant."""
    return pl.col(c.TIMESTAMP) < to_utc(instant)


def between(span: Interval) -> pl.Expr:
    """Select the events of a half-open span."""
    return pl.col(c.TIMESTAMP).is_between(span.start, span.end, closed="left")


def last_event(events: pl.DataFrame, as_of: datetime) -> datetime:
    """Return the instant of the newest event before an instant.

    Parameters
    ----------
    events
        Column `timestamp` (us, UTC).
    as_of
        Exclusive end.

    Raises
    ------
    DataError
        `split.no_event`: all events are later, or there are none.
    """
    newest = events.filter(before(as_of))[c.TIMESTAMP].max()
    if not isinstance(newest, datetime):
        raise DataError(
            "split.no_event",
            f"no event lies before as-of {format_instant(as_of)}; give a later as-of, or ingest "
            "older events",
            where="events",
        )
    return to_utc(newest)


def is_silent(last: datetime, as_of: datetime, config: SplitConfig) -> bool:
    """Check if the newest event is older than `max_silence_days`.

    Parameters
    ----------
    last
        Instant of the newest event.
    as_of
        As-of instant of the run.
    config
        Source of `max_silence_days`.
    """
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
    """Separate the last days before `as_of` and derive their ground truth.

    Parameters
    ----------
    events
        Columns `user_id`, `item_id`, `kind`, `value`, `timestamp`; rows at or after `as_of` are
        ignored.
    as_of
        End of the holdout.
    config
        Lengths, task and target kinds.
    first
        True without a champion: use the longest length with at least `min_users` users. False:
        the shortest such length that is not below `holdout_days`.
    holdout_days
        Length of the previous run's holdout, which never shrinks; ``None``: the config's.
    rating_threshold
        A rating below it is not a target.

    Returns
    -------
    The split; flag `underpowered` if no length has enough users.

    Raises
    ------
    DataError
        `split.no_event`: no event before as-of; `split.history_too_short`: none before the
        latest possible cutoff.
    ConfigError
        `split.no_target_kind`: no event of a known kind.
    """
    as_of = to_utc(as_of)
    start = config.holdout_days if first else max(config.holdout_days, holdout_days or 0)
    options = (days for days in config.holdout_days_options if first or days > start)
    lengths = sorted({start, *options})
    last_event(events, as_of)  # raises without any event, so `begin` below is never null
    rows = events.filter(before(as_of))
    begin = cast(datetime, rows[c.TIMESTAMP].min())
    # A cutoff at or before the first event would leave an empty training window.
    usable = [days for days in lengths if begin < as_of - timedelta(days=days)]
    if not usable:
        raise DataError(
            "split.history_too_short",
            f"the first event is of {format_instant(begin)}; with a holdout of {lengths[0]} days "
            f"before as-of {format_instant(as_of)} no training data are left; "
            "give a later as-of, or ingest older events",
            where="events",
        )
    kinds = target_kinds(rows, config.target_kinds, rating_threshold)
    wanted = is_target(kinds, rating_threshold)
    share = repeat_share(rows, wanted, as_of)
    # Without pairs of earlier users no repetition is seen.
    inferred: Task = "repeat" if share is not None and share >= REPEAT_SHARE else "discovery"
    task = inferred if config.task == "auto" else config.task
    # The pairs of the longest holdout contain those of all shorter ones.
    pairs = target_pairs(rows, wanted, as_of - timedelta(days=usable[-1]))
    truths = {days: targets_of(pairs, as_of - timedelta(days=days), task) for days in usable}
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
        task=task,
        repeat_share=share,
        target_kinds=kinds,
        judged=tuple(judged.items()),
        flags=tuple(flag for flag, raised in flags.items() if raised),
        truth=truths[chosen],
        ratings=ratings_since(rows, cutoff),
    )


def _choose(judged: Mapping[int, int], enough: int, *, longest: bool) -> int:
    """Choose a length with enough users, else the one with the most users."""
    able = [days for days, users in judged.items() if users >= enough]
    if able:
        return max(able) if longest else min(able)
    return max(judged, key=lambda days: (judged[days], days))
