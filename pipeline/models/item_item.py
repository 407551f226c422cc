"""Links between items: what having one item says of another, cut to the strongest of each.

Promises: the full item-item product never stands in memory, only a block of its rows; the cut is
exact, ties fall to the lower index, so links depend on the data alone, not on blocks or threads;
sums are taken in float64 and rounded to float32 before the cut, so that what is equal but for
rounding is a tie. Nothing is kept of anybody: a user's scores are their own history times links.

An item has no link to itself. What having had it says of having it again is a question of its own,
with a family of its own (`personal_frequency`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import (
    Capabilities,
    Recipe,
    Scorer,
    Scores,
    Span,
)

Rescale = Callable[[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]], NDArray[np.float64]]
"""Takes rows, columns and values of some cells of a product, returns other values."""
_BLOCK_CELLS = 1 << 20
"""Cells of a block of the item-item product, at most, unless one row has more."""
HALF_LIVES = Span((7.0, 15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0)
PROFILE_HALF_LIVES = Span((30.0, 60.0, 120.0, 365.0), 3.0, 1000.0)
NEIGHBOURS = Span((50.0, 100.0, 200.0, 400.0), 20.0, 1000.0)


@dataclass(frozen=True, eq=False)
class ItemItemScorer(Scorer):
    """Where each item leads.

    Attributes
    ----------
    item_similarity
        Items × items CSR float32: what having the row's item adds to the column's score.
    profile_half_life_days
        Days after which something that a user had counts half; ``None`` for never.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=True)

    item_similarity: sp.csr_matrix
    profile_half_life_days: float | None
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    def score(self, history: History) -> Scores:
        """Score each user by their own events in `history`; nothing is kept of anybody."""
        return self.fold_in(history)

    def fold_in(self, history: History) -> Scores:
        """Score each user by what they had, the strongest of it as 1; without any: no list."""
        self.check(history)
        profile = decayed_presence(history, self.profile_half_life_days)
        # A factor a user changes no list; it keeps those who were long away above rounding to 0.
        most = np.ones(history.n_users)
        filled = np.flatnonzero(np.diff(profile.indptr))
        most[filled] = np.maximum.reduceat(profile.data, profile.indptr[filled])
        profile.data /= np.repeat(most, np.diff(profile.indptr))
        return Scores(user_history=profile.astype(np.float32), item_similarity=self.item_similarity)


class ItemItemRecipe(Recipe):
    """What all families of links have in common."""

    capabilities: ClassVar[Capabilities] = ItemItemScorer.capabilities
    scorer: ClassVar[type[Scorer]] = ItemItemScorer

    neighbours: int = Field(
        default=200, ge=1, le=10_000, description="Links that are kept of an item: the strongest."
    )
    half_life_days: float | None = Field(
        default=30.0,
        gt=0,
        le=3650,
        description="Days after which somebody's having had an item counts half in what is learnt, "
        "if ever.",
    )
    profile_half_life_days: float | None = Field(
        default=120.0,
        gt=0,
        le=3650,
        description="Days after which an item counts half in the history that a user is scored by, "
        "if ever.",
    )

    def peak_bytes(self, history: History) -> int:
        """The events while they are sorted; or cells in both directions, a block, and the links."""
        links = self._links(history)
        at_work = max(links * 20, links * 8 + _BLOCK_CELLS * 56)
        return max(decayed_presence_bytes(history), int(history.seen.nnz) * 24 + at_work)

    def fitted_bytes(self, history: History) -> int:
        """The links: a number and where it leads."""
        return self._links(history) * 8

    def _links(self, history: History) -> int:
        cells = history.seen
        others = np.repeat(np.diff(cells.indptr) - 1, np.diff(cells.indptr))
        reached = np.bincount(cells.indices, others, history.n_items)
        return int(np.minimum(reached, min(self.neighbours, history.n_items)).sum())

    def cells(self, history: History) -> sp.csr_matrix:
        """Return what is learnt from: `decayed_presence`, in units of its mean without decay."""
        cells, undecayed = (
            decayed_presence(history, self.half_life_days),
            decayed_presence(history, None),
        )
        if cells.nnz:
            cells.data /= undecayed.data.mean()
        return cells

    def linked(self, history: History, links: sp.csr_matrix) -> ItemItemScorer:
        """Return the scorer of some links that were learnt from `history`."""
        return ItemItemScorer(
            item_similarity=links,
            profile_half_life_days=self.profile_half_life_days,
            item_ids=history.item_ids,
            trained_until=history.end,
        )


def decayed_presence(history: History, half_life_days: float | None) -> sp.csr_matrix:
    """Return what each user has had: the largest weight · 0.5^(age / half-life) of any event.

    Unlike `History.confidence` it does not add up: to have bought something ten times says little
    more of *other* items than to have bought it once.

    Parameters
    ----------
    half_life_days
        ``None`` means no decay.

    Returns
    -------
    Users × items CSR float64, > 0; what was taken back altogether is absent.
    """
    value = history.weight.astype(np.float64)
    if half_life_days is not None:
        value *= np.exp2(history.age_days.astype(np.float64) / -half_life_days)
    cell = history.user * np.int64(history.n_items) + history.item
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    if not len(first):
        return sp.csr_matrix((history.n_users, history.n_items), dtype=np.float64)
    value = np.maximum.reduceat(value[order], first)
    kept = (np.add.reduceat(history.weight[order], first, dtype=np.float64) > 0) & (value > 0)
    row, column = np.divmod(cell[first[kept]], history.n_items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=history.n_users))])
    return sp.csr_matrix((value[kept], column, indptr), shape=(history.n_users, history.n_items))


def decayed_presence_bytes(history: History) -> int:
    """Estimate the bytes that `decayed_presence` needs at its peak."""
    return len(history.item) * 52


def topk_rows_product(
    left: sp.csr_matrix,
    right: sp.csr_matrix,
    neighbours: int,
    progress: Progress,
    rescale: Rescale | None = None,
) -> sp.csr_matrix:
    """Return the largest cells in each row of ``left @ right``, but for the diagonal.

    Parameters
    ----------
    left, right
        Items × users and users × items CSR float64.
    neighbours
        Cells of a row that are kept, at most.
    rescale
        Applied to the cells before the cut.

    Returns
    -------
    Items × items CSR float32, columns sorted, no cell of 0.
    """
    n_items = left.shape[0]
    parts = []
    for rows in _row_blocks(left, right):
        progress(f"links of items {rows.start + 1} to {rows.stop} of {n_items}")
        block = (left[rows] @ right).tocsr()
        row = np.repeat(np.arange(rows.start, rows.stop, dtype=np.int32), np.diff(block.indptr))
        if rescale is not None:
            block.data = rescale(row, block.indices, block.data)
        block.data = block.data.astype(np.float32)
        block.data[row == block.indices] = 0.0
        parts.append(keep_topk_per_row(block, neighbours))
    return sp.vstack(parts, format="csr")


def _row_blocks(left: sp.csr_matrix, right: sp.csr_matrix) -> Iterator[slice]:
    """Yield rows of ``left @ right`` whose cells stay within a bound, whatever the catalogue."""
    reach = np.diff(right.indptr).astype(np.float64)
    ones = sp.csr_matrix((np.ones(left.nnz), left.indices, left.indptr), shape=left.shape)
    total = np.cumsum(np.minimum(ones @ reach, right.shape[1]))
    start, done = 0, 0.0
    while start < len(total):
        stop = max(start + 1, int(np.searchsorted(total, done + _BLOCK_CELLS, side="right")))
        yield slice(start, stop)
        start, done = stop, float(total[stop - 1])


def keep_topk_per_row(cells: sp.csr_matrix, most: int) -> sp.csr_matrix:
    """Return the `most` cells of each row that are largest by magnitude, none of them 0.

    Of equal ones at the cut the lower columns stay. Columns of the result are sorted.
    """
    size = np.abs(cells.data)
    keep = size > 0
    for row in np.flatnonzero(np.diff(cells.indptr) > most):
        own = slice(cells.indptr[row], cells.indptr[row + 1])
        mine = size[own]
        last = np.partition(mine, len(mine) - most)[len(mine) - most]
        chosen = mine > last
        tied = np.flatnonzero(mine == last)
        free = most - int(chosen.sum())
        if free < len(tied):
            tied = tied[np.argpartition(cells.indices[own][tied], free - 1)[:free]]
        chosen[tied] = True
        keep[own] &= chosen
    counted = np.concatenate([[0], np.cumsum(keep)])[cells.indptr]
    kept = sp.csr_matrix((cells.data[keep], cells.indices[keep], counted), shape=cells.shape)
    kept.sort_indices()
    return kept
