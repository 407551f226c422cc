"""Shops for the benchmarks of the gate: real purchases, and synthetic ones of constant taste."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.quality import completejourney, online_retail
from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.data.split import before

DAY = timedelta(days=1)
_START = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS = 28 * 7 + 53 * 7
_STAY = 180
_TASTES = 8
_FAVOURITES = 8


@dataclass(frozen=True)
class Shop:
    """A shop's purchases, one for each user, item and day, and the end of the last whole day."""

    name: str
    events: pl.DataFrame
    end: datetime
    warm: int = 8
    """Number of weeks before the first night."""

    @property
    def begin(self) -> datetime:
        """Instant of the first purchase."""
        first: datetime = self.events[c.TIMESTAMP][0]
        return first

    def history(self, until: datetime) -> History:
        """Return the training window before an instant."""
        past = self.events.filter(before(until)).with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))
        return build_history(past, until)


def _shop(name: str, purchases: pl.DataFrame, least_buyers: int = 1) -> Shop:
    """Keep purchases of items with at least `least_buyers` users."""
    events = (
        purchases.with_columns(pl.col("at").dt.truncate("1d").cast(c.INSTANT).alias(c.TIMESTAMP))
        .select(c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
        .unique()
        .filter(pl.col(c.USER_ID).n_unique().over(c.ITEM_ID) >= least_buyers)
        .with_columns(
            pl.lit("purchase").alias(c.KIND),
            pl.lit(1.0).alias(c.VALUE),
            pl.lit("shop").alias(c.SOURCE),
        )
        .sort(c.TIMESTAMP, c.USER_ID, c.ITEM_ID)
    )
    # The last day of real purchases ends at noon: it is left out.
    end = events[c.TIMESTAMP][-1]
    return Shop(name, events.filter(before(end)), end)


@dataclass(frozen=True)
class Habits:
    """Habits of a stationary shop.

    Attributes
    ----------
    users, items
        Number of users at a time, and of items.
    rate
        Purchases of a user and day.
    again
        Share of purchases that are one of the user's favourites.
    spread
        Parameter of the Dirichlet distribution of tastes: with a small one a user has few tastes.
    slope
        Exponent by which popularity falls within a taste.
    """

    users: int
    items: int
    rate: float
    again: float
    spread: float = 0.12
    slope: float = 1.0


def stationary(name: str, habits: Habits, seed: int) -> Shop:
    """Return a shop in which users come and go, and neither tastes nor popularity change.

    Nights begin after 28 weeks: in a younger shop the histories of users still grow longer. Each
    user stays 180 days. A purchase is one of eight favourites with the probability
    ``habits.again``, else a draw by the tastes of the user.
    """
    random = np.random.default_rng(seed)
    total = habits.users * (_DAYS + _STAY) // _STAY
    born = random.uniform(-_STAY, _DAYS, total)
    tastes = np.cumsum(random.dirichlet(np.full(_TASTES, habits.spread), total), axis=1)
    count = random.poisson(habits.rate * _STAY, total)
    user = np.repeat(np.arange(total), count)
    at = born[user] + random.uniform(0, _STAY, len(user))

    def drawn(of: NDArray[np.int64]) -> NDArray[np.int64]:
        taste = (random.random(len(of))[:, None] > tastes[of]).sum(axis=1).clip(0, _TASTES - 1)
        shelf = habits.items // _TASTES
        popularity = np.cumsum(1.0 / (1 + np.arange(shelf)) ** habits.slope)
        place = np.searchsorted(popularity, random.random(len(of)) * popularity[-1])
        items: NDArray[np.int64] = taste * shelf + np.minimum(place, shelf - 1)
        return items

    favourites = drawn(np.repeat(np.arange(total), _FAVOURITES)).reshape(total, _FAVOURITES)
    item = drawn(user)
    own = random.random(len(user)) < habits.again
    item[own] = favourites[user[own], random.integers(0, _FAVOURITES, int(own.sum()))]
    frame = pl.DataFrame({c.USER_ID: user, c.ITEM_ID: item, "day": at}).filter(
        pl.col("day").is_between(0, _DAYS, closed="left")
    )
    us = (pl.col("day") * 86_400_000_000).cast(pl.Duration("us"))
    shop = _shop(
        name,
        frame.select(
            ("u" + pl.col(c.USER_ID).cast(pl.String)).alias(c.USER_ID),
            ("i" + pl.col(c.ITEM_ID).cast(pl.String)).alias(c.ITEM_ID),
            (pl.lit(_START) + us).alias("at"),
        ),
    )
    return replace(shop, warm=28)


SHOPS: dict[str, Callable[[Path], Shop]] = {
    "online-retail": lambda data: _shop("online-retail", online_retail(data)),
    "completejourney": lambda data: _shop("completejourney", completejourney(data), 20),
    "stationary-1": lambda _: stationary("stationary-1", Habits(1_200, 480, 0.15, 0.3), 201),
    "stationary-2": lambda _: stationary("stationary-2", Habits(2_500, 960, 0.12, 0.5), 202),
    "stationary-3": lambda _: stationary("stationary-3", Habits(4_000, 1_600, 0.12, 0.5), 203),
}
