"""Item-item links: the scores that one item of a user adds to others, the strongest of each item.

Guarantees: the full item-item product is never in memory, only one of its rows; the cut is
exact and ties fall to the lower index, so links depend on the data alone, not on blocks or threads;
sums are taken in float64 and rounded to float32 before the cut, so that values that differ by
rounding only are ties. No user is stored: a user's scores are their own history times links.

An item has no link to itself: repeats have families of their own, see `personal_frequency`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import Capabilities, HalfLife, Recipe, Scorer, Scores, Span
from pipeline.models.sparse_rows import csr_from_pairs, row_extremes
from pipeline.models.threads import in_threads

PRESENCE_BYTES = 52
"""Bytes per event that `decayed_presence` needs at its peak."""
_BLOCK_CELLS = 1 << 18
"""Links of a block of items, at most, unless one item has more."""


@dataclass(frozen=True, eq=False)
class ItemItemScorer(Scorer):
    """Links from each item to others.

    Attributes
    ----------
    item_similarity
        Items × items CSR float32: the row's item adds this to the column's score.
    profile_half_life_days
        Days after which an item of the user counts half; ``None`` for never.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True)

    item_similarity: sp.csr_matrix
    profile_half_life_days: float | None

    def _fold_in(self, history: History) -> Scores:
        """Score users by their items, the strongest as 1; a user without items gets no list."""
        profile = decayed_presence(history, self.profile_half_life_days)
        # One factor per user changes no list; without it, the decay of a long absence would round
        # all scores to 0.
        most = row_extremes(np.maximum, profile, empty=1.0)
        profile.data /= np.repeat(most, np.diff(profile.indptr))
        return Scores(user_history=profile.astype(np.float32), item_similarity=self.item_similarity)


class ItemItemRecipe(Recipe):
    """Fields and steps that all families of links share."""

    scorer: ClassVar[type[Scorer]] = ItemItemScorer
    space: ClassVar[Mapping[str, Span]] = {
        "neighbours": Span((50.0, 100.0, 200.0, 400.0), 20.0, 1000.0),
        "half_life_days": Span((7.0, 15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
        "profile_half_life_days": Span((30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
    }

    neighbours: int = Field(
        default=200, ge=1, le=10_000, description="Links kept per item: the strongest."
    )
    half_life_days: HalfLife | None = Field(
        default=30.0, description="Days after which an item counts half in training; null: never."
    )
    profile_half_life_days: HalfLife | None = Field(
        default=120.0, description="Days after which an item counts half in scores; null: never."
    )

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of the sorted events, and the product.

        The product holds cells in both directions. While blocks are joined, links are held twice;
        what else threads take for their blocks was measured, as much again.
        """
        at_work = self._links(history) * 32
        return max(len(history.item) * PRESENCE_BYTES, int(history.seen.nnz) * 24 + at_work)

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the links: a value and a column each."""
        return self._links(history) * 8

    def _links(self, history: History) -> int:
        cells = history.seen
        others = np.repeat(np.diff(cells.indptr) - 1, np.diff(cells.indptr))
        reached = np.bincount(cells.indices, others, history.n_items)
        return int(np.minimum(reached, min(self.neighbours, history.n_items)).sum())

    def cpu_seconds(self, history: History) -> float:
        """Estimate the product, which pairs all items of a user."""
        return float(np.square(np.diff(history.seen.indptr).astype(np.float64)).sum()) * 6e-9

    def cells(self, history: History) -> sp.csr_matrix:
        """Return the training matrix: `decayed_presence` in units of its mean without decay."""
        cells = decayed_presence(history, self.half_life_days)
        if cells.nnz:
            cells.data /= decayed_presence(history, None).data.mean()
        return cells

    def linked(self, history: History, links: sp.csr_matrix) -> ItemItemScorer:
        """Return the scorer of links.

        Parameters
        ----------
        history
            The training window.
        links
            Items × items CSR float32.
        """
        return ItemItemScorer(
            item_similarity=links,
            profile_half_life_days=self.profile_half_life_days,
            **self.window(history),
        )


def decayed_presence(history: History, half_life_days: float | None) -> sp.csr_matrix:
    """Return the items of each user: the largest weight · 0.5^(age / half-life) of any event.

    Unlike `History.confidence` it is a maximum, not a sum: ten purchases of an item predict *other*
    items hardly better than one.

    Parameters
    ----------
    history
        Events of some users.
    half_life_days
        ``None`` means no decay.

    Returns
    -------
    Users × items CSR float64, > 0; pairs whose weights sum to 0 or less (returned) are absent.
    """
    value = history.weight.astype(np.float64)
    if half_life_days is not None:
        value *= np.exp2(history.age_days.astype(np.float64) / -half_life_days)
    pair = history.user * np.int64(history.n_items) + history.item  # may exceed int32
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    first = np.flatnonzero(np.diff(pair, prepend=-1))
    shape = (history.n_users, history.n_items)
    if not len(first):  # `reduceat` needs an element
        return sp.csr_matrix(shape, dtype=np.float64)
    value = np.maximum.reduceat(value[order], first)
    kept = (np.add.reduceat(history.weight[order], first, dtype=np.float64) > 0) & (value > 0)
    return csr_from_pairs(pair[first[kept]], value[kept], shape)


def topk_rows_product(
    left: sp.csr_matrix,
    right: sp.csr_matrix,
    neighbours: int,
    progress: Progress,
    norms: NDArray[np.float64] | None = None,
    shrinkage: float = 0.0,
) -> sp.csr_matrix:
    """Return the largest cells in each row of ``left @ right``, without its diagonal.

    Parameters
    ----------
    left, right
        Items × users and users × items CSR float64, ≥ 0.
    neighbours
        Cells of a row that are kept, at most.
    progress
        Receives one line per block.
    norms, shrinkage
        ``(n_items,)`` float64: before the cut, each cell is divided by the product of the norms of
        its row and column, plus `shrinkage`; ``None``: by nothing.

    Returns
    -------
    Items × items CSR float32, columns sorted, no cell of 0.
    """
    # Only a process that trains links imports numba.
    from pipeline.models.link_kernel import largest_cells

    n_items = left.shape[0]
    keep = min(neighbours, n_items)
    cells = (left.indptr, left.indices, left.data, right.indptr, right.indices, right.data)
    lengths = np.zeros(0) if norms is None else norms
    step = max(1, _BLOCK_CELLS // keep)
    blocks = [slice(at, min(at + step, n_items)) for at in range(0, n_items, step)]

    def links(rows: slice) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        n, column, value = largest_cells(*cells, lengths, shrinkage, keep, rows.start, rows.stop)
        filled = np.arange(keep) < n[:, None]
        return n, column[filled], value[filled]

    parts = [(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))]
    for rows, part in zip(blocks, in_threads(links, blocks), strict=True):
        progress(f"links of items {rows.start + 1} to {rows.stop} of {n_items}")
        parts.append(part)
    count, column, value = (np.concatenate(of) for of in zip(*parts, strict=True))
    whole = (value, column, np.cumsum(count))
    return sp.csr_matrix(whole, shape=(n_items, right.shape[1]))
