"""What a page shows over time: frozen rows of tonight and of the nights before.

Promises: nothing here is computed; a night without a figure has ``None``, not a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StandRow:
    """Where an account stood after a night.

    Attributes
    ----------
    log_points
        Natural logarithm of its points.
    """

    as_of: datetime
    log_points: float


@dataclass(frozen=True)
class AccountRow:
    """What a candidate has gathered against the champion; lifts are relative, .02 is +2 %.

    Attributes
    ----------
    points, threshold
        What it has, and what a switch needs.
    lift, lo, hi
        Over all blocks counted, with its 95 % interval; ``None`` before the first.
    blocks
        Blocks counted.
    smallest_effect
        Lift that tonight's block finds four times in five.
    more_blocks
        Blocks that a true +2 % would still need, about.
    waiting
        Why tonight's block was not counted, or ``None``.
    path
        The account against this champion night by night, oldest first, tonight last.
    """

    recipe: str
    points: float
    threshold: float
    lift: float | None = None
    lo: float | None = None
    hi: float | None = None
    blocks: int = 0
    smallest_effect: float | None = None
    more_blocks: int | None = None
    waiting: str | None = None
    path: tuple[StandRow, ...] = ()


@dataclass(frozen=True)
class PastRow:
    """What the champion's recipe reached on one night's holdout.

    Attributes
    ----------
    kind
        What that night decided.
    recipe
        Champion after it.
    block_days
        Length of its holdout; figures of other lengths are no measure for these.
    mean, lo, hi
        Primary metric with its 95 % interval.
    lift, lift_lo, lift_hi
        Over that night's best baseline, with its 95 % interval.
    """

    as_of: datetime
    kind: str
    recipe: str
    block_days: int
    mean: float | None = None
    lo: float | None = None
    hi: float | None = None
    lift: float | None = None
    lift_lo: float | None = None
    lift_hi: float | None = None


@dataclass(frozen=True)
class ChurnRow:
    """How much a publication changed lists of people who had done nothing; shares, 0 to 1.

    Attributes
    ----------
    as_of
        Night that published.
    overlap
        Share of their entries that stayed; ``None`` where nobody could be compared.
    idle
        People who had done nothing since the publication before.
    causes
        (cause, share of their entries that changed for it) pairs.
    dice
        Share that would change by another salt alone.
    note
        What is to be said about the comparison.
    """

    as_of: datetime
    overlap: float | None
    idle: int
    causes: tuple[tuple[str, float], ...] = ()
    dice: float | None = None
    note: str = ""


@dataclass(frozen=True)
class FoldRow:
    """How near fold-in came to training again, for people who had done something in between.

    Attributes
    ----------
    as_of
        Night that trained again.
    users
        People compared.
    overlap
        Share of their first ten entries that both kinds of lists have in common.
    folded, retrained
        Primary metric of either kind by what these people did since.
    note
        Why there is no figure.
    """

    as_of: datetime
    users: int
    overlap: float | None = None
    folded: float | None = None
    retrained: float | None = None
    note: str = ""


@dataclass(frozen=True)
class LiveRow:
    """What people did with lists while these were live.

    Attributes
    ----------
    as_of
        Night that counted; the events lie before it.
    slice
        Group of people, or ``all``.
    users, events
        How many of them came back, and what they did.
    hit_rate, ndcg, lo, hi
        Of what they did, with the 95 % interval of the NDCG.
    base_ndcg
        The same without what was patched in by day.
    """

    as_of: datetime
    model_version: str
    slice: str
    users: int
    events: int
    hit_rate: float | None = None
    ndcg: float | None = None
    lo: float | None = None
    hi: float | None = None
    base_ndcg: float | None = None
