"""Metrics of lists beyond accuracy: coverage, inequality, novelty, diversity, serendipity.

Guarantees: the first k entries of each list count, of a shorter list all; an undefined value of
a user is NaN and is left out of means. Definitions:

* ``coverage``: distinct items among all first k ÷ items of the catalogue;
* ``gini``: of the exposure x (number of lists with an item among the first k), over the n items of
  the catalogue, those never shown included: Σᵢⱼ |xᵢ − xⱼ| ÷ (2n Σx); 0 if all items are shown
  equally often, (n − 1)/n if only one item is shown;
* ``novelty`` of a user: mean over the list of −log2(share of the training users with the item), in
  bits; an item without users counts as one with one user;
* ``diversity`` of a user: share of the pairs of listed items without a common category. Items
  without a category are left out, and so is a list with fewer than two items that have one;
* ``serendipity`` of a user: share of the list that is useful and unexpected (Ge, Delgado-Battenfeld
  and Jannach 2010). Useful is an item of the user's ground truth. Expected is what their primitive
  model lists: here the k items that most training users have, and the items that the user has.

The overlap of two publications is in `serving.churn`.

RecTools: coverage is its normalised ``CatalogCoverage``, novelty its ``MeanInvUserFreq``. Its
``IntraListDiversity`` is a mean distance: twice `diversity` if each item has one category, one-hot
encoded, with the Hamming distance. Its ``Serendipity`` is another metric: it weighs each hit by the
difference of its ranks in the list and by popularity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.matrix import History
from pipeline.evaluation.metrics import Truth
from pipeline.models.topk import Lists

COVERAGE: Final = "coverage"
GINI: Final = "gini"
NOVELTY: Final = "novelty"
DIVERSITY: Final = "diversity"
SERENDIPITY: Final = "serendipity"

_PAIRS: Final = 1 << 21
"""Approximate number of pairs of listed items processed together."""
_COLUMN: Final = "column"


def catalogue_values(
    lists: Lists, n_items: int, depths: Iterable[int]
) -> dict[tuple[str, int], float]:
    """Return coverage and Gini index by metric and depth.

    Parameters
    ----------
    lists, n_items
        Lists over a catalogue of `n_items`.
    depths
        Each k.

    Returns
    -------
    dict
        (metric, k) to value; without lists the Gini index is left out.
    """
    values = {(COVERAGE, k): coverage(lists, n_items, k) for k in depths}
    values |= {(GINI, k): gini(lists, n_items, k) for k in depths}
    return {key: value for key, value in values.items() if not math.isnan(value)}


def user_values(
    lists: Lists,
    truth: Truth,
    had: sp.csr_matrix,
    history: History,
    categories: pl.DataFrame | None,
    depths: Iterable[int],
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Return novelty, serendipity, and diversity if there are categories, by metric and depth.

    Parameters
    ----------
    lists, truth
        Of the same users, over the catalogue of `history`.
    had
        Items that these users have in the training window, users × catalogue.
    history
        The training window.
    categories
        `item_id`, `categories` of the table of items.
    depths
        Each k.

    Returns
    -------
    dict
        (metric, k) to ``(n_users,)`` float64, NaN if undefined.
    """
    information = self_information(history.seen)
    values = {(NOVELTY, k): novelty(lists, information, k) for k in depths}
    # The order of information is that of popularity: an item has less, the more users have it.
    ranked = np.argsort(information, kind="stable")
    values |= {(SERENDIPITY, k): serendipity(lists, truth, had, ranked[:k], k) for k in depths}
    if categories is not None:
        kinds = categories_over(categories, history.item_ids)
        values |= {(DIVERSITY, k): diversity(lists, kinds, k) for k in depths}
    return values


def coverage(lists: Lists, n_items: int, k: int) -> float:
    """Return the share of the catalogue among the first `k` of any list.

    Parameters
    ----------
    lists, n_items, k
        Lists over a catalogue of `n_items`, and the depth.

    Returns
    -------
    float
        0 without any list.
    """
    return len(np.unique(lists.item[lists.rank < k])) / n_items if n_items else 0.0


def gini(lists: Lists, n_items: int, k: int) -> float:
    """Return the inequality of the items' exposure.

    Parameters
    ----------
    lists, n_items, k
        Lists over a catalogue of `n_items`, and the depth.

    Returns
    -------
    float
        In [0, 1); NaN without any list.
    """
    shown = np.sort(np.bincount(lists.item[lists.rank < k], minlength=n_items))
    total = int(shown.sum())
    if not total:
        return float("nan")
    # Of sorted values, the i-th is added i times and subtracted n − 1 − i times in the sum of
    # differences, which takes n·log n steps, not n².
    above = 2 * np.arange(n_items, dtype=np.int64) - n_items + 1
    return int(above @ shown) / (n_items * total)


def self_information(seen: sp.csr_matrix) -> NDArray[np.float64]:
    """Return −log2 of the share of users with each item, ``(n_items,)`` float64 in bits.

    Stored cells of `seen`, users × items, count whatever their value. Users without any cell are
    not counted. An item without users counts as one with one user.
    """
    had = np.bincount(seen.indices, minlength=seen.shape[1])
    users = max(int(np.count_nonzero(np.diff(seen.indptr))), 1)
    bits: NDArray[np.float64] = np.log2(users) - np.log2(np.maximum(had, 1))
    return bits


def novelty(lists: Lists, information: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the novelty of each user's list.

    Parameters
    ----------
    lists, k
        Lists, and the depth.
    information
        ``(n_items,)`` float64 from `self_information`.

    Returns
    -------
    ``(n_users,)`` float64 in bits; NaN for an empty list.
    """
    row, item = _first(lists, k)
    total = np.bincount(row, information[item], lists.n_rows).astype(np.float64)
    return _over(total, np.bincount(row, minlength=lists.n_rows).astype(np.float64))


def categories_over(items: pl.DataFrame, item_ids: NDArray[np.str_]) -> sp.csr_matrix:
    """Return the categories of a catalogue as a matrix.

    Parameters
    ----------
    items
        `item_id`, `categories`; one row per item; items outside the catalogue are left out.
    item_ids
        ``(n_items,)`` str.

    Returns
    -------
    scipy.sparse.csr_matrix
        Catalogue × categories, int8 ones; an item that is not in the table has an empty row.
    """
    columns = pl.DataFrame({c.ITEM_ID: item_ids.tolist()}, schema={c.ITEM_ID: pl.String})
    pairs = (
        items.select(c.ITEM_ID, c.CATEGORIES)
        .explode(c.CATEGORIES)
        .drop_nulls()
        .unique()
        .join(columns.with_row_index(_COLUMN), on=c.ITEM_ID)
    )
    kind = pairs[c.CATEGORIES].rank("dense").to_numpy().astype(np.int64) - 1
    cells = np.ones(len(kind), np.int8), (pairs[_COLUMN].to_numpy(), kind)
    return sp.csr_matrix(cells, shape=(len(item_ids), kind.max(initial=-1) + 1))


def diversity(lists: Lists, categories: sp.csr_matrix, k: int) -> NDArray[np.float64]:
    """Return the diversity of each user's list.

    Parameters
    ----------
    lists, k
        Lists, and the depth.
    categories
        From `categories_over`.

    Returns
    -------
    ``(n_users,)`` float64 in [0, 1]; NaN for a list with fewer than two items that have a category.
    """
    row, item = _first(lists, k)
    has_category = np.diff(categories.indptr)[item] > 0
    row, item = row[has_category], item[has_category]
    count = np.bincount(row, minlength=lists.n_rows).astype(np.int64)
    end = np.cumsum(count)
    shared = np.zeros(lists.n_rows)
    step = max(1, _PAIRS // max(1, int(count.max(initial=0)) ** 2))
    for start in range(0, lists.n_rows, step):
        last = min(start + step, lists.n_rows)
        entries = slice(end[start] - count[start], end[last - 1])
        user = row[entries] - start
        # In blocks of users, so that the entries × entries product stays within `_PAIRS` cells.
        alike = _alike(user, categories[item[entries]])
        shared[start:last] = np.bincount(user, alike, last - start) / 2
    pairs = count * (count - 1) / 2
    return _over(pairs - shared, pairs)


def serendipity(
    lists: Lists, truth: Truth, had: sp.csr_matrix, popular: NDArray[np.int64], k: int
) -> NDArray[np.float64]:
    """Return the serendipity of each user's list.

    Parameters
    ----------
    lists, truth, k
        Lists, ground truth of the same users, and the depth.
    had
        Items that these users have, users × catalogue CSR; stored cells count, whatever their
        value.
    popular
        Columns of the items that are expected in any list.

    Returns
    -------
    ``(n_users,)`` float64 in [0, 1]; NaN for an empty list.
    """
    row, item = _first(lists, k)
    shown = np.bincount(row, minlength=lists.n_rows).astype(np.float64)
    hit = _stored(truth.items, row, item) & ~np.isin(item, popular)
    row, item = row[hit], item[hit]
    row = row[~_stored(had, row, item)]
    return _over(np.bincount(row, minlength=lists.n_rows).astype(np.float64), shown)


def _first(lists: Lists, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and items of the first `k` entries of each list."""
    first = lists.rank < k
    return lists.row[first].astype(np.int64), lists.item[first].astype(np.int64)


def _stored(
    matrix: sp.csr_matrix, row: NDArray[np.int64], column: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether each cell is stored, whatever its value, ``(n,)``."""
    if not len(row):  # scipy returns a matrix without cells, not an array
        return np.zeros(0, np.bool_)
    ones = np.ones(len(matrix.indices), np.int8)
    cells = sp.csr_matrix((ones, matrix.indices, matrix.indptr), shape=matrix.shape)
    return np.asarray(cells[row, column]).ravel() > 0


def _alike(user: NDArray[np.int64], of: sp.csr_matrix) -> NDArray[np.int64]:
    """Count, for each entry, the other entries of its user with a common category, ``(n,)``."""
    # A column for each category of each user, so that only entries of one user can meet in it.
    column = np.repeat(user, np.diff(of.indptr)) * of.shape[1] + of.indices
    name, column = np.unique(column, return_inverse=True)
    own = sp.csr_matrix(
        (np.ones(len(column), np.int32), column, of.indptr), shape=(len(user), len(name))
    )
    met: NDArray[np.int64] = np.diff((own @ own.T).indptr) - 1  # each entry shares with itself
    return met


def _over(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide; NaN for a denominator of 0."""
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
