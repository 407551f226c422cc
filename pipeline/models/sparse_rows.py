"""Search in sorted arrays, and selection of the largest cells in rows of sparse matrices.

Guarantees: results depend on the values alone, never on the order in which a product stores the
columns of a row; of equal values the lower column is selected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def find_sorted(
    ordered: NDArray[Any], wanted: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find values in a sorted array.

    Parameters
    ----------
    ordered
        ``(n,)``, ascending.
    wanted
        ``(m,)`` values to find.

    Returns
    -------
    ``(m,)`` int64 index of the first equal value, and ``(m,)`` bool: there is one. An index without
    an equal value may be ``n``.
    """
    place = np.searchsorted(ordered, wanted)
    present = place < len(ordered)
    present[present] = ordered[place[present]] == wanted[present]
    return place, present


def csr_from_pairs(
    pair: NDArray[np.int64], value: NDArray[np.float64], shape: tuple[int, int]
) -> sp.csr_matrix:
    """Return a sparse matrix from sorted cells.

    Parameters
    ----------
    pair
        ``(n,)`` int64, row · columns + column, ascending.
    value
        ``(n,)`` float64; a 0 is stored.
    shape
        Rows, columns.
    """
    row, column = np.divmod(pair, shape[1])
    indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=shape[0]))])
    return sp.csr_matrix((value, column, indptr), shape=shape)


def row_extremes(extreme: np.ufunc, cells: sp.csr_matrix, empty: float) -> NDArray[Any]:
    """Return the largest or smallest stored cell of each row.

    Parameters
    ----------
    extreme
        `numpy.maximum` or `numpy.minimum`.
    cells
        Rows × columns CSR.
    empty
        Value of a row without cells.

    Returns
    -------
    ``(n_rows,)`` of the type of the cells.
    """
    values = np.full(cells.shape[0], empty, cells.dtype)
    # `reduceat` takes a single element for an empty row, so only filled rows are reduced.
    filled = np.flatnonzero(np.diff(cells.indptr))
    values[filled] = extreme.reduceat(cells.data, cells.indptr[filled])
    return values


def keep_topk_per_row(cells: sp.csr_matrix, most: int) -> sp.csr_matrix:
    """Return the cells of each row that are largest by magnitude, none of them 0.

    Parameters
    ----------
    cells
        CSR; the columns of a row may have any order.
    most
        Cells kept in a row, ≥ 1; of equal ones the lower columns are kept.

    Returns
    -------
    CSR with sorted columns.
    """
    size = np.abs(cells.data)
    keep = size > 0
    for row in np.flatnonzero(np.diff(cells.indptr) > most):
        own = slice(cells.indptr[row], cells.indptr[row + 1])
        values = size[own]
        # A partition is linear in the length of the row, unlike a sort.
        last = np.partition(values, len(values) - most)[len(values) - most]
        chosen = values > last
        tied = np.flatnonzero(values == last)
        free = most - int(chosen.sum())
        if free < len(tied):
            tied = tied[np.argpartition(cells.indices[own][tied], free - 1)[:free]]
        chosen[tied] = True
        keep[own] &= chosen
    counted = np.concatenate([[0], np.cumsum(keep)])[cells.indptr]
    kept = sp.csr_matrix((cells.data[keep], cells.indices[keep], counted), shape=cells.shape)
    kept.sort_indices()
    return kept
