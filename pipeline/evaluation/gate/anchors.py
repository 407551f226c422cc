"""Baseline ratios per block, and the anchor that a champion was chosen with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from pipeline.base import Interval

ANCHOR_BLOCKS: Final = 3


@dataclass(frozen=True)
class BlockRatio:
    """A recipe's mean over the best baseline's on one block.

    Attributes
    ----------
    se
        Standard error of `ratio`.
    accepted
        The recipe went live that night.
    """

    recipe_hash: str
    block: Interval
    ratio: float
    se: float
    accepted: bool = False


@dataclass(frozen=True)
class Anchor:
    """Baseline ratio that the champion was chosen with; refreshes are held against it."""

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
        """It rests on fewer blocks than it should."""
        return self.blocks < ANCHOR_BLOCKS
