"""What one event is worth, and what is known about a user or an item at an instant.

Promises: a weight depends on the event alone (never on other rows or the clock), and of one person
and day only so many events have one (`cap_events`); what describes a user or an item is computed
from a `History`, so nothing at or after its end can be inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.cluster_robust import per_user_cap
from pipeline.data.matrix import RATING, US_PER_DAY, WEIGHT, History
from pipeline.errors import DataError

# One step up the funnel counts for about as much as two or three of the step below. A data set of
# one kind is indifferent to these: only their ratios reach a model.
_DEFAULTS: Final[Mapping[str, float]] = {
    c.Kind.VIEW: 1.0,
    c.Kind.CLICK: 1.0,
    c.Kind.ADD_TO_CART: 2.0,
    c.Kind.RATING: 1.0,
    c.Kind.PURCHASE: 3.0,
}
RATING_THRESHOLD: Final = 4.0
"""From this value on a rating counts as liking, on the usual scale of one to five."""


class FeaturesConfig(Frozen):
    """How an event becomes a weight: weight[kind] · f(value)."""

    weights: dict[str, float] = Field(
        default={},
        description="Weight of one event of each kind; kinds left out keep their default, and "
        "`return` takes back what a purchase gave.",
    )
    value: Literal["one", "log"] = Field(
        default="one",
        description="f(value): `one` ignores quantities, `log` is log2(1 + quantity).",
    )
    infer: bool = Field(
        default=True,
        description="Choose between a few ladders of weights, and between both f(value), in the "
        "first night, on windows before the holdout; off where `weights` are written down.",
    )
    max_events_per_user_day: int = Field(
        default=1000,
        ge=1,
        description="Events of one person and UTC day that count, the first ones; the others are "
        "stored, and no model sees them.",
    )
    rating_threshold: float = Field(
        default=RATING_THRESHOLD,
        allow_inf_nan=False,
        description="A rating below this weighs nothing, but its item counts as seen.",
    )

    @model_validator(mode="before")
    @classmethod
    def _written(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("weights") and "infer" not in given:
            return {**given, "infer": False}
        return given

    @field_validator("weights")
    @classmethod
    def _complete(cls, given: dict[str, float]) -> dict[str, float]:
        weights = {str(kind): weight for kind, weight in _DEFAULTS.items()} | given
        weights.setdefault(c.Kind.RETURN.value, -weights[c.Kind.PURCHASE])
        for kind, weight in weights.items():
            gain = -weight if kind == c.Kind.RETURN else weight
            if not 0 <= gain < math.inf:
                bound = "most" if kind == c.Kind.RETURN else "least"
                raise ValueError(f"the weight of {kind!r} must be finite and at {bound} 0")
        return weights


def cap_events(events: pl.DataFrame, config: FeaturesConfig) -> pl.DataFrame:
    """Return the events without those by which a person went beyond `max_events_per_user_day`.

    Of one instant the first by item, kind and value count, so the order of rows changes nothing.
    """
    many = events.group_by(c.USER_ID).len().filter(pl.col("len") > config.max_events_per_user_day)
    if many.is_empty():
        return events
    order = [name for name in (c.TIMESTAMP, c.ITEM_ID, c.KIND, c.VALUE) if name in events.columns]
    place = pl.int_range(pl.len()).over(c.USER_ID, pl.col(c.TIMESTAMP).dt.date())
    capped_events = events.join(many, on=c.USER_ID, how="semi").sort(order, maintain_order=True)
    others = events.join(many, on=c.USER_ID, how="anti")
    return pl.concat([others, capped_events.filter(place < config.max_events_per_user_day)])


def volume(events: pl.DataFrame, config: FeaturesConfig) -> pl.DataFrame:
    """Return the events that tell how much is going on: `cap_events`, and lower in a small shop.

    Of one person and day `per_user_cap` count, so that no flood passes for a busy shop.
    """
    day = pl.col(c.TIMESTAMP).dt.date()
    per_day = events.group_by(c.USER_ID, day).len()
    days = per_day[c.TIMESTAMP].rank("dense").to_numpy().astype(np.int64)
    most = min(
        config.max_events_per_user_day,
        per_user_cap(days, per_day["len"].to_numpy().astype(np.int64)),
    )
    return cap_events(events, config.model_copy(update={"max_events_per_user_day": most}))


def weigh(events: pl.DataFrame, config: FeaturesConfig) -> pl.DataFrame:
    """Turn events into weighted events, row by row.

    Parameters
    ----------
    events
        Columns `user_id`, `item_id`, `kind`, `value`, `timestamp`; a null value counts as 1.

    Returns
    -------
    polars.DataFrame
        `user_id`, `item_id`, `timestamp`, `weight` float32, `rating` float32 (null where the event
        gave none): the input of `build_history`, rows in the order given. The value of a rating is
        a judgement, no amount: f leaves it alone.

    Raises
    ------
    DataError
        A kind of event has no weight.
    """
    weight = pl.col(c.KIND).replace_strict(config.weights, default=None, return_dtype=pl.Float64)
    value = pl.col(c.VALUE).fill_null(1.0)
    rated = pl.col(c.KIND) == c.Kind.RATING.value
    if config.value == "log":
        amount = (1.0 + value.clip(lower_bound=0.0)).log(2.0)
        weight = weight * pl.when(rated).then(1.0).otherwise(amount)
    weight = pl.when(rated & (value < config.rating_threshold)).then(0.0).otherwise(weight)
    weighted = events.select(
        c.USER_ID,
        c.ITEM_ID,
        c.TIMESTAMP,
        c.KIND,
        weight.cast(pl.Float32).alias(WEIGHT),
        pl.when(rated).then(pl.col(c.VALUE)).cast(pl.Float32).alias(RATING),
    )
    unknown = weighted.filter(pl.col(WEIGHT).is_null())
    if not unknown.is_empty():
        kinds = ", ".join(repr(kind) for kind in unknown[c.KIND].unique().sort().to_list()[:5])
        raise DataError(
            "features.unknown_kind",
            f"no weight for events of kind {kinds}; add it to features.weights",
            where="events",
            count=unknown.height,
        )
    return weighted.drop(c.KIND)


def activity(history: History) -> NDArray[np.int64]:
    """``(n_users,)`` int64: events of each user in the window."""
    return np.diff(history.indptr)


def recency_days(history: History) -> NDArray[np.float64]:
    """``(n_users,)`` float64: days from a user's last event to the window's end, or inf."""
    days = np.full(history.n_users, np.inf)
    filled = np.flatnonzero(np.diff(history.indptr))
    # Events stand in the order of time within a user: the last one is the newest.
    last = history.timestamp_us[history.indptr[1:][filled] - 1]
    days[filled] = (history.end_us - last) / US_PER_DAY
    return days


def item_age_days(history: History) -> NDArray[np.float64]:
    """``(n_items,)`` float64: days from an item's first event to the window's end; -inf without."""
    first = np.full(history.n_items, np.inf)
    np.minimum.at(first, history.item, history.timestamp_us.astype(np.float64))
    return (history.end_us - first) / US_PER_DAY


WEIGHED: Final = (c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
