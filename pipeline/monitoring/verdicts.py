"""What drift comes to: a verdict a signal, from the z of the days that are judged.

Promises: one day out of line is no drift unless it lies twice as far; the latest day is always
among those that speak; what cannot be judged says so and alarms nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from pydantic import Field, model_validator

from pipeline.base import Frozen, Instant, to_the_second


class DriftStatus(StrEnum):
    """How a signal, or all of them, ended."""

    STABLE = "stable"
    DRIFT = "drift"
    TOO_SHORT = "too_short"
    NO_EVENT = "no_event"


class DriftConfig(Frozen):
    """When days lie too far from those before them."""

    reference_days: int = Field(
        default=28, ge=14, description="Days before the judged ones that they are held against."
    )
    least_days: int = Field(
        default=14, ge=7, description="Days of the reference with an event, at least."
    )
    least_nights: int = Field(
        default=5, ge=3, description="Nights that measured live quality, at least."
    )
    scored_days: int = Field(default=3, ge=1, description="Days that are judged, m.")
    min_days: int = Field(
        default=2, ge=1, description="Of these, how many must be over the bound, n; the latest is."
    )
    z_threshold: float = Field(
        default=4.0, gt=0, description="How many spreads of the reference are too far."
    )
    single_day_z: float = Field(
        default=6.0, gt=0, description="How many are so far that the latest day suffices alone."
    )
    max_events: int = Field(
        default=100, ge=1, description="Events of one person and day that count."
    )
    top_categories: int = Field(
        default=50, ge=2, description="Items, and categories, that are followed one by one."
    )

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
        Days, or nights, of the reference; `least` are needed.
    starts
        Where each judged day begins.
    detail
        What the latest day has, beside what was expected; empty, or with a leading colon.
    """

    name: str
    days: Sequence[float]
    starts: Sequence[datetime]
    reference: int
    least: int
    detail: str = ""
    worse: int = 1
    retrain_helps: bool = True


def judge(result: Measured, config: DriftConfig) -> Signal:
    """Apply n of m with the latest among them, or the latest alone where it is far enough."""
    kind = "nights" if result.name.startswith("quality.") else "days"
    if result.reference < result.least:
        sentence = (
            f"{result.name}: {result.reference} {kind} to compare with, {result.least} are needed"
        )
        return Signal(
            result.name,
            None,
            config.z_threshold,
            DriftStatus.TOO_SHORT,
            sentence,
            result.retrain_helps,
        )
    days = tuple(None if math.isnan(z) else round(float(z), 3) for z in result.days)
    latest = days[0]
    if latest is None:
        sentence = f"{result.name}: nothing happened on the latest day"
        return Signal(
            result.name,
            None,
            config.z_threshold,
            DriftStatus.NO_EVENT,
            sentence,
            result.retrain_helps,
            days=days,
        )
    over = [
        at for at, z in enumerate(days) if z is not None and _far(z, result) >= config.z_threshold
    ]
    enough = len(over) >= config.min_days
    alone = _far(latest, result) >= config.single_day_z
    drifts = 0 in over and (enough or alone)
    sentence = (
        f"{result.name}: the latest day is {latest:.1f} spreads away from the {result.reference} "
        f"{kind} before{result.detail}, {config.z_threshold:g} is far"
    )
    if drifts and enough:
        sentence += f", and {len(over)} of {len(days)} days are"
    elif drifts:
        sentence += f", and {config.single_day_z:g} is enough for one day"
    first = max(over) if drifts and enough else 0
    return Signal(
        result.name,
        latest,
        config.z_threshold,
        DriftStatus.DRIFT if drifts else DriftStatus.STABLE,
        sentence,
        result.retrain_helps,
        result.starts[first] if drifts else None,
        days,
    )


def summed(end: datetime, signals: Sequence[Signal]) -> Drift:
    """Say in one sentence what the signals come to."""
    drifting = _furthest(signals)
    judged = [x for x in signals if x.status in (DriftStatus.STABLE, DriftStatus.DRIFT)]
    if drifting:
        more = len(drifting) - 1
        sentence = drifting[0].sentence + (f" (and {more} more)" if more else "")
        return Drift(end, DriftStatus.DRIFT, sentence, tuple(signals))
    if judged:
        sentence = f"no drift in {len(judged)} signals up to {to_the_second(end)}"
        return Drift(end, DriftStatus.STABLE, sentence, tuple(signals))
    empty = [x for x in signals if x.status == DriftStatus.NO_EVENT]
    if empty or not signals:
        sentence = f"nothing happened in the day up to {to_the_second(end)}"
        return Drift(end, DriftStatus.NO_EVENT, sentence, tuple(signals))
    return Drift(end, DriftStatus.TOO_SHORT, signals[0].sentence, tuple(signals))


def _furthest(signals: Sequence[Signal]) -> list[Signal]:
    drifting = [x for x in signals if x.status == DriftStatus.DRIFT]
    return sorted(drifting, key=lambda x: -abs(x.figure or 0.0))


def _far(z: float, result: Measured) -> float:
    return abs(z) if not result.worse else z * result.worse
