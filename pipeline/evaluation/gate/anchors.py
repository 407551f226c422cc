"""Baseline ratios per block, and the anchor of a champion: their mean when it was chosen.

Guarantees: an anchor is the mean of the newest blocks, at most `ANCHOR_BLOCKS` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from pipeline.base import Interval

ANCHOR_BLOCKS: Final = 3
"""Number of disjoint blocks that an anchor is the mean of, at most."""


@dataclass(frozen=True)
class BlockRatio:
    """Mean of a recipe over the mean of the best baseline on one block.

    Attributes
    ----------
    se
        Standard error of `ratio`.
    accepted
        The decision of that run put the recipe live.
    """

    recipe_hash: str
    block: Interval
    ratio: float
    se: float
    accepted: bool = False


@dataclass(frozen=True)
class Anchor:
    """Baseline ratio of a champion when it was chosen, over `blocks` blocks; bound of a refresh."""

    recipe_hash: str
    ratio: float
    blocks: int

    @classmethod
    def over(cls, ratios: Sequence[BlockRatio]) -> Self:
        """Return the mean of one recipe's newest ratios; `ratios` are disjoint, newest first."""
        used = ratios[:ANCHOR_BLOCKS]
        return cls(used[0].recipe_hash, sum(r.ratio for r in used) / len(used), len(used))

    @property
    def thin(self) -> bool:
        """True if it is the mean of fewer than `ANCHOR_BLOCKS` blocks."""
        return self.blocks < ANCHOR_BLOCKS
