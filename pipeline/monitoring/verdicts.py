"""What drift comes to: a verdict a signal, from the z of the days that are judged.

Promises: one day out of line is no drift unless it lies twice as far; the latest day is always
among those that speak; what cannot be judged says so and alarms nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from pydantic import ConfigDict, Field, model_validator

from pipeline.base import Frozen, Instant, to_the_second
from pipeline.monitoring.drift_windows import DriftWindows


class DriftStatus(StrEnum):
    """How a signal, or all of them, ended."""

    STABLE = "stable"
    DRIFT = "drift"
    TOO_SHORT = "too_short"
    NO_EVENT = "no_event"


class DriftConfig(Frozen):
    """Thresholds of drift: the scored days against the reference period before them."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reference_days: int = Field(default=28, ge=14)
    """Length in days of the reference period, which ends where the scored days start."""
    least_days: int = Field(default=14, ge=7)
    """Minimum number of reference days with events; with fewer a signal is not scored."""
    least_nights: int = Field(default=5, ge=3)
    """Minimum number of nightly runs that measured live quality; with fewer it is not scored."""
    scored_days: int = Field(default=3, ge=1)
    """Number of latest days that are scored."""
    min_days: int = Field(default=2, ge=1)
    """Number of scored days, the latest among them, that must reach the threshold for drift."""
    z_threshold: float = Field(default=4.0, gt=0)
    """z-score above which a day counts towards drift."""
    single_day_z: float = Field(default=6.0, gt=0)
    """z-score above which the latest day alone counts as drift."""
    max_events: int = Field(default=100, ge=1)
    """Number of events that count of one user and day, the earliest ones."""
    top_categories: int = Field(default=50, ge=2)
    """Number of most frequent items, and categories, that are compared one by one."""

    @model_validator(mode="after")
    def _ordered(self) -> DriftConfig:
        if self.min_days > self.scored_days:
            raise ValueError("needed_days must not be above judged_days")
        if self.least_days > self.reference_days:
            raise ValueError("least_days must not be above reference_days")
        if self.single_day_z < self.z_threshold:
            raise ValueError("alone must not be below bound")
        return self


@dataclass(frozen=True)
class Signal:
    """One thing that may drift.

    Attributes
    ----------
    name
        ``data.…``, ``taste.…`` or ``quality.…``.
    figure
        z of the latest day, signed where up and down differ; ``None`` where it cannot be judged.
    retrain_helps
        Whether training again answers a drift of it; data that are missing want a person.
    since
        Of a drift: the start of its first day.
    days
        z of the judged days, the latest first.
    """

    name: str
    figure: float | None
    bound: float
    status: DriftStatus
    sentence: str
    retrain_helps: bool = True
    since: Instant | None = None
    days: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Drift:
    """All signals at one end of time.

    Attributes
    ----------
    end
        Where the latest judged day ends.
    status
        ``drift`` if a signal drifts; else ``too_short`` or ``no_event`` if none could be judged.
    """

    end: Instant
    status: DriftStatus
    sentence: str
    signals: tuple[Signal, ...]

    @property
    def alarms(self) -> tuple[Signal, ...]:
        """Signals that drift and ask for a retrain, the furthest first."""
        return tuple(x for x in _furthest(self.signals) if x.retrain_helps)


@dataclass(frozen=True)
class Measured:
    """The z of the judged days, and what they were held against.

    Attributes
    ----------
    days
        The latest first; NaN where nothing happened.
    worse
        Which direction counts: 1 up, -1 down, 0 both.
    reference
        Days, or nights, of the reference.
    detail
        What the latest day has, beside what was expected; empty, or with a leading colon.
    """

    name: str
    days: Sequence[float]
    reference: int
    detail: str = ""
    worse: int = 1
    retrain_helps: bool = True


def judge(result: Measured, windows: DriftWindows, config: DriftConfig) -> Signal:
    """Apply n of m with the latest among them, or the latest alone where it is far enough."""
    nightly = result.name.startswith("quality.")
    kind, least = ("nights", config.least_nights) if nightly else ("days", config.least_days)
    signal = Signal(
        result.name,
        figure=None,
        bound=config.z_threshold,
        status=DriftStatus.TOO_SHORT,
        sentence=f"{result.name}: {result.reference} {kind} to compare with, {least} are needed",
        retrain_helps=result.retrain_helps,
    )
    if result.reference < least:
        return signal
    days = tuple(None if math.isnan(z) else round(float(z), 3) for z in result.days)
    signal, latest = replace(signal, days=days), days[0]
    if latest is None:
        sentence = f"{result.name}: nothing happened on the latest day"
        return replace(signal, status=DriftStatus.NO_EVENT, sentence=sentence)
    far = [math.nan if z is None else (z * result.worse if result.worse else abs(z)) for z in days]
    over = [at for at, distance in enumerate(far) if distance >= config.z_threshold]
    enough = len(over) >= config.min_days
    drifts = 0 in over and (enough or far[0] >= config.single_day_z)
    sentence = (
        f"{result.name}: the latest day is {latest:.1f} spreads away from the {result.reference} "
        f"{kind} before{result.detail}, {config.z_threshold:g} is far"
    )
    if not drifts:
        return replace(signal, figure=latest, status=DriftStatus.STABLE, sentence=sentence)
    if enough:
        sentence += f", and {len(over)} of {len(days)} days are"
    else:
        sentence += f", and {config.single_day_z:g} is enough for one day"
    since = windows.start(max(over) if enough else 0)
    status = DriftStatus.DRIFT
    return replace(signal, figure=latest, status=status, sentence=sentence, since=since)


def summed(end: datetime, signals: Sequence[Signal]) -> Drift:
    """Say in one sentence what the signals come to."""
    drifting = _furthest(signals)
    statuses = [signal.status for signal in signals]
    if drifting:
        status, more = DriftStatus.DRIFT, f" (and {len(drifting) - 1} more)"
        sentence = drifting[0].sentence + (more if len(drifting) > 1 else "")
    elif stable := statuses.count(DriftStatus.STABLE):
        status = DriftStatus.STABLE
        sentence = f"no drift in {stable} signals up to {to_the_second(end)}"
    elif DriftStatus.NO_EVENT in statuses or not signals:
        status = DriftStatus.NO_EVENT
        sentence = f"nothing happened in the day up to {to_the_second(end)}"
    else:
        status, sentence = DriftStatus.TOO_SHORT, signals[0].sentence
    return Drift(end, status, sentence, tuple(signals))


def _furthest(signals: Sequence[Signal]) -> list[Signal]:
    drifting = [signal for signal in signals if signal.status == DriftStatus.DRIFT]
    return sorted(drifting, key=lambda signal: -abs(signal.figure or 0.0))
