"""What a night's page and figures are made of: frozen rows, filled by the one who read the files.

Promises: nothing here is computed; equal rows give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter

from pipeline.report.past import AccountRow, ChurnRow, FoldRow, LiveRow, PastRow
from pipeline.report.watched import AnswersTold, DriftRow


@dataclass(frozen=True)
class RecipeRow:
    """One recipe that competed.

    Attributes
    ----------
    role
        ``champion``, ``candidate`` or ``baseline``.
    mean, lo, hi
        Primary metric and its 95 % interval; ``None`` where `failure` says why there is none.
    coverage
        Share of the catalogue in the lists, 0 to 1.
    gini
        How unevenly items are recommended: 0 all alike, 1 one item alone.
    novelty
        Mean self-information of what is recommended, in bits: 0 what everybody has.
    diversity
        Share of the pairs in a list that have no category in common; ``None`` without categories.
    """

    name: str
    role: str
    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    coverage: float | None = None
    failure: str | None = None
    gini: float | None = None
    novelty: float | None = None
    diversity: float | None = None


@dataclass(frozen=True)
class CostRow:
    """What training one recipe took.

    Attributes
    ----------
    seconds, cpu_seconds
        By the clock on the wall, and of all processors together.
    peak_mb
        Memory at most, beside what was in use before; in 2^20 bytes.
    parameters
        Numbers learnt.
    events_per_second
        Events of the window ÷ `seconds`.
    trained_on
        ``cpu`` or ``cuda``.
    gain
        Lift of its mean over the best baseline's; ``None`` for a baseline, or without a level.
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    parameters: int
    events_per_second: float
    trained_on: str
    gain: float | None = None


@dataclass(frozen=True)
class LiftRow:
    """A recipe against the one it was held against, on the same people; relative, .02 is +2 %.

    Attributes
    ----------
    lift, lo, hi
        Mean difference ÷ the other's mean, and its 95 % interval.
    proved
        Whether the gate takes this recipe as better: by its own threshold, not by this interval.
    underpowered
        Why it must not be judged, or ``None``.
    """

    name: str
    lift: float
    lo: float
    hi: float
    proved: bool = False
    underpowered: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """One group of people under two recipes.

    Attributes
    ----------
    users
        People of the group who were judged.
    candidate, champion
        Means of the primary metric; `champion` stands for whatever the candidate is held against.
    lift, lo, hi
        Mean difference ÷ the champion's mean, and its 95 % interval; ``None`` without a level.
    underpowered
        Why the group must not be judged, or ``None``.
    """

    name: str
    users: int
    candidate: float
    champion: float
    lift: float | None = None
    lo: float | None = None
    hi: float | None = None
    underpowered: str | None = None


@dataclass(frozen=True)
class RuleRow:
    """One rule of the gate: what was measured, what is allowed, how it ended, in words.

    `verdict` is ``passed``, ``failed``, or the word for why it was not judged.
    """

    name: str
    subject: str
    figure: float | None
    bound: float | None
    verdict: str
    sentence: str


@dataclass(frozen=True)
class CheckRow:
    """One check of the data; `status` is ``passed`` or the word for what happened instead."""

    name: str
    status: str
    figure: float | None
    bound: float | None
    sentence: str


@dataclass(frozen=True)
class TableRow:
    """A table of the lake as the night read it."""

    name: str
    version: int
    rows: int


@dataclass(frozen=True)
class ReasonRow:
    """Rows in quarantine that show one reason; a row may show several."""

    reason: str
    rows: int


@dataclass(frozen=True)
class ColumnRow:
    """What cleaning found in one column of what the night read, and did.

    Attributes
    ----------
    missing, filled
        Rows without a value, and those of them that were filled.
    outliers
        Rows below or above what is allowed.
    removed
        Rows that this column took out.
    rows
        Rows of the table.
    """

    table: str
    column: str
    rows: int
    missing: int
    filled: int
    outliers: int
    removed: int


@dataclass(frozen=True)
class NightPage:
    """Everything on the page of one night.

    Attributes
    ----------
    kind
        ``first``, ``switch``, ``refresh``, ``keep`` or ``block``.
    metric
        Primary metric by its name, such as ``ndcg_at_20``.
    winner
        The recipe that goes live or stays live; ``None`` if there is none.
    challenger, against
        The two recipes of `slices`; also who `lifts` are held against.
    needed_lift
        Lift that a switch needs; .01 is +1 %.
    chosen
        (recipe, words) pairs: what the data chose where a recipe left something open.
    facts
        (name, value) pairs about the data and the holdout, ready to read.
    advice
        What a person can do now; empty where nothing is to be done (`words.advice` has defaults).
    accounts
        Candidates' points against the champion.
    trust
        What the last calibration found of the gate itself, and how old it is.
    past
        The champion night by night, oldest first, tonight last.
    churn, folds, live
        What publications changed, how near fold-in had come to them, and what people did with
        them, oldest first.
    answers
        What they did with what they were shown since the last night, ``None`` before a second one.
    drift, policy
        Whether something has moved, and what the policy said of a retrain, in a sentence.
    quarantined, reasons
        Rows in quarantine as the night saw it, ``None`` where that is not known; and why.
    cleaned
        What cleaning found.
    origin
        (name, value) pairs for the foot: run, commit, config.
    """

    run_id: str
    as_of: datetime
    kind: str
    sentence: str
    metric: str
    recipes: tuple[RecipeRow, ...]
    winner: str | None = None
    challenger: str | None = None
    against: str | None = None
    needed_lift: float | None = None
    chosen: tuple[tuple[str, str], ...] = ()
    costs: tuple[CostRow, ...] = ()
    lifts: tuple[LiftRow, ...] = ()
    slices: tuple[SliceRow, ...] = ()
    rules: tuple[RuleRow, ...] = ()
    checks: tuple[CheckRow, ...] = ()
    tables: tuple[TableRow, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    advice: tuple[str, ...] = ()
    accounts: tuple[AccountRow, ...] = ()
    trust: str = ""
    past: tuple[PastRow, ...] = ()
    churn: tuple[ChurnRow, ...] = ()
    folds: tuple[FoldRow, ...] = ()
    live: tuple[LiveRow, ...] = ()
    answers: AnswersTold | None = None
    drift: tuple[DriftRow, ...] = ()
    policy: str = ""
    quarantined: int | None = None
    reasons: tuple[ReasonRow, ...] = ()
    cleaned: tuple[ColumnRow, ...] = ()
    origin: tuple[tuple[str, str], ...] = ()


def to_json(night: NightPage) -> bytes:
    """Write every row as JSON, instants as ``2017-12-01T09:00:00Z``, no figure as null."""
    told = TypeAdapter(NightPage).dump_json(night, indent=1)
    return told + b"\n"


def from_json(written: bytes) -> NightPage:
    """Rebuild the rows from `to_json`; raises pydantic's `ValidationError`."""
    return TypeAdapter(NightPage).validate_json(written)
