"""Buy again: the chance that a user takes an item of theirs again, learnt from earlier blocks.

Promises: what is learnt comes from pairs as of earlier instants and what followed, all inside the
window; nothing is drawn that another night would draw otherwise, so the scores depend on the data
alone. Where the window is too short for an earlier block with answers, own decayed counts take the
trees' place, and it says so. Behind a user's own items comes decayed popularity, as in
`personal_frequency`.

The window's last blocks of `block_days` are held against what users had before each::

    |------------------------------[-- 3 --)[-- 2 --)[-- 1 --) end
     at least as long as the blocks

Only users who took anything in a block are learnt from: who stays away tells no item from another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.codec import Arrays, pack, unpack
from pipeline.models.contract import HEADER, Capabilities, Recipe, Scorer, Scores, read_header
from pipeline.models.keyed_random import keyed_normal
from pipeline.models.popularity import item_popularity
from pipeline.models.repeat_purchase.booster import EXAMPLES_A_TREE, Trees, grow
from pipeline.models.repeat_purchase.features import FEATURES, item_table, table
from pipeline.models.repeat_purchase.pairs import (
    HALF_LIVES,
    US_PER_DAY,
    Events,
    Pairs,
    answers,
    pairs_at,
)

_BEHIND = 2.0**-10
"""The most popular item as a share of the user's weakest own one, as in `personal_frequency`."""
_ROWS = 450_000
"""Pairs to learn from: pairs not taken again are thinned to stay near it; those taken all count."""
_TINY = np.finfo(np.float32).tiny
_COUNTS = HALF_LIVES.index(90.0)
"""Which decayed counts stand in for the trees."""
_KEY = "learned_repeat|thinning"


@dataclass(frozen=True, eq=False)
class RepeatPurchaseScorer(Scorer):
    """Chances of own items before popularity.

    Attributes
    ----------
    trees
        ``None`` where own decayed counts take their place.
    block_days
        As in the recipe.
    items
        ``(n_items, f)`` float32, what is told of items, see `features`.
    popularity
        ``(n_items,)`` float32 in [0, 1].
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, repeats_only=True
    )

    trees: Trees | None
    block_days: int
    items: NDArray[np.float32]
    popularity: NDArray[np.float32]
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    @property
    def parameters(self) -> int:
        """How many numbers were learnt: those of the trees, and what is told of items."""
        learnt = 0 if self.trees is None else self.trees.parameters
        return learnt + self.items.size + self.popularity.size

    def score(self, history: History) -> Scores:
        """Score each user by their own events in `history`; nothing is kept of anybody."""
        return self.fold_in(history)

    def fold_in(self, history: History) -> Scores:
        """Score each user by their own events in `history`; without any, nothing is invented."""
        self.check(history)
        pairs = pairs_at(Events.of(history), _end(history))
        ends = np.searchsorted(pairs.user, np.arange(history.n_users + 1))
        own = sp.csr_matrix(
            (self._chances(pairs), pairs.item, ends), shape=(history.n_users, history.n_items)
        )
        weakest = np.zeros(history.n_users, np.float32)
        filled = np.flatnonzero(np.diff(ends))
        weakest[filled] = np.minimum.reduceat(own.data, ends[filled]) if len(filled) else 0
        return Scores(
            users=(weakest * np.float32(_BEHIND))[:, None],
            items=self.popularity[:, None],
            sparse_bonus=own,
        )

    def _chances(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return ``(n,)`` float32 > 0, one a pair."""
        if self.trees is None:
            counts: NDArray[np.float32] = np.maximum(pairs.own[_COUNTS], _TINY)
            return counts
        everything = np.ones(len(pairs.user), bool)
        return self.trees.chances(table(pairs, self.items, self.block_days, everything))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a fresh process needs; the trees as UTF-8."""
        return {
            **self.header(),
            **({} if self.trees is None else self.trees.arrays()),
            **pack(self, skip=(*HEADER, "trees")),
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer."""
        values = unpack(cls, arrays, skip=(*HEADER, "trees"))
        return cls(trees=Trees.read(arrays), **values, **read_header(arrays))


class RepeatPurchase(Recipe):
    """Chances of own items by boosted trees (Friedman 2001; Ke et al. 2017), then popularity."""

    capabilities: ClassVar[Capabilities] = RepeatPurchaseScorer.capabilities
    scorer: ClassVar[type[Scorer]] = RepeatPurchaseScorer

    family: Literal["repeat_purchase"] = Field(
        default="repeat_purchase", description="Name of the family."
    )
    block_days: int = Field(
        default=14,
        ge=1,
        le=365,
        description="Days after an instant in which an item counts as taken again.",
    )
    blocks: int = Field(
        default=4,
        ge=1,
        le=26,
        description="Blocks to learn from, back from the end; never more than half of the window.",
    )
    iterations: int = Field(
        default=150, ge=1, le=10_000, description="Number of trees, fewer where examples are few."
    )
    learning_rate: float = Field(
        default=0.05, gt=0, le=1, description="Part of a tree's answer that is taken."
    )
    leaves: int = Field(default=31, ge=2, le=1024, description="Most leaves of a tree.")
    popularity_half_life_days: float = Field(
        default=20.0,
        gt=0,
        le=3650,
        description="Days after which a user counts half in what fills up a list.",
    )

    def peak_bytes(self, history: History) -> int:
        """The events sorted by pair, and what is told of the pairs of one instant."""
        return len(history.item) * 240

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> RepeatPurchaseScorer:
        """Learn from the window's last blocks; nothing is random.

        Raises
        ------
        ResourceError
            LightGBM cannot be loaded.
        """
        events, end = Events.of(history), _end(history)
        rows, again, kept_share = self._examples(events, end, _item_phase(history))
        taken = int(again.sum())
        count = min(self.iterations, taken // EXAMPLES_A_TREE)
        trees = None
        if count and not again.all():
            progress(f"repeat_purchase: {count} trees on {len(again):,} pairs")
            trees = grow(
                rows,
                again,
                kept_share=kept_share,
                iterations=count,
                learning_rate=self.learning_rate,
                leaves=self.leaves,
            )
        else:
            progress(
                f"repeat_purchase: {taken} of {len(again):,} pairs were taken again in earlier "
                f"blocks of {self.block_days} days, too few to learn from: own counts take over"
            )
        popularity = item_popularity(history, self.popularity_half_life_days)
        most = popularity.max(initial=0.0)
        return RepeatPurchaseScorer(
            trees=trees,
            block_days=self.block_days,
            items=item_table(pairs_at(events, end), self.block_days),
            popularity=popularity / most if most > 0 else popularity,
            item_ids=history.item_ids,
            trained_until=history.end,
        )

    def _examples(
        self, events: Events, end: int, item_phase: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
        """Return rows of features, what came of each, and the share kept of those not taken."""
        rows = [np.zeros((0, len(FEATURES)), np.float32)]
        again = [np.zeros(0, bool)]
        share = 1.0
        block = self.block_days * US_PER_DAY
        length = end - int(events.at.min(initial=end))
        for back in range(1, min(self.blocks, length // (2 * block)) + 1):
            cut = end - back * block
            pairs = pairs_at(events, cut)
            labels = answers(events, pairs, cut, cut + block)
            wanted = labels.came[pairs.user]
            if back == 1:  # the other blocks are alike
                share = self._share(wanted, labels.again)
            turn = (_phase(pairs, item_phase) - back * share) % 1.0  # in each block other pairs
            wanted &= labels.again | (turn < share)
            items = item_table(pairs, self.block_days)
            rows.append(table(pairs, items, self.block_days, wanted))
            again.append(labels.again[wanted])
        return np.concatenate(rows), np.concatenate(again), share

    def _share(self, asked: NDArray[np.bool_], again: NDArray[np.bool_]) -> float:
        """Return the share of the pairs not taken again to keep: at least as many as were taken."""
        taken = int((asked & again).sum())
        room = max(_ROWS // self.blocks - taken, taken)
        return min(1.0, room / max(1, int(asked.sum()) - taken))


def _phase(pairs: Pairs, item_phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(n,)`` float64 even in [0, 1), by item and by when the user first had it.

    So a pair that was learnt from is learnt from in the next night, too, whatever its user's name.
    """
    spread = pairs.first_at.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (item_phase[pairs.item] + (spread >> np.uint64(11)) * 2.0**-53) % 1.0


def _item_phase(history: History) -> NDArray[np.float64]:
    """Return ``(n_items,)`` float64 even in [0, 1], by the item's id."""
    draws: NDArray[np.float64] = ndtr(keyed_normal(history.item_ids, 1, key=_KEY)[:, 0])
    return draws.astype(np.float64)


def _end(history: History) -> int:
    return round(history.end.timestamp() * 1e6)
