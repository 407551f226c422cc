"""Retrain policy: from new data, skip, fold-in or a nightly run, with the reason.

Guarantees: the reason is one sentence; events of a single user never cause a retrain, however many
they are, on however many days they are dated, and however small the shop is: it takes ten users; a
run that has just started delays the next one, even if it failed; no run is requested that would
find no recent event. The decision follows from the arguments alone, so a second call returns the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from zoneinfo import ZoneInfo

import polars as pl
from croniter import CroniterError, croniter
from pydantic import ConfigDict, Field, field_validator

from pipeline import columns as c
from pipeline.base import Frozen, to_the_second
from pipeline.data.cluster_robust import MIN_GROUP_SIZE
from pipeline.monitoring.verdicts import Drift

_DAY: Final = timedelta(days=1)
_COUNT = "count"


class ScheduleConfig(Frozen):
    """Start of nightly runs in Airflow, and of the first run by the retrain policy."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cron: str = "0 3 * * *"
    """Times of nightly runs: minute, hour, day of month, month, day of week. Under `adaptive` the
    retrain policy is asked at these times, too, and a run starts only if it requests one."""
    timezone: str = "UTC"
    """Time zone of `cron`, such as UTC or Europe/Berlin."""
    mode: Literal["nightly", "adaptive", "both"] = "nightly"
    """`nightly`: the cron starts runs; `adaptive`: the retrain policy, which each feedback pass
    asks; `both`: the cron, and the policy between its times."""
    first_after_days: int = Field(default=28, ge=1)
    """Days after the first event by which the policy requests the first run at the latest; earlier
    as soon as `split.min_users` users can be evaluated."""
    select_again_days: int = Field(default=90, ge=1)
    """Days after which a nightly run selects the open settings of the recipes again; earlier after
    a drift of taste. The result is a candidate."""

    @field_validator("cron")
    @classmethod
    def _recurs(cls, cron: str) -> str:
        try:
            croniter(cron).get_next()  # 31 February is a cron that never comes
        except CroniterError as error:
            raise ValueError(
                f"is not a cron ({error}); write five fields, such as 0 3 * * *"
            ) from None
        times = cron.split()
        if len(times) != 5:
            raise ValueError("a cron has five fields; write them such as 0 3 * * *")
        if any(time.upper().startswith("R") for time in times):
            raise ValueError("R is another time at each reading; write fixed ones: 0 3 * * *")
        return cron

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ValueError, KeyError, OSError):
            raise ValueError("is not a time zone; write UTC or Europe/Berlin") from None
        return name


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
    """Action to take now."""

    SKIP = "skip"
    FOLD_IN = "fold_in"
    RETRAIN = "retrain"


class Cause(StrEnum):
    """Cause of a retrain."""

    DRIFT = "drift"
    EVENTS = "events"
    FIRST = "first"


@dataclass(frozen=True)
class FirstRun:
    """Conditions of the first nightly run, before any has decided.

    Attributes
    ----------
    users, needed
        Users that could be evaluated now, and the number at which the run is requested.
    due
        Instant at which it is requested in any case; ``None`` without events.
    """

    users: int
    needed: int
    due: datetime | None

    def is_due(self, at: datetime) -> bool:
        """Return whether the run is to be requested at an instant."""
        return self.due is not None and (self.users >= self.needed or self.due <= at)

    def text(self, at: datetime) -> str:
        """Return the conditions at an instant in words."""
        users = f"{self.users:,} users can be evaluated"
        if self.due is None or self.users >= self.needed:
            return f"{users}, {self.needed:,} are needed"
        if self.due > at:
            return f"{users}, {self.needed:,} are needed before {to_the_second(self.due)}"
        return f"{users}, and since {to_the_second(self.due)} it does not wait for {self.needed:,}"


@dataclass(frozen=True)
class Nights:
    """State of earlier nightly runs.

    Attributes
    ----------
    judged
        As-of of the last decided run; ``None`` before the first.
    changed
        True if that run published anything.
    learnt
        Number of events that it read.
    started
        As-ofs of all runs that were started, the failed ones included.
    first
        Conditions of the first run; ``None`` once a run has decided.
    silence
        Reason that a run would have nothing to do; ``None`` if there are recent events.
    """

    judged: datetime | None
    changed: bool
    learnt: int
    started: Sequence[datetime]
    first: FirstRun | None = None
    silence: str | None = None


@dataclass(frozen=True)
class RetrainDecision:
    """Decision of the policy.

    Attributes
    ----------
    reason
        One sentence.
    events, countable, enough
        Number of new events, of those that count, and of those needed.
    cause
        Cause of a retrain, even if it has to wait; ``None`` without one.
    """

    action: RetrainAction
    reason: str
    events: int
    countable: int
    enough: int
    cause: Cause | None

    @property
    def wanted(self) -> bool:
        """True if a nightly run is to be started."""
        return self.action == RetrainAction.RETRAIN


def enough(nights: Nights, config: PolicyConfig) -> int:
    """Return the number of countable events that requests a retrain.

    Parameters
    ----------
    nights
        Has the number of events of the last decided run.
    config
        Thresholds.

    Returns
    -------
    int
        At least 1.
    """
    if nights.judged is None:
        return config.min_new_events
    # At least 1: a share of few events rounds to 0.
    return min(config.min_new_events, max(1, int(config.min_new_share * nights.learnt)))


def countable(events: pl.DataFrame, nights: Nights, at: datetime, config: PolicyConfig) -> int:
    """Count new events, with a limit per user.

    Late events may be dated on any day, so a user counts for at most the days since the last
    decided run, and for at most one tenth of `enough`.

    Parameters
    ----------
    events
        `user_id`, `timestamp` of events that the last decided run did not read.
    nights, at
        State of earlier runs, and now.
    config
        Limits.

    Returns
    -------
    int
        Number of events that count.
    """
    day = pl.col(c.TIMESTAMP).dt.date()
    by_day = events.group_by(c.USER_ID, day).agg(pl.len().alias(_COUNT))
    most = config.user_day_events
    by_user = by_day.group_by(c.USER_ID).agg(pl.col(_COUNT).clip(upper_bound=most).sum())
    # No user may count for more than one of `MIN_GROUP_SIZE` that are needed.
    share = max(1, enough(nights, config) // MIN_GROUP_SIZE)
    if nights.judged is not None:
        # Negated floor division rounds up: a started day counts.
        share = min(share, most * max(1, -((nights.judged - at) // _DAY)))
    return int(by_user[_COUNT].clip(upper_bound=share).sum())


def policy(
    events: int,
    counted: int,
    nights: Nights,
    drift: Drift | None,
    *,
    at: datetime,
    config: PolicyConfig,
) -> RetrainDecision:
    """Decide whether to skip, fold in or retrain.

    Parameters
    ----------
    events, counted
        Number of new events since the last decided run, and of those that are `countable`.
    nights, at
        State of earlier runs, and now.
    drift
        ``None`` if it was not computed, see `can_skip_drift`.
    config
        Thresholds.

    Returns
    -------
    RetrainDecision
        With the reason.
    """
    wanted = enough(nights, config)
    if nights.first is not None:
        text = f"the first run: {nights.first.text(at)}"
        causes = [(Cause.FIRST, text)] if nights.first.is_due(at) else []
    else:
        text = _count_text(events, counted, wanted, nights)
        alarms = drift.alarms if drift else ()
        causes = [(Cause.DRIFT, f"drift in “{x.title}”, {x.sentence}") for x in alarms[:1]]
        causes += [(Cause.EVENTS, text)] if counted >= wanted else []
    cause, trigger = causes[0] if causes else (None, text)
    delay = nights.silence or cooldown_reason(nights, at, config)
    action = RetrainAction.FOLD_IN if events else RetrainAction.SKIP
    if causes and delay is None:
        action, reason = RetrainAction.RETRAIN, f"retrain requested: {trigger}"
    elif delay is not None and (causes or (events and drift is None)):
        reason = f"no retrain yet: {trigger}, but {delay}"
    else:
        reason = f"no retrain: {text}" + (f"; {drift.sentence}" if drift else "")
    return RetrainDecision(action, reason, events, counted, wanted, cause)


def _count_text(events: int, counted: int, wanted: int, nights: Nights) -> str:
    since = "" if nights.judged is None else f" (since {to_the_second(nights.judged)})"
    count = "" if counted == events else f", of which {counted:,} count"
    return f"{events:,} new events{count}{since}; {wanted:,} are needed"


def can_skip_drift(events: int, nights: Nights, at: datetime, config: PolicyConfig) -> bool:
    """Return True if drift cannot change the decision: no new event, no run yet, or one must wait.

    Parameters
    ----------
    events
        Number of new events.
    nights, at, config
        As in `policy`.

    Returns
    -------
    bool
        Drift need not be computed.
    """
    must_wait = nights.silence or cooldown_reason(nights, at, config)
    return not events or nights.first is not None or must_wait is not None


def cooldown_reason(nights: Nights, at: datetime, config: PolicyConfig) -> str | None:
    """Return the reason that a retrain has to wait.

    Parameters
    ----------
    nights, at, config
        As in `policy`.

    Returns
    -------
    str or None
        ``None`` if it need not wait.
    """
    last = max((x for x in nights.started if x <= at), default=None)
    if last is not None and at - last < timedelta(hours=config.min_hours):
        return f"{config.min_hours} hours must pass after the run of {to_the_second(last)}"
    today = [x for x in nights.started if at - _DAY < x <= at]
    if len(today) >= config.per_day:
        return f"{len(today)} runs have started within 24 hours, the maximum"
    cool = timedelta(hours=config.cool_down_hours)
    if nights.judged is not None and not nights.changed and at - nights.judged < cool:
        return (
            f"the run of {to_the_second(nights.judged)} changed nothing and "
            f"{config.cool_down_hours} hours must pass"
        )
    return None
