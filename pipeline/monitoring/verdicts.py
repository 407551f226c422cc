"""Status of each drift signal, from the z-scores of its scored days.

Guarantees: one day above the threshold is not drift, unless it exceeds the higher threshold for a
single day; a change that is over on the latest day is not drift; a signal that cannot be scored
has a status of its own and never alarms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import ConfigDict, Field, model_validator

from pipeline.base import Frozen, Instant, to_the_second
from pipeline.monitoring.drift_windows import DriftWindows
from pipeline.number_text import decimal

_OFF: Final = 1.0
"""z-score that `min_days` of the scored days need for drift of all of them together: neither one
extreme day nor a change that is over is drift."""


class DriftStatus(StrEnum):
    """Status of a signal, or of all."""

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
        limits = {"min_days": "scored_days", "least_days": "reference_days"}
        for name, limit in (limits | {"z_threshold": "single_day_z"}).items():
            low, high = getattr(self, name), getattr(self, limit)
            if low > high:
                raise ValueError(f"{name} = {low} must not exceed {limit} = {high}")
        return self


@dataclass(frozen=True)
class Signal:
    """One signal that may drift.

    Attributes
    ----------
    name
        ``data.…``, ``taste.…`` or ``quality.…``.
    figure
        z-score of the latest day, signed if both directions count; ``None`` if it cannot be scored.
    bound
        z-score above which a day counts.
    retrain_helps
        False if training cannot help: missing data need a user's attention.
    since
        Start of the first day of a drift.
    days
        z-scores of the scored days, the latest first.
    together
        z-score of the scored days as one window; ``None`` if it cannot be scored.
    """

    name: str
    figure: float | None
    bound: float
    status: DriftStatus
    sentence: str
    retrain_helps: bool = True
    since: Instant | None = None
    days: tuple[float | None, ...] = ()
    together: float | None = None

    @property
    def title(self) -> str:
        """Name for a reader: ``data: new items`` for ``data.new_items``."""
        area, _, subject = self.name.partition(".")
        return f"{area}: {'NDCG' if subject == 'ndcg' else subject.replace('_', ' ')}"


@dataclass(frozen=True)
class Drift:
    """All signals before one instant.

    Attributes
    ----------
    end
        End of the latest scored day.
    status
        ``drift`` if a signal drifts; else ``too_short`` or ``no_event`` if none could be scored.
    """

    end: Instant
    status: DriftStatus
    sentence: str
    signals: tuple[Signal, ...]

    @property
    def alarms(self) -> tuple[Signal, ...]:
        """Drifting signals that a retrain helps, the largest z-score first."""
        return tuple(x for x in _furthest(self.signals) if x.retrain_helps)


@dataclass(frozen=True)
class Measured:
    """z-scores of the scored days of a signal, before the thresholds are applied.

    Attributes
    ----------
    days
        The latest first; NaN without events.
    reference
        Number of days, or nightly runs, of the reference.
    detail
        Value of the latest day and its expectation; empty, or with a leading space.
    together
        z-score of all scored days as one window; NaN if it was not measured.
    worse
        Direction that counts: 1 up, -1 down, 0 both.
    """

    name: str
    days: Sequence[float]
    reference: int
    detail: str = ""
    together: float = math.nan
    worse: int = 1
    retrain_helps: bool = True


def judge(result: Measured, windows: DriftWindows, config: DriftConfig) -> Signal:
    """Apply the thresholds to a signal.

    Drift is `min_days` of the scored days above the threshold, the latest among them; or the latest
    alone above the threshold for a single day; or all scored days together above the threshold, if
    they last: `min_days` of them, the latest among these, have a z-score of 1 in that direction.

    Parameters
    ----------
    result
        z-scores of the scored days.
    windows, config
        Days, and thresholds.

    Returns
    -------
    Signal
        With a status and a sentence.
    """
    nightly = result.name.startswith("quality.")
    kind, least = ("nightly runs", config.least_nights) if nightly else ("days", config.least_days)
    signal = Signal(
        result.name,
        figure=None,
        bound=config.z_threshold,
        status=DriftStatus.TOO_SHORT,
        sentence=f"{result.reference} {kind} of reference, {least} are needed",
        retrain_helps=result.retrain_helps,
    )
    if result.reference < least:
        return signal
    # Rounded for the file; the thresholds apply to the rounded values, which a reader can check.
    days = tuple(None if math.isnan(z) else round(float(z), 3) for z in result.days)
    together = None if math.isnan(result.together) else round(float(result.together), 3)
    signal, latest = replace(signal, days=days, together=together), days[0]
    if latest is None:
        sentence = "no events on the latest day"
        return replace(signal, status=DriftStatus.NO_EVENT, sentence=sentence)
    # Positive in the direction that counts.
    far = [math.nan if z is None else (z * result.worse if result.worse else abs(z)) for z in days]
    over = [at for at, distance in enumerate(far) if distance >= config.z_threshold]
    sentence = (
        f"z-score {decimal(latest)} on the latest day against the {result.reference} "
        f"{kind} before{result.detail}, threshold {config.z_threshold:g}"
    )
    if 0 in over and len(over) >= config.min_days:
        first = max(over)  # windows count backwards: the largest index is the earliest day
        sentence += f", exceeded on {len(over)} of {len(days)} days"
    elif far[0] >= config.single_day_z:
        first = 0
        sentence += f", and {config.single_day_z:g} for a single day"
    elif together is not None and _lasts(result, together, config):
        first = len(days) - 1
        sentence += f", exceeded by the {len(days)} days together with {decimal(together)}"
    else:
        return replace(signal, figure=latest, status=DriftStatus.STABLE, sentence=sentence)
    since, status = windows.start(first), DriftStatus.DRIFT
    return replace(signal, figure=latest, status=status, sentence=sentence, since=since)


def _lasts(result: Measured, together: float, config: DriftConfig) -> bool:
    """Return whether the scored days drift together, `min_days` and the latest among them."""
    direction = result.worse or math.copysign(1.0, together)
    off = [z * direction >= _OFF for z in result.days]
    drifts = together * direction >= config.z_threshold
    return drifts and off[0] and sum(off) >= config.min_days


def summed(end: datetime, signals: Sequence[Signal]) -> Drift:
    """Combine the signals.

    Parameters
    ----------
    end
        End of the latest scored day.
    signals
        All signals.

    Returns
    -------
    Drift
        With the status and the sentence of the largest drift, if any.
    """
    drifting = _furthest(signals)
    statuses = [signal.status for signal in signals]
    if drifting:
        status, more = DriftStatus.DRIFT, f" (and {len(drifting) - 1} more)"
        first = drifting[0]
        sentence = f"drift in “{first.title}”, {first.sentence}" + (
            more if len(drifting) > 1 else ""
        )
    elif stable := statuses.count(DriftStatus.STABLE):
        status = DriftStatus.STABLE
        sentence = f"no drift in {stable} signals up to {to_the_second(end)}"
    elif DriftStatus.NO_EVENT in statuses or not signals:
        status = DriftStatus.NO_EVENT
        sentence = f"no events on the day up to {to_the_second(end)}"
    else:
        status, sentence = DriftStatus.TOO_SHORT, f"{signals[0].title}: {signals[0].sentence}"
    return Drift(end, status, sentence, tuple(signals))


def _furthest(signals: Sequence[Signal]) -> list[Signal]:
    drifting = [signal for signal in signals if signal.status == DriftStatus.DRIFT]
    # Absolute, since the volume may drift downwards.
    return sorted(drifting, key=lambda signal: -abs(signal.figure or 0.0))
