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
    history_from, history_item, history_weight
        Rows of the users' histories.
    links_from, links_item, links_weight
        Rows of the links.
    dense
        All links as ``(m, n_items)`` in the order of positions, or no row.
    own_from, own_item, own_value
        Sparse term, columns sorted.
    gone_from, gone_item
        Excluded items, columns sorted.
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
    history_from: I64
    history_item: I32
    history_weight: F32
    links_from: I64
    links_item: I32
    links_weight: F32
    dense: F32
    own_from: I64
    own_item: I32
    own_value: F32
    gone_from: I64
    gone_item: I32
    order: I32
    place: I32
    norm: F64
    linked: bool
    natural: bool


class Best(NamedTuple):
    """The best items so far of a block of users, as heaps with the worst item first.

    Attributes
    ----------
    score, item
        ``(n, k)`` float32 and int32.
    entries
        ``(n,)`` number of entries of each.
    """

    score: F32
    item: I32
    entries: I64


def _array(kind: Any, dimensions: int = 1, *, readonly: bool = True) -> Any:
    return types.Array(kind, dimensions, "C", readonly=readonly)


_f32, _f64, _i32, _i64 = map(_array, (types.float32, types.float64, types.int32, types.int64))
_table = _array(types.float32, 2)
_cells = (_i64, _i32, _f32)
_types = (
    *(_table, _table, _f64, _f32, *_cells, *_cells, _table, *_cells, _i64, _i32),
    *(_i32, _i32, _f64, types.boolean, types.boolean),
)
_named: Any = types.NamedTuple  # numba does not type it
_inputs = _named(_types, Inputs)
_row = _array(types.float32, readonly=False)
_rows = _array(types.float32, 2, readonly=False)
_flags = _array(types.boolean, readonly=False)
_best = _named(
    (_rows, _array(types.int32, 2, readonly=False), _array(types.int64, readonly=False)), Best
)


@compiled()
def _sum_products(users: F32, user: int, items: F32, item: int, start: int, stop: int) -> float:
    """Return the inner product of at most 128 factors."""
    n, total = stop - start, 0.0
    rest = start + (n - n % 8 if n >= 8 else 0)
    if n >= 8:
        a = b = c = d = e = f = g = h = 0.0
        for at in range(start, rest, 8):
            a += np.float64(users[user, at]) * np.float64(items[item, at])
            b += np.float64(users[user, at + 1]) * np.float64(items[item, at + 1])
            c += np.float64(users[user, at + 2]) * np.float64(items[item, at + 2])
            d += np.float64(users[user, at + 3]) * np.float64(items[item, at + 3])
            e += np.float64(users[user, at + 4]) * np.float64(items[item, at + 4])
            f += np.float64(users[user, at + 5]) * np.float64(items[item, at + 5])
            g += np.float64(users[user, at + 6]) * np.float64(items[item, at + 6])
            h += np.float64(users[user, at + 7]) * np.float64(items[item, at + 7])
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for at in range(rest, stop):
        total += np.float64(users[user, at]) * np.float64(items[item, at])
    return total


@compiled()
def _inner(users: F32, user: int, items: F32, item: int) -> float:
    """Return an inner product, summed in halves as `numpy.sum` does."""
    n = users.shape[1]
    if n <= 128:
        return _sum_products(users, user, items, item, 0, n)
    # Without recursion, whose code numba cannot read back from its cache: `stop` is the end of each
    # open part, `left` the sum of its left half once `right` is True.
    stop, left = np.empty(64, np.int64), np.empty(64, np.float64)
    right = np.zeros(64, np.bool_)
    at, level, stop[0] = 0, 0, n
    while True:
        size = stop[level] - at
        if size > 128:
            level += 1
            stop[level], right[level] = at + size // 2 - size // 2 % 8, False
            continue
        total = _sum_products(users, user, items, item, at, stop[level])
        at = stop[level]
        while level > 0 and right[level]:
            total = left[level] + total
            level -= 1
        if level == 0:
            return total
        left[level], right[level], stop[level] = total, True, stop[level - 1]


@compiled()
def _score(inputs: Inputs, user: int, item: int, beside: np.float32) -> np.float32:
    """Return the score of a pair from its cell beside the factors."""
    return np.float32(_inner(inputs.users, user, inputs.items, item) + np.float64(beside))


@compiled()
def _find(start: I64, column: I32, user: int, item: int) -> int:
    """Return the place of an item in a user's sorted cells, -1 if it is not there."""
    low, high = start[user], start[user + 1]
    while low < high:
        middle = (low + high) >> 1
        if column[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low if low < start[user + 1] and column[low] == item else -1


@compiled()
def _worse(score: np.float32, item: int, other_score: np.float32, other_item: int) -> bool:
    return bool(score < other_score or (score == other_score and item > other_item))


@compiled()
def _sink(best: Best, row: int, count: int, score: np.float32, item: int) -> None:
    """Put an entry at the top of a heap, then below the entries that are worse."""
    scores, items = best.score[row], best.item[row]
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
def _offer(best: Best, row: int, score: np.float32, item: int) -> None:
    """Add an entry if it is among the best."""
    scores, items, count = best.score[row], best.item[row], best.entries[row]
    if count == len(scores):
        if _worse(scores[0], items[0], score, item):
            _sink(best, row, count, score, item)
        return
    at = count
    while at > 0:
        parent = (at - 1) >> 1
        if not _worse(score, item, scores[parent], items[parent]):
            break
        scores[at], items[at] = scores[parent], items[parent]
        at = parent
    scores[at], items[at] = score, item
    best.entries[row] = count + 1


@compiled()
def _floor(best: Best, row: int) -> float:
    """Return a bound that the score of a further entry must reach, less its rounding."""
    if best.entries[row] < best.score.shape[1]:
        return -np.inf
    worst = np.float64(best.score[row, 0])
    return worst - _SLACK * abs(worst)


@compiled()
def _add_beside(inputs: Inputs, user: int, row: F32) -> None:
    """Add a user's cells beside the factors to a row over positions."""
    for at in range(inputs.history_from[user], inputs.history_from[user + 1]):
        had, weight = inputs.history_item[at], inputs.history_weight[at]
        if len(inputs.dense):
            links = inputs.dense[had]
            for place in range(len(row)):
                row[place] += weight * links[place]
            continue
        start, stop = inputs.links_from[had], inputs.links_from[had + 1]
        items, links = inputs.links_item[start:stop], inputs.links_weight[start:stop]
        if inputs.natural:
            for link in range(len(items)):
                row[np.uint32(items[link])] += weight * links[link]
        else:
            for link in range(len(items)):
                row[np.uint32(inputs.place[np.uint32(items[link])])] += weight * links[link]
    for at in range(inputs.own_from[user], inputs.own_from[user + 1]):
        row[inputs.place[inputs.own_item[at]]] += inputs.own_value[at]


@compiled()
def _scan_row(inputs: Inputs, user: int, row: F32, start: int, best: Best, to: int) -> int:
    """Offer the cells of a row over positions; return the number of cells over the limit."""
    bad, size, limit = 0, inputs.size[user], inputs.limit[user]
    for low in range(start, len(inputs.norm), _CHUNK):
        cells = row[low : min(low + _CHUNK, len(inputs.norm))]
        # Norms fall, so the inner products of the chunk are at most the first one.
        reach = size * inputs.norm[low] * (1 + _SLACK)
        least = np.float32(_floor(best, to) - reach)
        hits = np.int32(0)
        for at in range(len(cells)):
            cell = cells[at]
            hits += np.int32(((cell != 0) & (cell >= least)) | ~(abs(cell) < limit))
        if not hits:
            continue
        for at in range(len(cells)):
            cell = cells[at]
            if not abs(cell) < limit:
                bad += 1
            elif cell != 0 and cell >= least:
                item = inputs.order[low + at]
                if _find(inputs.gone_from, inputs.gone_item, user, item) < 0:
                    _offer(best, to, _score(inputs, user, item, cell), item)
                    least = np.float32(_floor(best, to) - reach)
    return bad


@compiled()
def _scan_own(inputs: Inputs, user: int, best: Best, to: int) -> int:
    """Offer the stored cells of the sparse term; return the number of cells over the limit."""
    bad = 0
    for at in range(inputs.own_from[user], inputs.own_from[user + 1]):
        item, cell = inputs.own_item[at], inputs.own_value[at]
        if not abs(cell) < inputs.limit[user]:
            bad += 1
            continue
        gone = _find(inputs.gone_from, inputs.gone_item, user, item) >= 0
        if inputs.place[item] < len(inputs.norm) and not gone:
            _offer(best, to, _score(inputs, user, item, cell), item)
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
def _cell(inputs: Inputs, user: int, item: int, rows: F32, to: int) -> np.float32:
    """Return the cell of a pair beside the factors."""
    if inputs.linked:
        return np.float32(rows[to, inputs.place[item]])
    at = _find(inputs.own_from, inputs.own_item, user, item)
    return np.float32(inputs.own_value[at] if at >= 0 else 0)


@compiled(types.void(_inputs, types.int64, _rows))
def fill_rows(inputs: Inputs, first: int, rows: F32) -> None:
    """Write the cells beside the factors of some users, as rows over positions.

    Parameters
    ----------
    inputs
        Arrays of the call.
    first
        User of the first row.
    rows
        ``(n, n_items)``, overwritten.
    """
    for to in range(len(rows)):
        row = rows[to]
        row[:] = 0
        _add_beside(inputs, first + to, row)


@compiled(types.int64(_inputs, types.int64, _i64, _rows, _i64, _best))
def offer_beside(inputs: Inputs, first: int, live: I64, rows: F32, start: I64, best: Best) -> int:
    """Offer the cells beside the factors: all that are stored, or those of links.

    Parameters
    ----------
    inputs, first, live, best
        As for `offer_tile`.
    rows
        From `fill_rows`; without factors no row, because each user needs one only once.
    start
        ``(n,)`` position from which on the cells of links are offered, for each row of `best`.

    Returns
    -------
    Number of cells over the limit.
    """
    bad, row = 0, np.zeros(0 if len(rows) else len(inputs.order), np.float32)
    for to in live:
        if not inputs.linked:
            bad += _scan_own(inputs, first + to, best, to)
        elif len(rows):
            bad += _scan_row(inputs, first + to, rows[to], start[to], best, to)
        else:
            row[:] = 0
            _add_beside(inputs, first + to, row)
            bad += _scan_row(inputs, first + to, row, start[to], best, to)
    return bad


@compiled(types.int64(_inputs, types.int64, _i64, _rows, _rows, types.int64, types.boolean, _best))
def offer_tile(
    inputs: Inputs,
    first: int,
    live: I64,
    rows: F32,
    product: F32,
    base: int,
    exact: bool,
    best: Best,
) -> int:
    """Offer the items of a tile to some users.

    Parameters
    ----------
    inputs
        Arrays of the call.
    first
        User of the first row of `best`.
    live
        ``(n,)`` rows of `best`.
    rows
        From `fill_rows`, or no row without links.
    product
        ``(n, width)`` float32 products of these users and the items from position `base` on;
        overwritten.
    base
        First position.
    exact
        Compute the score of each candidate; else the product stands for it until `finish`.
    best
        Takes the entries.

    Returns
    -------
    Number of cells over the limit.
    """
    bad, width = 0, product.shape[1]
    for line in range(len(live)):
        to = live[line]
        user, scores = first + to, product[line]
        error = _error(inputs, user, base) if exact else 0.0
        if len(rows):
            beside, limit, over = rows[to, base : base + width], inputs.limit[user], np.int32(0)
            for at in range(width):
                over += np.int32(~(abs(beside[at]) < limit))
                # Rounded up, so that no rounding of the cell or of the sum can lose a candidate.
                scores[at] += beside[at] + np.float32(8 * ROUNDING) * abs(beside[at])
            bad += int(over)
        least = np.float32(_floor(best, to) - error)
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
                if _find(inputs.gone_from, inputs.gone_item, user, item) >= 0:
                    continue
                # `offer_own` has offered the cells of the sparse term.
                if not inputs.linked and _find(inputs.own_from, inputs.own_item, user, item) >= 0:
                    continue
                if exact:
                    score = _score(inputs, user, item, _cell(inputs, user, item, rows, to))
                _offer(best, to, score, item)
                least = np.float32(_floor(best, to) - error)
    return bad


@compiled(types.void(_inputs, types.int64, _i64, _rows, types.int64, _best, _flags))
def finish(
    inputs: Inputs, first: int, live: I64, rows: F32, length: int, best: Best, unsure: Flags
) -> None:
    """Turn each heap into a list, best first, of scores instead of products.

    Parameters
    ----------
    inputs, first, live, rows, best
        As for `offer_tile`; `best` has room for more than `length` entries, or for all items.
    length
        Entries of a list that are needed.
    unsure
        Set to True for the rows of which an item outside the heap may belong among the first
        `length`, because many scores are closer to each other than their products are exact.
    """
    room, factors = best.score.shape[1], inputs.users.shape[1]
    for to in live:
        user, count = first + to, best.entries[to]
        worst = np.float64(best.score[to, 0]) if count == room else -np.inf
        if factors:
            best.entries[to] = 0
            for at in range(count):
                item = best.item[to, at]
                cell = _cell(inputs, user, item, rows, to)
                _offer(best, to, _score(inputs, user, item, cell), item)
        for last in range(count - 1, 0, -1):
            score, item = best.score[to, last], best.item[to, last]
            best.score[to, last], best.item[to, last] = best.score[to, 0], best.item[to, 0]
            _sink(best, to, last, score, item)
        if factors and length < count == room < len(inputs.norm):
            outside, kept = worst + _error(inputs, user, 0), np.float64(best.score[to, length - 1])
            unsure[to] = not outside + _SLACK * abs(outside) < kept - _SLACK * abs(kept)


@compiled(types.void(_inputs, types.int64, _i64, _i32, _row))
def score_pairs(inputs: Inputs, first: int, start: I64, item: I32, score: F32) -> None:
    """Write the scores of pairs.

    Parameters
    ----------
    inputs
        Arrays of the call, of which positions are items.
    first
        User of the first group of pairs.
    start
        ``(n + 1,)``: the pairs of user `first` + u are ``start[u]:start[u + 1]``.
    item
        Item of each pair.
    score
        Score of each pair, overwritten.
    """
    row = np.zeros(len(inputs.order), np.float32)
    for to in range(len(start) - 1):
        if start[to] == start[to + 1]:
            continue
        row[:] = 0
        _add_beside(inputs, first + to, row)
        for pair in range(start[to], start[to + 1]):
            score[pair] = _score(inputs, first + to, item[pair], row[item[pair]])
