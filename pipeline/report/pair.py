"""What the page of two versions is made of: frozen rows, filled by the one who read the files.

Promises: nothing here is computed; equal rows give equal bytes; people have letters, no ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.base import Instant


@dataclass(frozen=True)
class VersionRow:
    """What one version is.

    Attributes
    ----------
    live
        What it was to people, in words.
    judged
        The days that judged it in its own night.
    """

    number: int
    recipe: str
    as_of: Instant
    decision: str
    sentence: str
    trained_on: str
    live: str
    judged: str
    run_id: str
    commit: str

    @property
    def label(self) -> str:
        """What it is called in tables and figures."""
        return f"version {self.number}"


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, where it has one; `people` where it is told."""

    mean: float
    lo: float | None = None
    hi: float | None = None
    people: int | None = None


@dataclass(frozen=True)
class MetricRow:
    """A metric of both in their own nights, by its full name; ``None`` where one lacks it."""

    name: str
    left: Estimate | None
    right: Estimate | None


@dataclass(frozen=True)
class PairedRow:
    """Both on the same people: two means, and the lift of the right one over the left one.

    Attributes
    ----------
    lift, lo, hi
        Mean difference ÷ the left mean with its 95 % interval; ``None`` where the left mean is 0.
    underpowered
        Why it must not be judged, or ``None``.
    """

    name: str
    people: int
    left: float
    right: float
    lift: float | None
    lo: float | None
    hi: float | None
    underpowered: str | None


@dataclass(frozen=True)
class PairedComparison:
    """A comparison on one footing, or, without rows, why there is none.

    Attributes
    ----------
    key
        Short name of the footing: ``holdout`` or ``recipes``.
    """

    key: str
    title: str
    about: str
    rows: tuple[PairedRow, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A setting, a fact or a cost of both, ready to read; ``–`` where one lacks it."""

    name: str
    left: str
    right: str

    @property
    def differs(self) -> bool:
        """Whether the two are not alike."""
        return self.left != self.right


@dataclass(frozen=True)
class Entry:
    """An entry of a list by its title, and whether the other list has that item, too."""

    title: str
    shared: bool


@dataclass(frozen=True)
class Sample:
    """The first entries of one person's two lists; `about` tells of the person."""

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
        Primary metric by its name.
    sentence
        What was found.
    weeks
        What is to be known of the days that judged each.
    lists
        What the sample lists are, in words.
    """

    left: VersionRow
    right: VersionRow
    metric: str
    sentence: str
    weeks: str
    footings: tuple[PairedComparison, ...]
    metrics: tuple[MetricRow, ...]
    settings: tuple[Pair, ...]
    night_settings: tuple[Pair, ...]
    data: tuple[Pair, ...]
    cost: tuple[Pair, ...]
    lists: str
    samples: tuple[Sample, ...]
