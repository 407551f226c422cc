"""Weights of events, and activity, recency and age of users and items at the end of a window.

Guarantees: a weight depends only on its own event, not on other rows or the clock; at most
`max_events_per_user_day` events of a user and day have one (`cap_events`); figures of users and
items come from a `History`, so they include no event at or after its end.
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

# One step up the funnel counts about as much as two or three events of the step below. With events
# of one kind the weights have no effect: only their ratios reach a model.
_DEFAULTS: Final[Mapping[str, float]] = {
    c.Kind.VIEW: 1.0,
    c.Kind.CLICK: 1.0,
    c.Kind.ADD_TO_CART: 2.0,
    c.Kind.RATING: 1.0,
    c.Kind.PURCHASE: 3.0,
}
RATING_THRESHOLD: Final = 4.0
"""Lowest rating that counts as positive, on the usual scale of one to five."""


class FeaturesConfig(Frozen):
    """Weight of an event: weight[kind] · f(value)."""

    weights: dict[str, float] = Field(
        default={},
        description="Weight of one event of each kind; kinds that are left out keep their "
        "default. The weight of `return` is negative and by default cancels a purchase.",
    )
    value: Literal["one", "log"] = Field(
        default="one",
        description="f(value): `one` ignores the quantity, `log` is log2(1 + quantity).",
    )
    infer: bool = Field(
        default=True,
        description="The first nightly run selects the weights and f(value) from a few options "
        "on windows before the holdout; off if the config sets `weights`.",
    )
    max_events_per_user_day: int = Field(
        default=1000,
        ge=1,
        description="Only the first so many events of a user and UTC day are used by models; the "
        "others are stored.",
    )
    rating_threshold: float = Field(
        default=RATING_THRESHOLD,
        allow_inf_nan=False,
        description="A rating below this has weight 0, but its item counts as seen.",
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
    """Keep the first `max_events_per_user_day` events of each user and UTC day.

    Parameters
    ----------
    events
        `user_id`, `timestamp` and, as far as present, `item_id`, `kind`, `value`.
    config
        Source of the cap.

    Returns
    -------
    The kept events; those of users with more events than the cap come last. Events of one instant
    are ordered by item, kind and value, so the order of rows does not decide which ones are kept.
    """
    many = events.group_by(c.USER_ID).len().filter(pl.col("len") > config.max_events_per_user_day)
    if many.is_empty():
        return events
    # Only users with more events than the cap can exceed it on a day: no other rows are sorted.
    order = [name for name in (c.TIMESTAMP, c.ITEM_ID, c.KIND, c.VALUE) if name in events.columns]
    place = pl.int_range(pl.len()).over(c.USER_ID, pl.col(c.TIMESTAMP).dt.date())
    capped_events = events.join(many, on=c.USER_ID, how="semi").sort(order, maintain_order=True)
    others = events.join(many, on=c.USER_ID, how="anti")
    return pl.concat([others, capped_events.filter(place < config.max_events_per_user_day)])


def volume(events: pl.DataFrame, config: FeaturesConfig) -> pl.DataFrame:
    """Keep the events that count as volume.

    Parameters
    ----------
    events
        `user_id`, `timestamp` and, as far as present, `item_id`, `kind`, `value`.
    config
        Source of the cap of `cap_events`.

    Returns
    -------
    Events within the lower one of that cap and `per_user_cap`, so that many events of one user do
    not look like a busy shop.
    """
    day = pl.col(c.TIMESTAMP).dt.date()
    per_day = events.group_by(c.USER_ID, day).len()
    days = per_day[c.TIMESTAMP].rank("dense").to_numpy()
    most = min(config.max_events_per_user_day, per_user_cap(days, per_day["len"].to_numpy()))
    return cap_events(events, config.model_copy(update={"max_events_per_user_day": most}))


def weigh(events: pl.DataFrame, config: FeaturesConfig) -> pl.DataFrame:
    """Compute the weight of each event.

    Parameters
    ----------
    events
        Columns `user_id`, `item_id`, `kind`, `value`, `timestamp`; a null value counts as 1.
    config
        Weights, f(value) and the rating threshold.

    Returns
    -------
    polars.DataFrame
        `user_id`, `item_id`, `timestamp`, `weight` float32, `rating` float32 (null for other
        kinds), in the given order: the input of `build_history`.

    Raises
    ------
    DataError
        `features.unknown_kind`: a kind of event has no weight.
    """
    # A weight of another kind than those of a column of categories would be refused.
    weights = {kind: config.weights.get(kind) for kind in events[c.KIND].unique()}
    weight = pl.col(c.KIND).replace_strict(weights, return_dtype=pl.Float64)
    value = pl.col(c.VALUE).fill_null(1.0)
    rated = pl.col(c.KIND) == c.Kind.RATING.value
    if config.value == "log":
        amount = (1.0 + value.clip(lower_bound=0.0)).log(2.0)
        # The value of a rating is an opinion, not a quantity.
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
    """Return the number of events of each user, ``(n_users,)`` int64."""
    return np.diff(history.indptr)


def recency_days(history: History) -> NDArray[np.float64]:
    """Return the days from a user's last event to the window's end, ``(n_users,)``, or inf."""
    days = np.full(history.n_users, np.inf)
    filled = np.flatnonzero(np.diff(history.indptr))
    # Events are in the order of time within a user, so the last one is the newest.
    last = history.timestamp_us[history.indptr[1:][filled] - 1]
    days[filled] = (history.end_us - last) / US_PER_DAY
    return days


def item_age_days(history: History) -> NDArray[np.float64]:
    """Return the days from an item's first event to the window's end, ``(n_items,)``, or -inf."""
    first = np.full(history.n_items, np.inf)
    np.minimum.at(first, history.item, history.timestamp_us.astype(np.float64))
    return (history.end_us - first) / US_PER_DAY


WEIGHED: Final = (c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)
