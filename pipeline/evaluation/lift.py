"""Lifts of one model over another, and their product over a chain of models.

Guarantees: a lift that does not exist (no users, or a reference with a mean of 0) is None, never a
number; a chain is as wide as the errors of all its links together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.compare import Difference
from pipeline.evaluation.intervals import NORMAL_95, normal_interval


@dataclass(frozen=True)
class Lift:
    """Relative difference of two means over the same users, with its error.

    Attributes
    ----------
    against
        Name of the baseline, or number of the version, that is the reference.
    users
        Number of users.
    lift, se
        Mean difference ÷ the reference's mean, and its standard error as a ratio of means.
    """

    against: str
    users: int
    lift: float
    se: float

    @classmethod
    def of(cls, difference: Difference, against: str) -> Lift | None:
        """Return the lift of a comparison, or None if it has none.

        Parameters
        ----------
        difference
            Comparison of two recipes.
        against
            Name of the reference.
        """
        if not math.isfinite(difference.v):
            return None
        return cls(against, difference.n, difference.x, difference.se)

    @property
    def interval(self) -> tuple[float, float, float]:
        """The lift, and the ends of its 95 % interval."""
        return (self.lift, *normal_interval(self.lift, self.se))


def chained(links: Sequence[Lift]) -> tuple[float, float, float] | None:
    """Multiply the ratios of a chain of lifts, each over the one before.

    The links are measured on different users and days, so their errors are independent: the
    variance of the log of the product is the sum of the links' variances. One link keeps its own
    interval, so that the same comparison is never shown with two intervals.

    Parameters
    ----------
    links
        At least one.

    Returns
    -------
    tuple or None
        The lift of the product and the ends of its 95 % interval; None if a ratio is 0.
    """
    if any(link.lift <= -1 for link in links):
        return None
    if len(links) == 1:
        return links[0].interval
    log = sum(math.log1p(link.lift) for link in links)
    half = NORMAL_95 * math.hypot(*(link.se / (1 + link.lift) for link in links))
    return math.expm1(log), math.expm1(log - half), math.expm1(log + half)
