"""Events of a window, ordered by time within each user, with id maps and sparse matrices.

Guarantees: ids are sorted, so equal data give equal indices; rows are users, columns are items;
no event is at or after `end`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import format_instant, to_utc
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix, take_rows
from pipeline.errors import DataError

WEIGHT = "weight"
"""Signed weight of one event, weight[kind] · f(value) of `FeaturesConfig`; < 0 for a return."""
RATING = "rating"
"""Rating of an item on the scale of the data; null for events of other kinds."""

US_PER_DAY = 86_400_000_000
_EVENTS = ("user_ids", "item_ids", "indptr", "item", "timestamp_us", "weight")
_ITEM_FEATURES, _USER_FEATURES, _COLD_ITEMS = "item_features/", "user_features/", "cold_items/"


@dataclass(frozen=True)
class History:
    """Events of some users over one catalogue, ordered by time within each user.

    Attributes
    ----------
    user_ids
        ``(n_users,)`` str, one per row.
    item_ids
        ``(n_items,)`` str, sorted, one per column.
    indptr
        ``(n_users + 1,)`` int64: events of row ``u`` are ``indptr[u]:indptr[u + 1]``.
    item
        ``(n_events,)`` int32 column of each event.
    timestamp_us
        ``(n_events,)`` int64, microseconds since 1970 in UTC, ascending within a user.
    weight
        ``(n_events,)`` float32, see `WEIGHT`.
    end
        Exclusive end of the window in UTC; ages are relative to it.
    rating
        ``(n_events,)`` float32, NaN for events without a rating; ``None`` if no event has one.
    item_features, user_features
        Features with one row per item or user; ``None`` without a table.
    cold_items
        Items that were created before `end` and have no event. They are not columns of the
        window; model families that can list them add them to their scorer's catalogue.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    indptr: NDArray[np.int64]
    item: NDArray[np.int32]
    timestamp_us: NDArray[np.int64]
    weight: NDArray[np.float32]
    end: datetime
    rating: NDArray[np.float32] | None = None
    item_features: FeatureMatrix | None = None
    user_features: FeatureMatrix | None = None
    cold_items: ColdItems | None = None

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of columns."""
        return len(self.item_ids)

    @property
    def end_us(self) -> int:
        """`end` in microseconds since 1970 in UTC."""
        return round(self.end.timestamp() * 1e6)

    @property
    def user(self) -> NDArray[np.int32]:
        """Row of each event, ``(n_events,)`` int32."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    @property
    def age_days(self) -> NDArray[np.float32]:
        """Days between each event and `end`, ``(n_events,)`` float32, always > 0."""
        return ((self.end_us - self.timestamp_us) / US_PER_DAY).astype(np.float32)

    @cached_property
    def seen(self) -> sp.csr_matrix:
        """Users × items CSR, float32 ones where a user has an event of any kind of an item."""
        cells = self._cells(np.ones(len(self.item), np.float32))
        cells.data[:] = 1.0  # several events of a cell were summed
        return cells

    def confidence(self, half_life_days: float | None) -> sp.csr_matrix:
        """Sum weight · 0.5^(age / half-life) over the events of each cell.

        The half-life is in days; ``None``: no decay. Users × items CSR float32; sums of at most 0
        (all purchases returned) are left out.
        """
        weight = self.weight
        if half_life_days is not None:
            weight = weight * np.exp2(-self.age_days / np.float32(half_life_days))
        cells = self._cells(weight.astype(np.float32))
        np.maximum(cells.data, 0.0, out=cells.data)
        cells.eliminate_zeros()
        return cells

    def _cells(self, value: NDArray[np.float32]) -> sp.csr_matrix:
        """Sum a value of each event into users × items."""
        shape = self.n_users, self.n_items
        # Two transpositions sort the items of each user in linear time.
        cells = sp.csr_matrix((value, self.item, self.indptr), shape=shape).tocsc().tocsr()
        cells.sum_duplicates()
        return cells

    def take(self, rows: NDArray[np.integer[Any]]) -> History:
        """Select rows in the given order; the catalogue stays the same."""
        indptr, pick = take_rows(self.indptr, rows)
        return replace(
            self,
            user_ids=self.user_ids[rows],
            indptr=indptr,
            item=self.item[pick],
            timestamp_us=self.timestamp_us[pick],
            weight=self.weight[pick],
            rating=None if self.rating is None else self.rating[pick],
            user_features=None if self.user_features is None else self.user_features.rows(rows),
        )

    def reindex_items(self, item_ids: NDArray[np.str_]) -> History:
        """Return the same events over another sorted catalogue, such as a scorer's longer one.

        Events of items outside that catalogue are left out; features follow their items.
        """
        # The same array is the usual case and needs no comparison.
        if item_ids is self.item_ids or np.array_equal(item_ids, self.item_ids):
            return self
        column, there = _find_ids(item_ids, self.item_ids)
        keep = there[self.item]
        return replace(
            self,
            item_ids=item_ids,
            # Kept events before each old boundary: the new boundaries.
            indptr=np.concatenate([[0], np.cumsum(keep)])[self.indptr],
            item=column[self.item[keep]].astype(np.int32),
            timestamp_us=self.timestamp_us[keep],
            weight=self.weight[keep],
            rating=None if self.rating is None else self.rating[keep],
            item_features=self._features_of(item_ids),
            cold_items=None,
        )

    def _features_of(self, item_ids: NDArray[np.str_]) -> FeatureMatrix | None:
        """Return the features of other items, cold ones included; ``None`` without features."""
        if self.item_features is None:
            return None
        place, there = _find_ids(self.item_ids, item_ids)
        features = self.item_features
        rows = np.where(there, place, -1)  # -1: an empty row
        if (cold := self.cold_items) is not None:
            # The rows of cold items follow those of the window's items.
            features = FeatureMatrix(
                features.names, sp.vstack([features.cells, cold.features.cells], "csr")
            )
            place, there = _find_ids(cold.ids, item_ids)
            rows[there] = place[there] + self.n_items
        return features.rows(rows)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all fields as arrays for an npz file; inverse of `from_arrays`."""
        arrays = {name: getattr(self, name) for name in _EVENTS}
        arrays["end"] = np.array([self.end_us], np.int64)
        if self.rating is not None:
            arrays["rating"] = self.rating
        for prefix, part in (
            (_ITEM_FEATURES, self.item_features),
            (_USER_FEATURES, self.user_features),
            (_COLD_ITEMS, self.cold_items),
        ):
            arrays |= {} if part is None else part.arrays(prefix)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> History:
        """Rebuild a history from the result of `arrays`."""
        end = datetime.fromtimestamp(int(arrays["end"][0]) / 1e6, tz=UTC)
        return cls(
            **{name: arrays[name] for name in _EVENTS},
            end=end,
            rating=arrays.get("rating"),
            item_features=FeatureMatrix.read(arrays, _ITEM_FEATURES),
            user_features=FeatureMatrix.read(arrays, _USER_FEATURES),
            cold_items=ColdItems.read(arrays, _COLD_ITEMS),
        )


def build_history(weighted: pl.DataFrame, end: datetime) -> History:
    """Build the window of all users and items that have an event before `end`.

    Parameters
    ----------
    weighted
        Columns `user_id` and `item_id` (str, or the categories of `windows.with_compact_ids`),
        `timestamp` (us, UTC), `weight` f32, without nulls,
        and optionally `rating` f32. Rows at or after `end` are left out.
    end
        Exclusive end in UTC.

    Raises
    ------
    DataError
        `data.no_event`: no event lies before `end`.
    """
    end = to_utc(end)
    rows = weighted.filter(pl.col(c.TIMESTAMP) < end)
    if rows.is_empty():
        raise DataError(
            "data.no_event",
            f"no event lies before {format_instant(end)}; ingest earlier events, or choose a later "
            "as-of",
            where="events",
        )
    user, user_ids = _numbered(rows[c.USER_ID])
    item, item_ids = _numbered(rows[c.ITEM_ID])
    timestamp_us = rows[c.TIMESTAMP].dt.epoch("us").to_numpy()
    weight, rating = rows[WEIGHT].cast(pl.Float32).to_numpy(), None
    if RATING in rows.columns and rows[RATING].null_count() < rows.height:
        rating = rows[RATING].cast(pl.Float32).fill_null(np.nan).to_numpy()
    values = [weight] if rating is None else [rating, weight]
    indptr, timestamp_us, item, order = _ordered(user, timestamp_us, item, values)
    return History(
        user_ids=user_ids,
        item_ids=item_ids,
        indptr=indptr,
        item=item,
        timestamp_us=timestamp_us,
        weight=weight[order],
        end=end,
        rating=None if rating is None else rating[order],
    )


def _numbered(ids: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Return the number of each id among the sorted ids, and the sorted ids."""
    if ids.dtype == pl.String:
        ids = ids.cast(pl.Enum(ids.unique().sort()))
    # A window may lack some of the categories.
    code, categories = ids.to_physical().to_numpy(), cast("pl.Enum", ids.dtype).categories
    there = np.bincount(code, minlength=len(categories)) > 0
    number = np.cumsum(there, dtype=np.int32) - 1
    return number[code], np.asarray(categories.filter(there).to_list(), dtype=np.str_)


def _ordered(
    user: NDArray[np.int32],
    timestamp_us: NDArray[np.int64],
    item: NDArray[np.int32],
    values: list[NDArray[np.float32]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """Order rows by user, time, item, then the last of the values; return bounds of users first."""
    size, start = len(user), timestamp_us.min()
    # The transposition of a sparse matrix is a stable counting sort, in linear time.
    by_user = sp.csr_matrix((np.ones(size, np.bool_), user, np.arange(size + 1))).tocsc()
    first = np.zeros(size + 1, np.bool_)  # rows that differ from the one before, and the end
    first[by_user.indptr] = True
    order, ordered = by_user.indices, []
    for key in (timestamp_us - start, item):
        # Sorts within the rows of the matrix, and only if they are not sorted yet.
        ranges = sp.csr_matrix((order, key[order], np.flatnonzero(first)))
        ranges.sort_indices()
        order = ranges.data
        first[1:-1] |= ranges.indices[1:] != ranges.indices[:-1]
        ordered.append(ranges.indices.astype(key.dtype, copy=False))
    # Values break ties, so that the given order of rows does not matter.
    tied = np.flatnonzero(~(first[:-1] & first[1:]))
    rows, cell = order[tied], np.cumsum(first)[tied]
    order[tied] = rows[np.lexsort([*(value[rows] for value in values), cell])]
    return by_user.indptr.astype(np.int64), ordered[0] + start, ordered[1], order


def _find_ids(
    ids: NDArray[np.str_], wanted: NDArray[np.str_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the index of each wanted id in the sorted ids, and a mask of those that are there."""
    # searchsorted returns len(ids) for an id behind the last one.
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return place, ids[place] == wanted
