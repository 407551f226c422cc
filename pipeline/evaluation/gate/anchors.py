"""Levels of recipes per block, and the anchor of a champion: its baseline ratio when it was chosen.

Guarantees: an anchor is the mean of the newest blocks, at most `ANCHOR_BLOCKS` of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Self

from pydantic import Field

from pipeline.base import Interval

ANCHOR_BLOCKS: Final = 3
"""Number of disjoint blocks that an anchor is the mean of, at most."""


@dataclass(frozen=True)
class BlockLevel:
    """A recipe on one block: its mean, and the ratio to the mean of the best baseline.

    Attributes
    ----------
    n, mean, sd
        Number of users, and mean and SD of their values.
    ratio, se
        Baseline ratio and its standard error; None if the best baseline has no hit.
    accepted
        Its run was accepted. Later events decide that, so no decision contains it:
        `build_gate_history` sets it.
    """

    recipe_hash: str
    block: Interval
    n: int
    mean: float
    sd: float
    ratio: float | None
    se: float | None
    accepted: Annotated[bool, Field(exclude=True)] = False

    @property
    def relative_error(self) -> float:
        """Standard error of the mean, relative to it; infinite for a mean of 0."""
        return self.sd / (math.sqrt(self.n) * self.mean) if self.n and self.mean else math.inf


@dataclass(frozen=True)
class Anchor:
    """Baseline ratio of a champion when it was chosen, over `blocks` blocks; bound of a refresh.

    Attributes
    ----------
    se
        Standard error of `ratio`.
    """

    recipe_hash: str
    ratio: float
    blocks: int
    se: float = 0.0

    @classmethod
    def over(cls, levels: Sequence[BlockLevel]) -> Self | None:
        """Return the mean of one recipe's newest ratios; `levels` are disjoint, newest first."""
        # No ratio can be compared with one of 0, so a block without a hit sets no anchor.
        used = [(x.ratio, x.se) for x in levels if x.ratio and x.se is not None]
        used = used[:ANCHOR_BLOCKS]
        if not used:
            return None
        se = math.sqrt(sum(se**2 for _, se in used)) / len(used)
        return cls(levels[0].recipe_hash, sum(r for r, _ in used) / len(used), len(used), se)

    @property
    def thin(self) -> bool:
        """True if it is the mean of fewer than `ANCHOR_BLOCKS` blocks."""
        return self.blocks < ANCHOR_BLOCKS


def disjoint(levels: Iterable[BlockLevel], recipe_hash: str) -> tuple[BlockLevel, ...]:
    """Return a recipe's blocks that do not overlap, newest first, starting with the newest.

    Runs a day apart share nearly all of their holdout: together they are one piece of evidence.

    Parameters
    ----------
    levels
        Blocks of any recipes, in any order.
    recipe_hash
        Recipe to select.

    Returns
    -------
    tuple
        Levels of disjoint blocks, newest first.
    """
    own = {level for level in levels if level.recipe_hash == recipe_hash}
    kept: list[BlockLevel] = []
    # Of equal blocks the accepted one comes first, since True sorts after False.
    for level in sorted(
        own, key=lambda x: (x.block.end, x.block.start, x.accepted, x.mean), reverse=True
    ):
        if not kept or level.block.end <= kept[-1].block.start:
            kept.append(level)
    return tuple(kept)
