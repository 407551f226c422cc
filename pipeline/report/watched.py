"""What came back from people, as frozen rows: answers to lists, and what has moved.

Promises: nothing here is computed; what was not measured is ``None``, not a guess.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerRow:
    """One group of people, publications or places; nothing but `people` where they are too few.

    Attributes
    ----------
    by, name
        Such as ``version`` and ``7``.
    exposures
        Entries shown, to a person and day.
    answer_rate, ctr, conversion
        Shares of exposures that were answered, clicked, bought; with 95 % intervals.
    revenue, revenue_per_exposure
        Quantity · price of what was bought, where the price is known; the latter with its interval.
    return_rate
        Share of what was bought that came back; with its interval.
    """

    by: str
    name: str
    people: int
    exposures: int | None = None
    answer_rate: float | None = None
    ctr: float | None = None
    ctr_lo: float | None = None
    ctr_hi: float | None = None
    conversion: float | None = None
    conversion_lo: float | None = None
    conversion_hi: float | None = None
    revenue: float | None = None
    revenue_per_exposure: float | None = None
    revenue_per_exposure_lo: float | None = None
    revenue_per_exposure_hi: float | None = None
    return_rate: float | None = None
    return_rate_lo: float | None = None
    return_rate_hi: float | None = None


@dataclass(frozen=True)
class AnswersTold:
    """The answers of a span; `notes` are sentences about what was joined and what was claimed."""

    rows: tuple[AnswerRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DriftRow:
    """One signal.

    Attributes
    ----------
    verdict
        ``calm``, ``drift``, or why it was not judged: ``too_short``, ``no_event``.
    figure
        How far the latest day is; ``None`` where it could not be judged.
    """

    name: str
    verdict: str
    figure: float | None
    bound: float
    sentence: str
