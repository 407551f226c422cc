"""Compiled products of two sparse matrices: the largest cells of each row, or all of them (numba).

Guarantees: a cell is summed in float64, in the order in which the left row is stored, and rounded
to float32 before the cut; of equal cells the lower columns are kept; a row is computed alone, so no
cell depends on the other rows of a call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.models.compiled import compiled

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Bits = NDArray[np.uint32]
_BITS = 19
"""Lower bits of a float32 that its group ignores: an octave has 16 groups."""
_LAST = (1 << 31) - 1
"""Largest column."""


@compiled()
def add_product(
    left_from: Ints,
    left_column: Ints,
    left_value: Floats,
    right_from: Ints,
    right_column: Ints,
    right_value: Floats,
    rows: Floats,
) -> None:
    """Add a sparse product to a dense matrix.

    Parameters
    ----------
    left_from, left_column, left_value, right_from, right_column, right_value
        The two factors as CSR.
    rows
        ``(n, n_columns)``, contiguous.
    """
    for row in range(len(left_from) - 1):
        for at in range(left_from[row], left_from[row + 1]):
            weight, inner = left_value[at], left_column[at]
            for cell in range(right_from[inner], right_from[inner + 1]):
                rows[row, np.uint32(right_column[cell])] += weight * right_value[cell]


@compiled()
def _choose(bits: Bits, touched: Ints, reached: int, keep: int, chosen: Ints) -> int:
    """Write the columns of the `keep` largest cells > 0, in any order; return their number."""
    group = np.zeros(1 << (31 - _BITS), np.int32)
    for at in range(reached):
        group[bits[at] >> _BITS] += 1
    # The cut lies in the last group that is needed: cells above it are kept, its own sorted.
    cut, above = len(group), 0
    while cut > 0 and above < keep:
        cut -= 1
        above += group[cut]
    tied = np.empty(group[cut], np.uint64)
    n_chosen = n_tied = 0
    for at in range(reached):
        own = bits[at] >> _BITS
        if own > cut:
            chosen[n_chosen] = touched[at]
            n_chosen += 1
        elif own == cut and bits[at] > 0:
            # The lower column is the larger number.
            column = np.uint64(_LAST - touched[at])
            tied[n_tied] = (np.uint64(bits[at]) << np.uint64(32)) | column
            n_tied += 1
    for key in np.sort(tied[:n_tied])[::-1][: keep - n_chosen]:
        chosen[n_chosen] = _LAST - (key & np.uint64(0xFFFFFFFF))
        n_chosen += 1
    return n_chosen


@compiled()
def largest_cells(
    left_from: Ints,
    left_column: Ints,
    left_value: Floats,
    right_from: Ints,
    right_column: Ints,
    right_value: Floats,
    length: Floats,
    shrinkage: float,
    keep: int,
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], Ints, NDArray[np.float32]]:
    """Return the largest cells in some rows of a product, without its diagonal.

    Parameters
    ----------
    left_from, left_column, left_value, right_from, right_column, right_value
        The two factors as CSR; the product is n × n, and all values are >= 0.
    length, shrinkage
        ``(n,)`` norms: a cell is divided by the product of its two norms plus `shrinkage`; without
        any, cells stay as they are.
    keep
        Cells of a row, at most.
    start, stop
        Rows from `start`, before `stop`.

    Returns
    -------
    tuple
        ``(rows,)`` numbers of cells, and ``(rows, keep)`` columns, rising, and values.
    """
    n = len(left_from) - 1
    total, touched = np.zeros(n), np.empty(n + 1, np.int32)
    rounded = np.empty(n, np.float32)
    bits = rounded.view(np.uint32)  # bits of numbers >= 0 are in the order of the numbers
    count = np.zeros(stop - start, np.int64)
    column = np.empty((stop - start, keep), np.int32)
    value = np.empty((stop - start, keep), np.float32)
    chosen = np.empty(keep, np.int32)
    for row in range(start, stop):
        reached = 0
        for at in range(left_from[row], left_from[row + 1]):
            weight, inner = left_value[at], left_column[at]
            for cell in range(right_from[inner], right_from[inner + 1]):
                item = np.uint32(right_column[cell])  # a signed one may count from the end
                before = total[item]
                after = before + weight * right_value[cell]
                touched[reached] = item  # overwritten unless the item is new
                reached += (before == 0.0) & (after != 0.0)
                total[item] = after
        total[row] = 0.0
        if len(length):
            for at in range(reached):
                scale = length[row] * length[touched[at]] + shrinkage
                total[touched[at]] = total[touched[at]] / scale if scale > 0.0 else 0.0
        for at in range(reached):
            rounded[at] = total[np.uint32(touched[at])]
        n_chosen = _choose(bits, touched, reached, keep, chosen)
        for place, item in enumerate(np.sort(chosen[:n_chosen])):
            column[row - start, place], value[row - start, place] = item, total[item]
        count[row - start] = n_chosen
        for at in range(reached):
            total[np.uint32(touched[at])] = 0.0
    return count, column, value
