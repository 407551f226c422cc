"""The window that a model learns from: ordered events with id maps, and its CSR view.

Promises: ids are sorted, so equal data give equal indices; rows are users, columns are items;
events of a user stand in the order of time; nothing at or after `end` is inside; two views of the
same window agree with a loop over its events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.base import to_utc
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix, take_rows
from pipeline.errors import DataError

WEIGHT = "weight"
"""Signed weight of one event: weight[kind] · f(value); negative for what takes back."""
RATING = "rating"
"""What a user thought of an item, on the scale of the data; null where the event says nothing."""

US_PER_DAY = 86_400_000_000
_EVENTS = ("user_ids", "item_ids", "indptr", "item", "timestamp_us", "weight")
_ITEM_FEATURES, _USER_FEATURES, _COLD_ITEMS = "item_features/", "user_features/", "cold_items/"


@dataclass(frozen=True)
class History:
    """Events of some users over one catalogue, ordered by time within each user.

    Attributes
    ----------
    user_ids
        ``(n_users,)`` str, one a row.
    item_ids
        ``(n_items,)`` str, sorted, one a column.
    indptr
        ``(n_users + 1,)`` int64: events of row ``u`` are ``indptr[u]:indptr[u + 1]``.
    item
        ``(n_events,)`` int32 column of each event.
    timestamp_us
        ``(n_events,)`` int64, microseconds since 1970 in UTC, rising within a user.
    weight
        ``(n_events,)`` float32, see `WEIGHT`.
    end
        Exclusive end of the window in UTC; ages count back from here.
    rating
        ``(n_events,)`` float32, the rating that an event gave, NaN where it gave none; ``None``
        where no event is a rating.
    item_features, user_features
        What is known about the items and the users, a row each, as far as anything is.
    cold_items
        Items of the catalogue that were there before `end` and have no event: no columns of this
        window. A family that can list them has them in its scorer's catalogue.
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
        """``(n_events,)`` int32 row of each event."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    @property
    def age_days(self) -> NDArray[np.float32]:
        """``(n_events,)`` float32 days between the event and `end`; always > 0."""
        return ((self.end_us - self.timestamp_us) / US_PER_DAY).astype(np.float32)

    @cached_property
    def seen(self) -> sp.csr_matrix:
        """Users × items, float32 ones where a user has any event of an item, whatever its kind."""
        cells = self._cells(np.ones(len(self.item), np.float32))
        cells.data[:] = 1.0
        return cells

    def confidence(self, half_life_days: float | None) -> sp.csr_matrix:
        """Users × items: Σ over events of weight · 0.5^(age / half-life), floor 0, float32.

        ``None`` means no decay. Cells that end at 0 (everything was taken back) are absent.
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
        # Summing sorts the indices in place: they must not be the events themselves.
        cells = sp.csr_matrix(
            (value, self.item, self.indptr), shape=(self.n_users, self.n_items), copy=True
        )
        cells.sum_duplicates()
        return cells

    def take(self, rows: NDArray[np.integer[Any]]) -> History:
        """Return the histories of some rows, in the order given, over the same catalogue."""
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

        Events of items that it lacks are left out; what is known of its items comes along.
        """
        if item_ids is self.item_ids or np.array_equal(item_ids, self.item_ids):
            return self
        column, there = _places(item_ids, self.item_ids)
        keep = there[self.item]
        return replace(
            self,
            item_ids=item_ids,
            indptr=np.concatenate([[0], np.cumsum(keep)])[self.indptr],
            item=column[self.item[keep]].astype(np.int32),
            timestamp_us=self.timestamp_us[keep],
            weight=self.weight[keep],
            rating=None if self.rating is None else self.rating[keep],
            item_features=self._described(item_ids),
            cold_items=None,
        )

    def _described(self, item_ids: NDArray[np.str_]) -> FeatureMatrix | None:
        if self.item_features is None:
            return None
        place, there = _places(self.item_ids, item_ids)
        known, rows = self.item_features, np.where(there, place, -1)
        if (others := self.cold_items) is not None:
            known = FeatureMatrix(known.names, sp.vstack([known.cells, others.known.cells], "csr"))
            place, there = _places(others.ids, item_ids)
            rows[there] = place[there] + self.n_items
        return known.rows(rows)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, for an npz file; `from_arrays` turns it back."""
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
        """Rebuild a history from `arrays`."""
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
        Columns `user_id` str, `item_id` str, `timestamp` (us, UTC), `weight` f32, without nulls,
        and `rating` f32 where there are any. What lies at or after `end` is left out here,
        whatever the caller did before.
    end
        Exclusive end in UTC.
    """
    end = to_utc(end)
    rows = weighted.filter(pl.col(c.TIMESTAMP) < end)
    if rows.is_empty():
        raise DataError("data.no_event", f"no event lies before {end.isoformat()}", where="events")
    user_ids = rows[c.USER_ID].unique().sort()
    item_ids = rows[c.ITEM_ID].unique().sort()
    user = rows[c.USER_ID].cast(pl.Enum(user_ids)).to_physical().cast(pl.Int32)
    item = rows[c.ITEM_ID].cast(pl.Enum(item_ids)).to_physical().cast(pl.Int32)
    columns = {
        "user": user,
        "item": item,
        "timestamp_us": rows[c.TIMESTAMP].dt.epoch("us"),
        "weight": rows[WEIGHT].cast(pl.Float32),
    }
    if RATING in rows.columns and rows[RATING].null_count() < rows.height:
        columns["rating"] = rows[RATING].cast(pl.Float32).fill_null(np.nan)
    # The item breaks ties of time, so that the order of rows in the lake changes nothing.
    order = [
        name for name in ("user", "timestamp_us", "item", "weight", "rating") if name in columns
    ]
    ordered = pl.DataFrame(columns).sort(order)
    counts = np.bincount(ordered["user"].to_numpy(), minlength=len(user_ids))
    return History(
        user_ids=np.asarray(user_ids.to_list(), dtype=np.str_),
        item_ids=np.asarray(item_ids.to_list(), dtype=np.str_),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item=ordered["item"].to_numpy(),
        timestamp_us=ordered["timestamp_us"].to_numpy(),
        weight=ordered["weight"].to_numpy(),
        end=end,
        rating=ordered["rating"].to_numpy() if "rating" in columns else None,
    )


def _places(
    ids: NDArray[np.str_], wanted: NDArray[np.str_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Places of some ids among sorted ones, and whether they are there at all."""
    place = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return place, ids[place] == wanted
