"""Repeat purchase: the chance that a user takes an own item again, learnt from earlier blocks.

Guarantees: examples come from pairs as of earlier instants and the events that followed, all inside
the window; no draw changes from one nightly run to the next, so the scores depend on the data
alone. If the window is too short for an earlier block with labels, own decayed counts replace the
trees, and a progress line reports it. Behind a user's own items comes decayed popularity, as in
`personal_frequency`.

Each of the window's last blocks of `block_days` holds the labels of the pairs before it::

    |------------------------------[-- 3 --)[-- 2 --)[-- 1 --) end
     at least as long as the blocks

Only users who took any item in a block are examples: an absent user does not separate items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Recipe, Scorer, Scores
from pipeline.models.keyed_random import keyed_normal
from pipeline.models.popularity import own_before_popularity, relative_popularity
from pipeline.models.repeat_purchase.booster import EXAMPLES_A_TREE, Trees, grow
from pipeline.models.repeat_purchase.features import FEATURES, item_table, table
from pipeline.models.repeat_purchase.pairs import US_PER_DAY, Events, Pairs, pairs_at, repurchases

_ROWS = 450_000
"""Number of examples to learn from, about: all pairs taken again, and a share of the others."""
_TINY = np.finfo(np.float32).tiny
_KEY = "learned_repeat|thinning"


@dataclass(frozen=True, eq=False)
class RepeatPurchaseScorer(Scorer):
    """Chances of own items before popularity.

    Attributes
    ----------
    trees
        ``(n_bytes,)`` uint8, the text of the trees in UTF-8; ``None`` if own decayed counts replace
        them.
    line
        ``(2,)`` float64, see `Trees`; ``None`` without trees.
    block_days
        As in the recipe.
    items
        ``(n_items, f)`` float32, features of items, see `features`.
    popularity
        ``(n_items,)`` float32 in [0, 1].
    """

    declared: ClassVar[Capabilities] = Capabilities(
        fold_in=True, deterministic=True, repeats_only=True
    )

    trees: NDArray[np.uint8] | None
    line: NDArray[np.float64] | None
    block_days: int
    items: NDArray[np.float32]
    popularity: NDArray[np.float32]

    @property
    def booster(self) -> Trees | None:
        """Trees; ``None`` if own decayed counts replace them."""
        if self.trees is None or self.line is None:
            return None
        return Trees(self.trees.tobytes().decode(), self.line)

    @property
    def parameters(self) -> int:
        """Number of learnt numbers: those of the trees, and the features of items."""
        learnt = 0 if (trees := self.booster) is None else trees.parameters
        return learnt + self.items.size + self.popularity.size

    def _fold_in(self, history: History) -> Scores:
        """Score each user by their own events in `history`; no list without events."""
        pairs = pairs_at(Events.of(history), _end(history))
        ends = np.searchsorted(pairs.user, np.arange(history.n_users + 1))
        cells = (self._chances(pairs), pairs.item, ends)
        own = sp.csr_matrix(cells, shape=(history.n_users, history.n_items))
        return own_before_popularity(own, self.popularity, without=0.0)

    def _chances(self, pairs: Pairs) -> NDArray[np.float32]:
        """Return ``(n,)`` float32 > 0, one per pair."""
        if (trees := self.booster) is None:
            counts: NDArray[np.float32] = np.maximum(pairs.counts, _TINY)
            return counts
        everything = np.ones(len(pairs.user), bool)
        return trees.chances(table(pairs, self.items, self.block_days, everything))


class RepeatPurchase(Recipe):
    """Chances of own items by boosted trees (Friedman 2001; Ke et al. 2017), then popularity."""

    scorer: ClassVar[type[Scorer]] = RepeatPurchaseScorer

    family: Literal["repeat_purchase"] = Field(default="repeat_purchase", description=FAMILY)
    block_days: int = Field(
        default=14, ge=1, le=365, description="Days in which an item counts as taken again."
    )
    blocks: int = Field(
        default=4, ge=1, le=26, description="Blocks to learn from, at most half of the window."
    )
    iterations: int = Field(
        default=150, ge=1, le=10_000, description="Number of trees; fewer if examples are few."
    )
    learning_rate: float = Field(
        default=0.05, gt=0, le=1, description="Factor on the contribution of each tree."
    )
    leaves: int = Field(default=31, ge=2, le=1024, description="Leaves of a tree, at most.")
    popularity_half_life_days: HalfLife = Field(
        default=20.0, description="Days after which a user counts half in the popularity of items."
    )

    def peak_bytes(self, history: History) -> int:
        """Estimate the events sorted by pair, and the features of the pairs of one instant."""
        return len(history.item) * 240

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Learn from the window's last blocks; nothing is random.

        Raises
        ------
        ResourceError
            `extra.lightgbm_missing` or `extra.lightgbm_broken`: LightGBM cannot be loaded.
        """
        events, end = Events.of(history), _end(history)
        rows, again, kept_share = self._examples(events, end, _item_phase(history))
        taken = int(again.sum())
        count = min(self.iterations, taken // EXAMPLES_A_TREE)
        trees = None
        if count and not again.all():  # log loss needs both labels
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
                f"blocks of {self.block_days} days, too few for trees: own counts replace them"
            )
        return RepeatPurchaseScorer(
            trees=None if trees is None else np.frombuffer(trees.text.encode(), np.uint8),
            line=None if trees is None else trees.line,
            block_days=self.block_days,
            items=item_table(pairs_at(events, end), self.block_days),
            popularity=relative_popularity(history, self.popularity_half_life_days),
            **self.window(history),
        )

    def _examples(
        self, events: Events, end: int, item_phase: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
        """Return rows of features, the label of each, and the share kept of pairs not taken."""
        rows = [np.zeros((0, len(FEATURES)), np.float32)]
        again = [np.zeros(0, bool)]
        share = 1.0
        block = self.block_days * US_PER_DAY
        length = end - int(events.at.min(initial=end))
        # At most half of the window is labels, so that pairs have at least as long a history.
        for back in range(1, min(self.blocks, length // (2 * block)) + 1):
            cut = end - back * block
            pairs = pairs_at(events, cut)
            taken, came = repurchases(events, pairs, cut, cut + block)
            wanted = came[pairs.user]
            if back == 1:  # the other blocks have about as many pairs
                share = self._share(wanted, taken)
            turn = (_phase(pairs, item_phase) - back * share) % 1.0  # other pairs in each block
            wanted &= taken | (turn < share)
            items = item_table(pairs, self.block_days)
            rows.append(table(pairs, items, self.block_days, wanted))
            again.append(taken[wanted])
        return np.concatenate(rows), np.concatenate(again), share

    def _share(self, wanted: NDArray[np.bool_], again: NDArray[np.bool_]) -> float:
        """Return the share of pairs not taken again to keep: at least as many as were taken."""
        taken = int((wanted & again).sum())
        room = max(_ROWS // self.blocks - taken, taken)
        return min(1.0, room / max(1, int(wanted.sum()) - taken))


def _phase(pairs: Pairs, item_phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(n,)`` float64, uniform in [0, 1), by item and by the user's first event of it."""
    # So a pair that is an example in one nightly run is one in the next, under any user id.
    spread = pairs.first_at.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (item_phase[pairs.item] + (spread >> np.uint64(11)) * 2.0**-53) % 1.0


def _item_phase(history: History) -> NDArray[np.float64]:
    """Return ``(n_items,)`` float64, uniform in [0, 1], by the item's id."""
    return np.asarray(ndtr(keyed_normal(history.item_ids, 1, key=_KEY)[:, 0]), np.float64)


def _end(history: History) -> int:
    return round(history.end.timestamp() * 1e6)
