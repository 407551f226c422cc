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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, cast

import polars as pl
from pydantic import Field, field_validator

from pipeline import columns as c
from pipeline.base import Frozen, Interval, format_instant, to_utc
from pipeline.data.features import RATING_THRESHOLD, FeaturesConfig
from pipeline.data.targets import (
    LAST,
    REPEAT_SHARE,
    Task,
    is_target,
    present_kinds,
    ratings_since,
    repeat_share,
    strongest_first,
    target_pairs,
    targets_of,
)
from pipeline.errors import DataError

UNDERPOWERED: Final = "underpowered"
EMPTY_HOLDOUT: Final = "empty_holdout"
STRENGTH: Final = strongest_first(FeaturesConfig().weights)
"""Order of kinds by their default weights."""
_PROPOSAL_BLOCKS: Final = 4
"""Number of holdouts with enough users after which a stronger kind is proposed as the target."""


class SplitConfig(Frozen):
    """Separation of the last days before as-of, on which models are evaluated."""

    holdout_days: int = Field(default=7, ge=1, description="Initial length of the holdout in days.")
    holdout_days_options: tuple[int, ...] = Field(
        default=(7, 14, 28),
        min_length=1,
        description="Lengths in days that the holdout may have: it grows at once until it has "
        "`min_users` users, and shrinks when a shorter one had so many in every run of 28 days.",
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
        description="Kinds of events that count as targets. By default the kind with the largest "
        "weight under `[features] weights` by which `min_users` users can be evaluated; the first "
        "run that has so many users pins it.",
    )

    @field_validator("holdout_days_options")
    @classmethod
    def _rising(cls, choices: tuple[int, ...]) -> tuple[int, ...]:
        if list(choices) != sorted(set(choices)) or choices[0] < 1:
            raise ValueError("must be at least 1 day and in ascending order")
        return choices


@dataclass(frozen=True)
class PinnedTask:
    """Choices of earlier runs that later ones keep, so that the data cannot change the task.

    Attributes
    ----------
    task, target_kinds
        None: not chosen yet.
    holdout_days
        Length of the newest holdout.
    shorter
        Shorter lengths that had enough users in every run of the last weeks.
    waited
        The last run had too few users to compare with the stored scorer.
    """

    task: Task | None = None
    target_kinds: tuple[str, ...] | None = None
    holdout_days: int | None = None
    shorter: tuple[int, ...] = ()
    waited: bool = False


_NOTHING_PINNED: Final = PinnedTask()


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
        Share of the target pairs of the 28 days before the cutoff that the user had before;
        ``None`` without such pairs.
    target_kinds
        Kinds of events that count as targets.
    judged
        Number of users with ground truth for each possible length: ((days, users), ...).
    flags
        `underpowered` (fewer than `min_users` users) and `empty_holdout`, where they apply.
    truth
        `user_id`, `item_id`: distinct target items of every evaluated user, sorted.
    targets
        `user_id`, `item_id`: as `truth`, also of users without an event before the cutoff, whose
        history may be lost.
    stronger_kinds
        Stronger kinds than the target by which four disjoint holdouts have `min_users` users.
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
    targets: pl.DataFrame
    stronger_kinds: tuple[str, ...] = ()
    ratings: pl.DataFrame | None = None

    @property
    def cutoff(self) -> datetime:
        """End of the training window, start of the holdout."""
        return self.holdout.start

    @property
    def pinned(self) -> PinnedTask:
        """Task and target kinds, for splits at other instants."""
        return PinnedTask(self.task, self.target_kinds)

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


def ingested_by(instant: datetime) -> pl.Expr:
    """Select the rows that were ingested at an instant or before it."""
    return pl.col(c.INGESTED_AT) <= instant


def share_soon(events: pl.DataFrame, limit: timedelta) -> float:
    """Return the share of the events that were ingested soon after their timestamp; 0 without any.

    Parameters
    ----------
    events
        Columns `timestamp`, `ingested_at`.
    limit
        Longest time between both.
    """
    soon = pl.col(c.INGESTED_AT) - pl.col(c.TIMESTAMP) <= limit
    return float(events.select(soon.mean()).item() or 0.0)


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
    pinned: PinnedTask = _NOTHING_PINNED,
    strength: Sequence[str] = STRENGTH,
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
        Lengths, task and target kinds, which go before the pinned ones.
    first
        True without a champion: use the longest length with at least `min_users` users.
    pinned
        Choices of earlier runs. Without a champion its length does not count.
    strength
        Kinds that may become the target, the strongest first (`strongest_first`).
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
    start = _start(config, pinned)
    lengths = sorted({config.holdout_days if first else start, *config.holdout_days_options})
    last_event(events, as_of)  # raises without any event, so `begin` below is never null
    rows = events.filter(before(as_of))
    begin = cast(datetime, rows[c.TIMESTAMP].min())
    # A cutoff at or before the first event would leave an empty training window.
    usable = [days for days in lengths if begin < as_of - timedelta(days=days)]
    least = lengths[0] if first else start
    # A shorter holdout than the last one may be chosen only where it had enough users for weeks.
    if not any(days >= least or days in pinned.shorter for days in usable):
        raise DataError(
            "split.history_too_short",
            f"the first event happened at {format_instant(begin)}; with a holdout of {least} days "
            f"before as-of {format_instant(as_of)} no training data are left; "
            "give a later as-of, or ingest older events",
            where="events",
        )
    holdouts = _target(rows, as_of, usable, config, pinned, strength, rating_threshold)
    chosen = _choose(holdouts.judged, config, pinned, first=first)
    cutoff = as_of - timedelta(days=chosen)
    flags = {
        UNDERPOWERED: holdouts.judged[chosen] < config.min_users,
        EMPTY_HOLDOUT: holdouts.pairs.filter(pl.col(LAST) >= cutoff).is_empty(),
    }
    part = replace(
        _part(rows, Interval(cutoff, as_of), holdouts.kinds, holdouts.tasks[chosen], holdouts.pairs,
              rating_threshold),
        holdout_days=chosen,
        judged=tuple(holdouts.judged.items()),
        flags=tuple(flag for flag, raised in flags.items() if raised),
    )  # fmt: skip
    if first or config.target_kinds:
        return part
    return replace(part, stronger_kinds=_stronger(rows, part, config, strength, rating_threshold))


def split_at(
    events: pl.DataFrame, holdout: Interval, like: Split, rating_threshold: float
) -> Split:
    """Separate a given holdout, for the task of another split.

    Parameters
    ----------
    events
        As for `split`; rows at or after the end of the holdout are ignored.
    holdout
        Any days.
    like
        Split with the task and the target kinds.
    rating_threshold
        As for `split`.

    Raises
    ------
    DataError
        `split.no_event`: no event lies before the holdout.
    """
    rows = events.filter(before(holdout.end))
    last_event(rows, holdout.start)
    wanted = is_target(like.target_kinds, rating_threshold)
    pairs = target_pairs(rows, wanted, holdout.start)
    return _part(rows, holdout, like.target_kinds, like.task, pairs, rating_threshold)


def _part(
    rows: pl.DataFrame,
    holdout: Interval,
    kinds: tuple[str, ...],
    task: Task,
    pairs: pl.DataFrame,
    rating_threshold: float,
) -> Split:
    """Return the split of a holdout, with the ground truth among `pairs`."""
    cutoff = holdout.start
    return Split(
        train=Interval(cast(datetime, rows[c.TIMESTAMP].min()), cutoff),
        holdout=holdout,
        holdout_days=holdout.length.days,
        task=task,
        repeat_share=repeat_share(rows, is_target(kinds, rating_threshold), cutoff),
        target_kinds=kinds,
        judged=(),
        flags=(),
        truth=targets_of(pairs, cutoff, task),
        targets=targets_of(pairs, cutoff, task, known=False),
        ratings=ratings_since(rows, cutoff),
    )


def _target(
    rows: pl.DataFrame,
    as_of: datetime,
    usable: Sequence[int],
    config: SplitConfig,
    pinned: PinnedTask,
    strength: Sequence[str],
    rating_threshold: float,
) -> _Holdouts:
    """Return the holdouts of the configured or pinned target, else of the strongest usable kind."""
    task = pinned.task if config.task == "auto" else config.task
    named = config.target_kinds or pinned.target_kinds
    if named:
        return _holdouts(rows, as_of, usable, named, task, rating_threshold)
    first: _Holdouts | None = None
    for kind in present_kinds(rows, strength, rating_threshold):
        option = _holdouts(rows, as_of, usable, (kind,), task, rating_threshold)
        if option.users >= config.min_users:
            return option
        first = first or option
    # No kind has enough users: the strongest one.
    return cast(_Holdouts, first)


@dataclass(frozen=True)
class _Holdouts:
    """Holdouts of all usable lengths for one choice of target kinds."""

    kinds: tuple[str, ...]
    pairs: pl.DataFrame
    tasks: Mapping[int, Task]
    judged: Mapping[int, int]
    users: int
    """Users of the longest one with a target item, whether they had it before or not."""


def _holdouts(
    rows: pl.DataFrame,
    as_of: datetime,
    usable: Sequence[int],
    kinds: tuple[str, ...],
    task: Task | None,
    rating_threshold: float,
) -> _Holdouts:
    wanted = is_target(kinds, rating_threshold)
    # The pairs of the longest holdout contain those of all shorter ones.
    pairs = target_pairs(rows, wanted, as_of - timedelta(days=usable[-1]))
    tasks: dict[int, Task] = {}
    judged: dict[int, int] = {}
    for days in usable:
        cutoff = as_of - timedelta(days=days)
        # Inferred from events before the cutoff: the holdout must not choose its own task.
        tasks[days] = task or _inferred_task(repeat_share(rows, wanted, cutoff))
        judged[days] = targets_of(pairs, cutoff, tasks[days])[c.USER_ID].n_unique()
    # The target is chosen before the task, so items that a user had before count as well.
    anyone = targets_of(pairs, as_of - timedelta(days=usable[-1]), "repeat")
    return _Holdouts(kinds, pairs, tasks, judged, anyone[c.USER_ID].n_unique())


def _inferred_task(share: float | None) -> Task:
    # Without pairs of earlier users no repetition is seen.
    return "repeat" if share is not None and share >= REPEAT_SHARE else "discovery"


def _start(config: SplitConfig, pinned: PinnedTask) -> int:
    """Return the length of the newest run, if it is still an option, else the configured one."""
    allowed = {config.holdout_days, *config.holdout_days_options}
    return pinned.holdout_days if pinned.holdout_days in allowed else config.holdout_days


def _choose(
    judged: Mapping[int, int], config: SplitConfig, pinned: PinnedTask, *, first: bool
) -> int:
    """Choose a length with enough users, else the pinned one, else the one with the most users."""
    able = [days for days, users in judged.items() if users >= config.min_users]
    if first and able:
        return max(able)
    start = _start(config, pinned)
    if pinned.waited:
        # Users who joined after the stored scorer count here, but not in its comparison. Its window
        # gets older with every such run, so that the same length would never have enough again.
        able = [days for days in able if days > start]
    shorter = [days for days in able if days < start and days in pinned.shorter]
    longer = [days for days in able if days >= start]
    if not first and (shorter or longer):
        return min(shorter or longer)
    if not first and pinned.holdout_days in judged:
        return cast(int, pinned.holdout_days)
    rest = [days for days in judged if first or days >= start]
    return max(rest or judged, key=lambda days: (judged[days], days))


def _stronger(
    rows: pl.DataFrame,
    part: Split,
    config: SplitConfig,
    strength: Sequence[str],
    rating_threshold: float,
) -> tuple[str, ...]:
    """Return the stronger kinds by which the last four holdouts have enough users."""
    places = [strength.index(kind) for kind in part.target_kinds if kind in strength]
    kinds = strength[: min(places, default=0)]

    def users(kind: str, end: datetime) -> int:
        cutoff, past = end - part.holdout.length, rows.filter(before(end))
        pairs = target_pairs(past, is_target((kind,), rating_threshold), cutoff)
        return targets_of(pairs, cutoff, part.task)[c.USER_ID].n_unique()

    ends = [part.holdout.end - back * part.holdout.length for back in range(_PROPOSAL_BLOCKS)]
    return tuple(
        kind for kind in kinds if all(users(kind, end) >= config.min_users for end in ends)
    )
