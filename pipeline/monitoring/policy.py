"""What new data ask for between two nights: nothing, folding in, or a whole night; and why.

Promises: the reason is one sentence; one person's flood buys no retrain, however many events it is,
on however many days they are dated and however small the shop: it takes ten; a night that
has just started is waited for, whether it lives or not. The verdict follows from what is given
alone, so who asks again gets the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import polars as pl
from pydantic import ConfigDict, Field

from pipeline import columns as c
from pipeline.base import Frozen, to_the_second
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.monitoring.verdicts import Drift

_DAY: Final = timedelta(days=1)
_COUNT = "count"


class PolicyConfig(Frozen):
    """Conditions of a retrain between two scheduled nightly runs."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    min_new_events: int = Field(default=100_000, ge=1)
    """Number of new events since the last decided run that always requests a retrain."""
    min_new_share: float = Field(default=0.05, gt=0, le=1)
    """New events, as a share of all that the last decided run read, that request a retrain too."""
    user_day_events: int = Field(default=100, ge=1)
    """New events that count of one user and day, and of one user per day since that run."""
    min_hours: int = Field(default=20, ge=0)
    """Minimum number of hours between the as-of of a nightly run and that of the next one."""
    per_day: int = Field(default=2, ge=1)
    """Maximum number of nightly runs that start within 24 hours, whatever starts them."""
    cool_down_hours: int = Field(default=48, ge=0)
    """Number of hours to wait after a nightly run that changed nothing."""


class RetrainAction(StrEnum):
    """What is to be done now."""

    SKIP = "skip"
    FOLD_IN = "fold_in"
    RETRAIN = "retrain"


class Cause(StrEnum):
    """What asks for a retrain."""

    DRIFT = "drift"
    EVENTS = "events"


@dataclass(frozen=True)
class Nights:
    """What was done before.

    Attributes
    ----------
    judged
        As-of of the last night that came to a decision; ``None`` before the first.
    changed
        Whether that night put anything before people.
    learnt
        Events that it saw.
    started
        As-ofs of all nights that were started, those that died included.
    """

    judged: datetime | None
    changed: bool
    learnt: int
    started: Sequence[datetime]


@dataclass(frozen=True)
class RetrainDecision:
    """The policy's verdict.

    Attributes
    ----------
    reason
        One sentence.
    events, countable, enough
        New events; those that count; how many of these are enough.
    cause
        What asks for a retrain, whether it has to wait or not; ``None`` for nothing.
    """

    action: RetrainAction
    reason: str
    events: int
    countable: int
    enough: int
    cause: Cause | None

    @property
    def wanted(self) -> bool:
        """Whether a night is to be started."""
        return self.action == RetrainAction.RETRAIN


def enough(nights: Nights, config: PolicyConfig) -> int:
    """Return how many countable events ask for a night."""
    if nights.judged is None:
        return config.min_new_events
    return min(config.min_new_events, max(1, int(config.min_new_share * nights.learnt)))


def countable(events: pl.DataFrame, nights: Nights, at: datetime, config: PolicyConfig) -> int:
    """Count new events, of each person only so many.

    Parameters
    ----------
    events
        `user_id`, `timestamp` of events that the last judged night did not see.
    nights, at
        What was done before, and now. Late events may be dated on any day, so no person counts for
        more than all the days since that night allow; nor for more than their part of `enough`.
    """
    day = pl.col(c.TIMESTAMP).dt.date()
    by_day = events.group_by(c.USER_ID, day).agg(pl.len().alias(_COUNT))
    most = config.user_day_events
    of_people = by_day.group_by(c.USER_ID).agg(pl.col(_COUNT).clip(upper_bound=most).sum())
    share = max(1, enough(nights, config) // MIN_GROUP_SIZE)
    if nights.judged is not None:
        share = min(share, most * max(1, -((nights.judged - at) // _DAY)))
    return int(of_people[_COUNT].clip(upper_bound=share).sum())


def policy(
    events: int,
    counted: int,
    nights: Nights,
    drift: Drift | None,
    *,
    at: datetime,
    config: PolicyConfig,
) -> RetrainDecision:
    """Decide.

    Parameters
    ----------
    events, counted
        New events since the last judged night, and how many of these are `countable`.
    drift
        ``None`` where nobody had to look, see `can_skip_drift`.
    """
    wanted = enough(nights, config)
    since = "no night was judged yet"
    if nights.judged is not None:
        since = f"since {to_the_second(nights.judged)}"
    count = "" if counted == events else f", of which {counted:,} count"
    text = f"{events:,} new events{count} ({since}); {wanted:,} are enough"
    causes = [(Cause.DRIFT, alarm.sentence) for alarm in (drift.alarms if drift else ())[:1]]
    causes += [(Cause.EVENTS, text)] if counted >= wanted else []
    cause, why = causes[0] if causes else (None, text)
    hold = cooldown_reason(nights, at, config)
    verdict = RetrainAction.FOLD_IN if events else RetrainAction.SKIP
    if causes and hold is None:
        verdict, reason = RetrainAction.RETRAIN, f"retrain wanted: {why}"
    elif hold is not None and (causes or (events and drift is None)):
        reason = f"no retrain yet: {why}, but {hold}"
    else:
        reason = f"no retrain: {text}" + (f"; {drift.sentence}" if drift else "")
    return RetrainDecision(verdict, reason, events, counted, wanted, cause)


def can_skip_drift(events: int, nights: Nights, at: datetime, config: PolicyConfig) -> bool:
    """Whether a look at drift would change no verdict: nothing is new, or a retrain must wait."""
    return not events or cooldown_reason(nights, at, config) is not None


def cooldown_reason(nights: Nights, at: datetime, config: PolicyConfig) -> str | None:
    """Say what a retrain has to wait for, ``None`` for nothing."""
    last = max((x for x in nights.started if x <= at), default=None)
    if last is not None and at - last < timedelta(hours=config.min_hours):
        return f"{config.min_hours} hours must pass after the night of {to_the_second(last)}"
    today = [x for x in nights.started if at - _DAY < x <= at]
    if len(today) >= config.per_day:
        return f"{len(today)} nights have started within 24 hours, as many as may"
    cool = timedelta(hours=config.cool_down_hours)
    if nights.judged is not None and not nights.changed and at - nights.judged < cool:
        return (
            f"the night of {to_the_second(nights.judged)} changed nothing and "
            f"{config.cool_down_hours} hours must pass"
        )
    return None
