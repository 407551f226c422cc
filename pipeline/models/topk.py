"""Scores -> lists: exact top-K, blocked, never padded.

Guarantees: a list holds the best `k` items that have a score, fewer if there are fewer, never an
excluded one. The score of a pair is its inner product in float64 plus its cell beside the factors,
rounded to float32 once; the order is score falling, then item index (so item id) rising, at the cut
too. So a list depends neither on the block it was computed in, nor on the number of threads, nor on
the kernels of the BLAS: a fresh process on another machine gives the same bytes.

Links alone take one dense row per thread. With factors, float32 products of a few users and a tile
of items find the candidates, with a margin for their rounding so that none is missed; only these
are scored in float64. Tiles hold items of falling norm, and a user leaves them when ‖u‖·‖v‖ cannot
reach the user's list any more (Teflioudi, Gemulla and Mykytiuk 2015). Beside its arguments and its
result a call holds, per thread, one tile and, if there are factors and links, one block of cells.
The terms beside the factors are summed cell by cell in the order in which they are stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.models.contract import Scores
from pipeline.models.threads import in_threads, thread_count

if TYPE_CHECKING:  # a process that makes no list does not import numba
    from pipeline.models.topk_kernel import Block, Cells, Inputs

_T = TypeVar("_T")
_N = TypeVar("_N", bound=np.generic)
_Ragged = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
"""Lengths of some lists, and the items and scores of all of them."""
_BLOCK_CELLS = 1 << 23
"""Cells of one block: 32 MiB of float32."""
_BLOCK_USERS = 2048
"""Users of a block, at most."""
_LEAST_USERS = 32
"""Users of a block, at least: fewer would read the item factors from memory too often."""
_TILE_ITEMS = 1024
_TILE_USERS = 256
"""Users and items of a product: it stays in the cache of a core."""
_MARGIN = 2.0**-20
"""Relative margin for the roundings of a bound."""
_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Lists:
    """Ragged lists, one per user: best item first, never padded.

    Attributes
    ----------
    indptr
        ``(n_rows + 1,)`` int64: the list of row ``u`` is ``indptr[u]:indptr[u + 1]``.
    item
        ``(n,)`` int32 column of each entry.
    score
        ``(n,)`` float32, falling within a list; equal scores are in the order of columns.
    """

    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    score: NDArray[np.float32]

    @property
    def n_rows(self) -> int:
        """Number of lists, empty ones included."""
        return len(self.indptr) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(n_rows,)`` int64 length of each list."""
        return np.diff(self.indptr)

    @property
    def row(self) -> NDArray[np.int32]:
        """``(n,)`` int32 row of each entry."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int32), self.counts)

    @property
    def rank(self) -> NDArray[np.int64]:
        """``(n,)`` int64 place of each entry in its list, from 0."""
        return np.arange(len(self.item)) - np.repeat(self.indptr[:-1], self.counts)

    def of(self, row: int) -> NDArray[np.int32]:
        """Return the items of one row, best first."""
        return self.item[self.indptr[row] : self.indptr[row + 1]]


def top_k(
    scores: Scores,
    k: int,
    *,
    exclude: sp.csr_matrix | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Lists:
    """Return the best `k` items of each user.

    Parameters
    ----------
    scores
        Scores of ``n_users`` over ``n_items``.
    k
        Longest length of a list, ≥ 1; may exceed the catalogue.
    exclude
        Users × items; its stored cells, whatever their value, never appear.
    allowed
        ``(n_items,)`` bool; items that are ``False`` never appear.

    Raises
    ------
    DataError
        `model.scores_not_finite`: a score is not finite, or too large for float32.
    ValueError
        Shapes do not match, or ``k < 1``.
    """
    n_users, n_items = scores.shape
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    for name, part in (("sparse", scores.sparse_bonus), ("exclude", exclude)):
        if part is not None and part.shape != (n_users, n_items):
            raise ValueError(f"{name} is {part.shape}, the scores are {(n_users, n_items)}")
    if allowed is not None and allowed.shape != (n_items,):
        raise ValueError(f"allowed is {allowed.shape}, the catalogue holds {n_items}")
    inputs, length = _inputs(scores, exclude, allowed), min(k, n_items)
    _refuse(int((~(inputs.limit > 0)).sum()))
    # With factors, a few more entries than needed prove that no other item belongs in a list.
    room = min(length + 8 + length // 8, n_items) if inputs.users.shape[1] else length
    best = _BestItems(inputs, length, room)
    none = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    blocks = zip(none, *_each_block(best.of_block, inputs, room), strict=True)
    counts, item, score = (np.concatenate(parts) for parts in blocks)
    return Lists(np.cumsum(counts), item, score)


def best_scores(scores: Scores) -> NDArray[np.float32]:
    """Return ``(n_users,)`` float32, the first score of each user's `top_k`; 0 without any."""
    best, lists = np.zeros(scores.shape[0], np.float32), top_k(scores, 1)
    best[lists.row] = lists.score
    return best


def pair_scores(
    scores: Scores, user: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores of pairs, exactly as `top_k` gives them.

    Parameters
    ----------
    scores
        Scores of ``n_users`` over ``n_items``.
    user, item
        ``(n,)`` rows and columns of the pairs, users rising.

    Returns
    -------
    ``(n,)`` float32; 0 for a pair without a score.
    """
    from pipeline.models.topk_kernel import score_pairs

    inputs, paired = _inputs(scores, None, None, by_norm=False), np.zeros(len(user), np.float32)
    start = np.searchsorted(user, np.arange(scores.shape[0] + 1))
    columns = item.astype(np.int32)

    def work(part: slice) -> None:
        own = start[part.start : part.stop + 1]
        score_pairs(inputs, part.start, own, columns, paired)

    _each_block(work, inputs, 1)
    return paired


def _each_block(work: Callable[[slice], _T], inputs: Inputs, length: int) -> list[_T]:
    """Call `work` for each block of users, on as many threads as the BLAS has."""
    (n_users, factors), n_items = inputs.users.shape, len(inputs.order)
    # In memory are the lists of a block, and with factors its cells beside them.
    cells = max(1, length, n_items if inputs.linked and factors else 0)
    most = min(_BLOCK_USERS, max(_LEAST_USERS, _BLOCK_CELLS // cells))
    step = max(1, min(most, -(-n_users // thread_count())))
    parts = [slice(at, min(at + step, n_users)) for at in range(0, n_users, step)]
    return list(in_threads(work, parts))


class _BestItems:
    """Computation of the lists of one call, block by block."""

    def __init__(self, inputs: Inputs, length: int, room: int) -> None:
        self._inputs, self._length, self._room = inputs, length, room
        self._buffers = threading.local()
        cells = max(1, _TILE_ITEMS * inputs.users.shape[1])
        self._tile = lru_cache(max(1, _BLOCK_CELLS // cells))(partial(_read_tile, inputs))

    def of_block(self, part: slice) -> _Ragged:
        """Return the lists of a block of users."""
        from pipeline.models.topk_kernel import Block, fill_rows, finish

        inputs, n = self._inputs, part.stop - part.start
        block = Block(
            part.start,
            self._rows(n),
            np.zeros((n, self._room), np.float32),
            np.zeros((n, self._room), np.int32),
            np.zeros(n, np.int64),
        )
        fill_rows(inputs, block)
        live, unsure = np.arange(n), np.zeros(n, np.bool_)
        _refuse(self._offer(block, live, exact=False))
        finish(inputs, block, live, self._length, unsure)
        if unsure.any():
            live = np.flatnonzero(unsure)
            block.entries[live] = 0
            self._offer(block, live, exact=True)
            finish(inputs, block, live, self._length, unsure)
        counts = np.minimum(block.entries, self._length)
        there = np.arange(self._room) < counts[:, None]
        return counts, block.item[there], block.score[there]

    def _offer(self, block: Block, live: NDArray[np.int64], *, exact: bool) -> int:
        """Offer all items, those of the largest norms first; return the number of bad cells."""
        from pipeline.models.topk_kernel import offer_beside

        inputs, bad, everyone = self._inputs, 0, live
        size = inputs.size[block.first : block.first + len(block.entries)]
        left = np.where(size > 0, len(inputs.norm), 0)
        if not inputs.linked:  # their scores are exact, and a bound for the tiles
            bad += offer_beside(inputs, block, everyone, left)
        live = live[size[live] > 0]
        for base in range(0, len(inputs.norm), _TILE_ITEMS):
            reach, worst = size[live] * inputs.norm[base], block.score[live, 0].astype(np.float64)
            stays = block.entries[live] < self._room
            stays |= (1 + _MARGIN) * reach >= worst - _MARGIN * np.abs(worst)
            left[live[~stays]] = base
            live = live[stays]
            if not len(live):
                break
            for start in range(0, len(live), _TILE_USERS):
                part = live[start : start + _TILE_USERS]
                bad += self._offer_tile(block, part, base, exact)
        if inputs.linked:
            bad += offer_beside(inputs, block, everyone, left)
        return bad

    def _offer_tile(self, block: Block, live: NDArray[np.int64], base: int, exact: bool) -> int:
        from pipeline.models.topk_kernel import offer_tile

        product = self._inputs.users[block.first + live] @ self._tile(base).T
        return offer_tile(self._inputs, block, live, product, base, exact)

    def _rows(self, n: int) -> NDArray[np.float32]:
        """Return a thread's array for cells beside the factors, if there are both."""
        if not (self._inputs.linked and self._inputs.users.shape[1]):
            return np.empty((0, 0), np.float32)
        # A new array for each block would be paged in each time.
        if not hasattr(self._buffers, "rows"):
            self._buffers.rows = np.empty((n, len(self._inputs.order)), np.float32)
        rows: NDArray[np.float32] = self._buffers.rows[:n]
        return rows


def _read_tile(inputs: Inputs, base: int) -> NDArray[np.float32]:
    """Return the factors of the items from a position on."""
    return inputs.items[inputs.order[base : min(base + _TILE_ITEMS, len(inputs.norm))]]


def _inputs(
    scores: Scores,
    exclude: sp.csr_matrix | None,
    allowed: NDArray[np.bool_] | None,
    *,
    by_norm: bool = True,
) -> Inputs:
    """Return the arrays of the compiled passes."""
    from pipeline.models.topk_kernel import Inputs

    n_users, n_items = scores.shape
    users = np.zeros((n_users, 0), np.float32) if scores.users is None else scores.users
    items = np.zeros((n_items, 0), np.float32) if scores.items is None else scores.items
    size, norm = _norms(users), _norms(items)
    similarity, own = scores.item_similarity, scores.sparse_bonus
    if own is not None and not own.has_canonical_format:
        own = own.copy()  # summing works in place, on a matrix of the caller
        own.sum_duplicates()
    if exclude is not None and not exclude.has_sorted_indices:
        exclude = exclude.sorted_indices()
    open_items = np.ones(n_items, np.bool_) if allowed is None else allowed
    # Without factors and forbidden items, positions are items, which saves looking them up.
    natural = allowed is None and not (by_norm and users.shape[1])
    order = place = np.arange(n_items, dtype=np.int32)
    if not natural:
        order = np.argsort(np.where(open_items, -norm, np.inf), kind="stable").astype(np.int32)
        place = np.empty_like(order)
        place[order] = np.arange(n_items, dtype=np.int32)
    dense = np.empty((0, 0), np.float32)
    if similarity is not None and _nearly_dense(similarity, scores.user_history):
        dense = similarity.toarray() if natural else similarity[:, order].toarray()
    return Inputs(
        users=_fixed(users),
        items=_fixed(items),
        size=_fixed(size),
        # A cell and the largest product must stay below half of the largest number.
        limit=_fixed(np.maximum(_LARGEST / 2 - size * norm.max(initial=0), -1).astype(np.float32)),
        history=_cells(scores.user_history, n_users),
        links=_cells(similarity, 0),
        dense=_fixed(dense),
        own=_cells(own, n_users),
        gone=_cells(exclude, n_users),
        order=_fixed(order),
        place=_fixed(place),
        norm=_fixed(norm[order[: int(open_items.sum())]]),
        linked=similarity is not None,
        natural=natural,
    )


def _cells(matrix: sp.csr_matrix | None, rows: int) -> Cells:
    """Return the arrays of a matrix, or of one without cells."""
    from pipeline.models.topk_kernel import Cells

    if matrix is None:
        matrix = sp.csr_matrix((rows, 1), dtype=np.float32)
    return Cells(
        _fixed(matrix.indptr.astype(np.int64)),
        _fixed(matrix.indices.astype(np.int32, copy=False)),
        _fixed(matrix.data.astype(np.float32, copy=False)),
    )


def _fixed(array: NDArray[_N]) -> NDArray[_N]:
    """Return a view that cannot be written: the passes are compiled for these alone."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _norms(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean norm of each row, in float64."""
    squares: NDArray[np.float64] = np.einsum("rf,rf->r", factors, factors, dtype=np.float64)
    return np.sqrt(squares)


def _nearly_dense(links: sp.csr_matrix, history: sp.csr_matrix) -> bool:
    """Return True if writing the links out takes little memory, and less time than it saves."""
    return bool(4 * links.nnz > np.prod(links.shape) and history.nnz > links.shape[0]) and bool(
        links.has_canonical_format
    )


def _refuse(count: int) -> None:
    if count:
        raise DataError(
            "model.scores_not_finite",
            "scores of the model are not finite, or too large for float32; train it again with "
            "stronger regularization",
            where="scores",
            count=count,
        )
