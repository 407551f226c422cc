"""Compiled passes over users, items and links for `models.topk` (numba).

Guarantees: the score of a pair is its inner product in float64 plus its cell beside the factors,
rounded to float32 once. The inner product is summed pairwise as `numpy.sum` does, the cells beside
it in the order in which they are stored; a bound may skip a pair only if its score cannot be among
the best, so no bound changes a list.

Users, items and positions are counted within the arrays of `Inputs`. A *position* is the place of
an item in `Inputs.order`: items whose norms fall, then the items that no list may hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from pipeline.models.compiled import compiled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

ROUNDING = 2.0**-24
"""Largest relative error of one rounding to float32."""
_SLACK = 2.0**-22
"""Relative margin for a rounding to float32 of a bound and of a score."""
_SMALLEST = 2.0**-126
_CHUNK = 64
"""Scores compared at a time; only a chunk with a candidate is read one by one."""


class Cells(NamedTuple):
    """Arrays of a CSR matrix; row r has the cells ``start[r]`` to ``start[r + 1]``."""

    start: I64
    column: I32
    value: F32


class Inputs(NamedTuple):
    """Arrays of one call, all of them C-contiguous; an absent part has no cells.

    Attributes
    ----------
    users, items
        ``(n_users, f)`` and ``(n_items, f)`` factors; f is 0 without any.
    size
        ``(n_users,)`` norms of the users' factors.
    limit
        ``(n_users,)`` magnitude that a cell beside the factors must stay below.
    history, links
        The users' histories, and the links.
    dense
        All links as ``(m, n_items)`` over positions, or no row.
    own, gone
        Sparse term and excluded items, columns sorted.
    order, place
        ``(n_items,)`` item of each position, and position of each item.
    norm
        ``(n_open,)`` norms of the items' factors at the positions that lists may hold, falling.
    linked
        There are links, so cells of 0 have no score; else every stored cell has one.
    natural
        Positions are items.
    """

    users: F32
    items: F32
    size: F64
    limit: F32
    history: Cells
    links: Cells
    dense: F32
    own: Cells
    gone: Cells
    order: I32
    place: I32
    norm: F64
    linked: bool
    natural: bool


class Block(NamedTuple):
    """Consecutive users, and their best items so far as heaps with the worst item first.

    Attributes
    ----------
    first
        User of the first row.
    rows
        ``(n, n_items)`` float32 cells beside the factors, over positions, see `fill_rows`; no row
        without links, and without factors, where each user needs one only once.
    score, item
        ``(n, room)`` float32 and int32.
    entries
        ``(n,)`` number of entries of each heap.
    """

    first: int
    rows: F32
    score: F32
    item: I32
    entries: I64


def _array(kind: Any, dimensions: int = 1, *, readonly: bool = True) -> Any:
    return types.Array(kind, dimensions, "C", readonly=readonly)


_f32, _f64, _i32, _i64 = map(_array, (types.float32, types.float64, types.int32, types.int64))
_table = _array(types.float32, 2)
_named: Any = types.NamedTuple  # numba does not type it
_cells = _named((_i64, _i32, _f32), Cells)
_types = (_table, _table, _f64, _f32, _cells, _cells, _table, _cells, _cells, _i32, _i32, _f64)
_inputs = _named((*_types, types.boolean, types.boolean), Inputs)
_row = _array(types.float32, readonly=False)
_rows = _array(types.float32, 2, readonly=False)
_flags = _array(types.boolean, readonly=False)
_block = _named(
    (
        *(types.int64, _rows, _rows),
        *(_array(types.int32, 2, readonly=False), _array(types.int64, readonly=False)),
    ),
    Block,
)


@compiled()
def _sum_few(terms: F64) -> float:
    """Return the sum of at most 128 terms."""
    n, total = len(terms), 0.0
    if n >= 8:
        a = b = c = d = e = f = g = h = 0.0
        for at in range(n // 8):
            part = terms[8 * at : 8 * at + 8]
            a, b, c, d = a + part[0], b + part[1], c + part[2], d + part[3]
            e, f, g, h = e + part[4], f + part[5], g + part[6], h + part[7]
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for at in range(n - n % 8 if n >= 8 else 0, n):
        total += terms[at]
    return total


@compiled()
def _sum(terms: F64) -> float:
    """Return a sum, in halves as `numpy.sum` computes it."""
    if len(terms) <= 128:
        return _sum_few(terms)
    # Without recursion, whose code numba cannot read back from its cache: `stop` is the end of each
    # open part, `left` the sum of its left half once `right` is True.
    stop, left = np.empty(64, np.int64), np.empty(64, np.float64)
    right = np.zeros(64, np.bool_)
    at, level, stop[0] = 0, 0, len(terms)
    while True:
        size = stop[level] - at
        if size > 128:
            level += 1
            stop[level], right[level] = at + size // 2 - size // 2 % 8, False
            continue
        total = _sum_few(terms[at : stop[level]])
        at = stop[level]
        while level > 0 and right[level]:
            total = left[level] + total
            level -= 1
        if level == 0:
            return total
        left[level], right[level], stop[level] = total, True, stop[level - 1]


@compiled()
def _score(inputs: Inputs, user: int, item: int, beside: np.float32, terms: F64) -> np.float32:
    """Return the score of a pair from its cell beside the factors; overwrites `terms`."""
    left, right = inputs.users[user], inputs.items[item]
    for at in range(len(terms)):
        terms[at] = np.float64(left[at]) * np.float64(right[at])
    return np.float32(_sum(terms) + np.float64(beside))


@compiled()
def _find(cells: Cells, user: int, item: int) -> int:
    """Return the place of an item in a user's sorted cells, -1 if it is not there."""
    low, high = cells.start[user], cells.start[user + 1]
    while low < high:
        middle = (low + high) >> 1
        if cells.column[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low if low < cells.start[user + 1] and cells.column[low] == item else -1


@compiled()
def _worse(score: np.float32, item: int, other_score: np.float32, other_item: int) -> bool:
    return bool(score < other_score or (score == other_score and item > other_item))


@compiled()
def _sink(block: Block, row: int, count: int, score: np.float32, item: int) -> None:
    """Put an entry at the top of a heap, then below the entries that are worse."""
    scores, items = block.score[row], block.item[row]
    at = 0
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and _worse(
            scores[child + 1], items[child + 1], scores[child], items[child]
        ):
            child += 1
        if not _worse(scores[child], items[child], score, item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item


@compiled()
def _offer(block: Block, row: int, score: np.float32, item: int) -> None:
    """Add an entry if it is among the block."""
    scores, items, count = block.score[row], block.item[row], block.entries[row]
    if count == len(scores):
        if _worse(scores[0], items[0], score, item):
            _sink(block, row, count, score, item)
        return
    at = count
    while at > 0:
        parent = (at - 1) >> 1
        if not _worse(score, item, scores[parent], items[parent]):
            break
        scores[at], items[at] = scores[parent], items[parent]
        at = parent
    scores[at], items[at] = score, item
    block.entries[row] = count + 1


@compiled()
def _floor(block: Block, row: int) -> float:
    """Return a bound that the score of a further entry must reach, less its rounding."""
    if block.entries[row] < block.score.shape[1]:
        return -np.inf
    worst = np.float64(block.score[row, 0])
    return worst - _SLACK * abs(worst)


@compiled()
def _add_beside(inputs: Inputs, user: int, row: F32) -> None:
    """Add a user's cells beside the factors to a row over positions."""
    for at in range(inputs.history.start[user], inputs.history.start[user + 1]):
        had, weight = inputs.history.column[at], inputs.history.value[at]
        if len(inputs.dense):
            links = inputs.dense[had]
            for place in range(len(row)):
                row[place] += weight * links[place]
            continue
        start, stop = inputs.links.start[had], inputs.links.start[had + 1]
        items, links = inputs.links.column[start:stop], inputs.links.value[start:stop]
        if inputs.natural:
            for link in range(len(items)):
                row[np.uint32(items[link])] += weight * links[link]
        else:
            for link in range(len(items)):
                row[np.uint32(inputs.place[np.uint32(items[link])])] += weight * links[link]
    for at in range(inputs.own.start[user], inputs.own.start[user + 1]):
        row[inputs.place[inputs.own.column[at]]] += inputs.own.value[at]


@compiled()
def _scan_row(inputs: Inputs, block: Block, to: int, row: F32, start: int, terms: F64) -> int:
    """Offer the cells of a row from a position on; return the number of cells over the limit."""
    bad, user = 0, block.first + to
    size, limit = inputs.size[user] * (1 + _SLACK), inputs.limit[user]
    for low in range(start, len(inputs.norm), _CHUNK):
        cells = row[low : min(low + _CHUNK, len(inputs.norm))]
        # Norms fall, so no inner product of the chunk is above the bound of the first one.
        reach = size * inputs.norm[low]
        least = np.float32(_floor(block, to) - reach)
        hits, within = np.int32(0), np.int32(0)
        for at in range(len(cells)):
            hits += np.int32((cells[at] != 0) & (cells[at] >= least))
            within += np.int32(abs(cells[at]) < limit)
        if not hits and within == len(cells):
            continue
        for at in range(len(cells)):
            cell, item = cells[at], inputs.order[low + at]
            if not abs(cell) < limit:
                bad += 1
                continue
            if cell == 0 or cell < least:
                continue
            if _find(inputs.gone, user, item) < 0:
                _offer(block, to, _score(inputs, user, item, cell, terms), item)
                least = np.float32(_floor(block, to) - reach)
    return bad


@compiled()
def _scan_own(inputs: Inputs, block: Block, to: int, terms: F64) -> int:
    """Offer the stored cells of the sparse term; return the number of cells over the limit."""
    bad, user = 0, block.first + to
    for at in range(inputs.own.start[user], inputs.own.start[user + 1]):
        item, cell = inputs.own.column[at], inputs.own.value[at]
        if not abs(cell) < inputs.limit[user]:
            bad += 1
            continue
        gone = _find(inputs.gone, user, item) >= 0
        if inputs.place[item] < len(inputs.norm) and not gone:
            _offer(block, to, _score(inputs, user, item, cell, terms), item)
    return bad


@compiled()
def _error(inputs: Inputs, user: int, base: int) -> float:
    """Bound the error of a float32 product from a position on, and of its sum with a cell."""
    # ``|fl(u·v) − u·v| ≤ γ_f ‖u‖ ‖v‖`` with ``γ_f ≈ f·2⁻²⁴`` whatever the order of summation
    # (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), doubled for the roundings after
    # it; the last term covers products that underflow.
    reach = inputs.size[user] * inputs.norm[base]
    return float(2 * (inputs.users.shape[1] + 4) * (ROUNDING * reach + _SMALLEST))


@compiled()
def _cell(inputs: Inputs, block: Block, to: int, item: int) -> np.float32:
    """Return the cell of a pair beside the factors."""
    if inputs.linked:
        return np.float32(block.rows[to, inputs.place[item]])
    at = _find(inputs.own, block.first + to, item)
    return np.float32(inputs.own.value[at] if at >= 0 else 0)


@compiled(types.void(_inputs, _block))
def fill_rows(inputs: Inputs, block: Block) -> None:
    """Write the cells beside the factors.

    Parameters
    ----------
    inputs
        Arrays of the call.
    block
        Its rows are overwritten.
    """
    for to in range(len(block.rows)):
        block.rows[to, :] = 0
        _add_beside(inputs, block.first + to, block.rows[to])


@compiled(types.int64(_inputs, _block, _i64, _i64))
def offer_beside(inputs: Inputs, block: Block, live: I64, start: I64) -> int:
    """Offer the cells beside the factors: all that are stored, or those of links.

    Parameters
    ----------
    inputs, block, live
        As for `offer_tile`.
    start
        ``(n,)`` position from which on the cells of links are offered, for each row of `block`.

    Returns
    -------
    Number of cells that are not finite, or too large.
    """
    bad, terms = 0, np.empty(inputs.users.shape[1], np.float64)
    row = np.zeros(0 if len(block.rows) else len(inputs.order), np.float32)
    for to in live:
        if not inputs.linked:
            bad += _scan_own(inputs, block, to, terms)
        elif len(block.rows):
            bad += _scan_row(inputs, block, to, block.rows[to], start[to], terms)
        else:
            row[:] = 0
            _add_beside(inputs, block.first + to, row)
            bad += _scan_row(inputs, block, to, row, start[to], terms)
    return bad


@compiled(types.int64(_inputs, _block, _i64, _rows, types.int64, types.boolean))
def offer_tile(
    inputs: Inputs, block: Block, live: I64, product: F32, base: int, exact: bool
) -> int:
    """Offer the items of a tile to some users.

    Parameters
    ----------
    inputs, block
        Arrays of the call, and the users' rows and heaps.
    live
        ``(n,)`` users, as rows of `block`.
    product
        ``(n, width)`` float32 products of these users and the items from position `base` on;
        overwritten.
    base
        First position.
    exact
        Compute the score of each candidate; else the product stands for it until `finish`.

    Returns
    -------
    Number of cells that are not finite, or too large.
    """
    bad, width, terms = 0, product.shape[1], np.empty(inputs.users.shape[1], np.float64)
    for line in range(len(live)):
        to = live[line]
        user, scores = block.first + to, product[line]
        error = _error(inputs, user, base) if exact else 0.0
        if inputs.linked:
            beside = block.rows[to, base : base + width]
            limit, within = inputs.limit[user], np.int32(0)
            for at in range(width):
                within += np.int32(abs(beside[at]) < limit)
                # Rounded up, so that no rounding of the cell or of the sum can lose a candidate.
                scores[at] += beside[at] + np.float32(8 * ROUNDING) * abs(beside[at])
            bad += width - int(within)
        least = np.float32(_floor(block, to) - error)
        for low in range(0, width, _CHUNK):
            chunk = scores[low : min(low + _CHUNK, width)]
            hits = np.int32(0)
            for at in range(len(chunk)):
                hits += np.int32(chunk[at] >= least)
            if not hits:
                continue
            for at in range(len(chunk)):
                if not chunk[at] >= least:
                    continue
                item, score = inputs.order[base + low + at], chunk[at]
                if _find(inputs.gone, user, item) >= 0:
                    continue
                # `offer_beside` has offered the cells of the sparse term.
                if not inputs.linked and _find(inputs.own, user, item) >= 0:
                    continue
                if exact:
                    cell = _cell(inputs, block, to, item)
                    score = _score(inputs, user, item, cell, terms)
                _offer(block, to, score, item)
                least = np.float32(_floor(block, to) - error)
    return bad


@compiled(types.void(_inputs, _block, _i64, types.int64, _flags))
def finish(inputs: Inputs, block: Block, live: I64, length: int, unsure: Flags) -> None:
    """Turn each heap into a list, best first, of scores instead of products.

    Parameters
    ----------
    inputs, block, live
        As for `offer_tile`.
    length
        Entries of a list that are needed.
    unsure
        Set to True for the rows of which an item outside the heap may belong among the first
        `length`, because many scores are closer to each other than their products are exact.
    """
    room, factors = block.score.shape[1], inputs.users.shape[1]
    terms = np.empty(factors, np.float64)
    for to in live:
        user, count = block.first + to, block.entries[to]
        worst = np.float64(block.score[to, 0]) if count == room else -np.inf
        if factors:
            block.entries[to] = 0
            for at in range(count):
                item = block.item[to, at]
                cell = _cell(inputs, block, to, item)
                _offer(block, to, _score(inputs, user, item, cell, terms), item)
        for last in range(count - 1, 0, -1):
            score, item = block.score[to, last], block.item[to, last]
            block.score[to, last], block.item[to, last] = block.score[to, 0], block.item[to, 0]
            _sink(block, to, last, score, item)
        if factors and length < count == room < len(inputs.norm):
            outside, kept = worst + _error(inputs, user, 0), np.float64(block.score[to, length - 1])
            unsure[to] = not outside + _SLACK * abs(outside) < kept - _SLACK * abs(kept)


@compiled(types.void(_inputs, types.int64, _i64, _i32, _row))
def score_pairs(inputs: Inputs, first: int, start: I64, item: I32, score: F32) -> None:
    """Write the scores of pairs.

    Parameters
    ----------
    inputs
        Arrays of the call.
    first
        User of the first group of pairs.
    start
        ``(n + 1,)``: the pairs of user `first` + u are ``start[u]:start[u + 1]``.
    item
        Item of each pair.
    score
        Score of each pair, overwritten.
    """
    terms = np.empty(inputs.users.shape[1], np.float64)
    row = np.zeros(len(inputs.order), np.float32)
    for to in range(len(start) - 1):
        if start[to] == start[to + 1]:
            continue
        row[:] = 0
        _add_beside(inputs, first + to, row)
        for pair in range(start[to], start[to + 1]):
            score[pair] = _score(inputs, first + to, item[pair], row[item[pair]], terms)
