"""Record of one block: the sums from which the evidence for a candidate is computed again later.

Guarantees: all sums are in units of the champion's mean on the block, so records of different
blocks can be added; the order of users has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.base import Interval
from pipeline.errors import GateError
from pipeline.evaluation.compare import Difference, paired
from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.slices import SLICES


@dataclass(frozen=True)
class SliceSums:
    """Sums over the users of a slice.

    Attributes
    ----------
    name
        Slice without its prefix.
    n, nonzero
        Number of users, and of those with different values.
    d, b, dd, db, bb
        Σd, Σb, Σd², Σdb and Σb² of differences d and values b of the champion.
    """

    name: str
    n: int
    nonzero: int
    d: float
    b: float
    dd: float
    db: float
    bb: float


@dataclass(frozen=True)
class RecipeTotal:
    """Sum of a recipe's values over the users of a block."""

    recipe_hash: str
    total: float


@dataclass(frozen=True)
class BlockRecord:
    """A candidate against the champion on one block.

    Attributes
    ----------
    t2
        Variance of the lift by seeds.
    x, s_dd, s_db, s_bb
        As in `Difference`.
    totals
        Of the candidate and of every baseline.
    """

    block: Interval
    n: int
    t2: float
    x: float
    s_dd: float
    s_db: float
    s_bb: float
    slices: tuple[SliceSums, ...] = ()
    totals: tuple[RecipeTotal, ...] = ()

    def total(self, recipe_hash: str) -> float | None:
        """Return the sum of a recipe's values; None if the record has none."""
        return next((t.total for t in self.totals if t.recipe_hash == recipe_hash), None)


def record_of(
    comparison: Difference,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    totals: Sequence[RecipeTotal],
    block: Interval,
) -> BlockRecord:
    """Return the record of a block.

    Parameters
    ----------
    comparison
        Of the candidate and the champion, by all users.
    frames
        Values per user of the candidate and of the champion.
    totals
        Sums of values per recipe, as NDCG.
    block
        The holdout.

    Returns
    -------
    BlockRecord
        Slices that one frame lacks are left out.
    """
    level = comparison.champion
    return BlockRecord(
        block=block,
        n=comparison.n,
        t2=comparison.t2,
        x=comparison.x,
        s_dd=comparison.s_dd,
        s_db=comparison.s_db,
        s_bb=comparison.s_bb,
        slices=tuple(
            sums for name in slice_names(frames) if (sums := _sums(frames, name, level)) is not None
        ),
        totals=tuple(RecipeTotal(t.recipe_hash, t.total / level) for t in totals),
    )


def slice_names(frames: tuple[pl.DataFrame, pl.DataFrame]) -> tuple[str, ...]:
    """Return the slices of two frames without their prefix, the standard ones always, sorted."""
    # Segments differ by shop; a standard slice without a column must be reported as missing.
    columns = {name for frame in frames for name in frame.columns if name.startswith(SLICE)}
    return tuple(sorted({name.removeprefix(SLICE) for name in columns}.union(SLICES)))


def _sums(frames: tuple[pl.DataFrame, pl.DataFrame], name: str, level: float) -> SliceSums | None:
    try:
        values, champion = paired(*frames, SLICE + name)
    except GateError:  # the rule about tonight's slices reports it
        return None
    d, b = (values - champion) / level, champion / level
    sums = (float(d.sum()), float(b.sum()), float(d @ d), float(d @ b), float(b @ b))
    return SliceSums(name, len(d), int(np.count_nonzero(d)), *sums)
