"""Content of the page of two versions.

Guarantees: nothing is computed here; equal rows give equal bytes; users are named by letters, not
by ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.base import Instant


@dataclass(frozen=True)
class VersionRow:
    """One version of the model.

    Attributes
    ----------
    deterministic
        Whether equal data and recipe give equal bytes.
    live
        Since when its lists were live, in words.
    judged
        Days of the holdout of its nightly run.
    """

    number: int
    recipe: str
    as_of: Instant
    decision: str
    sentence: str
    trained_on: str
    deterministic: bool
    live: str
    judged: str
    run_id: str
    commit: str

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        return f"version {self.number}"


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval and number of users; None if not measured."""

    mean: float
    lo: float | None = None
    hi: float | None = None
    users: int | None = None


@dataclass(frozen=True)
class MetricRow:
    """A metric of both nightly runs by its full name; None if one lacks it."""

    name: str
    left: Estimate | None
    right: Estimate | None


@dataclass(frozen=True)
class PairedRow:
    """Both versions on the same users: two means, and the lift of the right one over the left one.

    Attributes
    ----------
    lift, lo, hi
        Mean difference ÷ the left mean with its 95 % interval; None if the left mean is 0.
    underpowered
        Reason why the evidence is too small, or None.
    """

    name: str
    users: int
    left: float
    right: float
    lift: float | None
    lo: float | None
    hi: float | None
    underpowered: str | None


@dataclass(frozen=True)
class PairedComparison:
    """A paired comparison, or, without rows, the reason why there is none (`about`).

    Attributes
    ----------
    key
        ``holdout`` or ``recipes``.
    """

    key: str
    title: str
    about: str
    rows: tuple[PairedRow, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A setting, fact or cost of both versions as text; ``–`` if one lacks it."""

    name: str
    left: str
    right: str

    @property
    def differs(self) -> bool:
        """True if the two texts differ."""
        return self.left != self.right


@dataclass(frozen=True)
class Entry:
    """An entry of a list; `shared` if the other list contains the item too."""

    title: str
    shared: bool


@dataclass(frozen=True)
class Sample:
    """First entries of a user's two lists; `about` describes the user."""

    person: str
    about: str
    left: tuple[Entry, ...]
    right: tuple[Entry, ...]


@dataclass(frozen=True)
class VersionsPage:
    """Everything on the page of two versions.

    Attributes
    ----------
    metric
        Name of the primary metric.
    margin
        As for `evaluation.lift.verdict`.
    sentence
        The finding.
    weeks
        Text about the holdouts of both.
    lists
        Text about the sample lists.
    """

    left: VersionRow
    right: VersionRow
    metric: str
    margin: float
    sentence: str
    weeks: str
    paired_comparisons: tuple[PairedComparison, ...]
    metrics: tuple[MetricRow, ...]
    settings: tuple[Pair, ...]
    night_settings: tuple[Pair, ...]
    data: tuple[Pair, ...]
    cost: tuple[Pair, ...]
    lists: str
    samples: tuple[Sample, ...]
