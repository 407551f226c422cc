"""Small shops for tests: users with one of a few tastes, who buy something every few days."""

import os
import shutil
import sys
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.stores.registry.connection import relocate_artifact_uris

START = datetime(2024, 1, 1, 9, tzinfo=UTC)
NIGHTS = tuple(START + timedelta(days=days) for days in (70, 84, 98))

_STORE_CACHE = "_get_store_with_resolved_uri"

CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "purchase" }

[split]
task = "discovery"

[publish]
live_from = "as_of"

[recipes.als]
family = "als"
factors = 8
alpha = 4.0
regularization = 1.0
iterations = 5

[recipes.mad]
family = "als"
factors = 2
alpha = 400.0
regularization = 1000.0
iterations = 2
"""


@cache
def purchases(*, users=320, items=160, tastes=4, days=100, seed=0):
    """Return `event_id, user_id, item_id, value, timestamp` (ISO with Z), sorted by time."""
    rng = np.random.default_rng(seed)
    taste = rng.integers(0, tastes, users)
    shelf = np.arange(items) % tastes
    popularity = 1.0 / (1 + np.arange(items)) ** 0.3
    rows = []
    for user in range(users):
        weight = popularity * np.where(shelf == taste[user], 1.0, 0.08)
        weight /= weight.sum()
        for day in range(days):
            if rng.random() < 0.22:
                at = START + timedelta(days=day, seconds=int(rng.integers(0, 60_000)))
                chosen = rng.choice(items, size=2, replace=False, p=weight)
                rows += [
                    (f"u{user}", f"i{item}", at + timedelta(seconds=k))
                    for k, item in enumerate(chosen)
                ]
    rows.sort(key=lambda row: (row[2], row[0], row[1]))
    return pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(rows))],
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "value": ["1"] * len(rows),
            "timestamp": [row[2].strftime("%Y-%m-%dT%H:%M:%SZ") for row in rows],
        }
    )


def events(**shop):
    """Return `purchases` as the lake holds them: everything that a window is cut from."""
    return purchases(**shop).select(
        pl.col("user_id").alias(c.USER_ID),
        pl.col("item_id").alias(c.ITEM_ID),
        pl.lit("purchase").alias(c.KIND),
        pl.lit(1.0).alias(c.VALUE),
        pl.col("timestamp").str.to_datetime(time_zone="UTC", time_unit="us").alias(c.TIMESTAMP),
    )


@cache
def ratings(*, users=320, items=100, tastes=4, days=100, seed=0):
    """Return events as `purchases` does, rated 1 to 5: by quality, by mood and by taste.

    Users get items at random, so popularity depends little on quality.
    """
    rng = np.random.default_rng(seed)
    taste, shelf = rng.integers(0, tastes, users), np.arange(items) % tastes
    quality, mood = rng.normal(0, 0.4, items), rng.normal(0, 0.4, users)
    rows = []
    for user in range(users):
        for day in range(days):
            if rng.random() < 0.6:
                item = int(rng.integers(0, items))
                liked = 1.2 if shelf[item] == taste[user] else -0.7
                score = 3.2 + quality[item] + mood[user] + liked + rng.normal(0, 0.5)
                at = START + timedelta(days=day, seconds=int(rng.integers(0, 60_000)))
                rows.append((at, f"u{user}", f"i{item}", float(np.clip(np.rint(score), 1, 5))))
    rows.sort()
    return pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(rows))],
            "user_id": [row[1] for row in rows],
            "item_id": [row[2] for row in rows],
            "value": [str(row[3]) for row in rows],
            "timestamp": [row[0].strftime("%Y-%m-%dT%H:%M:%SZ") for row in rows],
        }
    )


def moved(events: pl.DataFrame, by: timedelta) -> pl.DataFrame:
    """Return the events as if they had happened that much later."""
    form = "%Y-%m-%dT%H:%M:%SZ"
    at = pl.col("timestamp").str.to_datetime(form) + by
    return events.with_columns(at.dt.strftime(form))


def land(home: Path, events: pl.DataFrame, until: datetime, since: datetime | None = None) -> Path:
    """Write the events of a span into the landing folder, as one file named by its end."""
    text = pl.col("timestamp")
    rows = events.filter(text < until.strftime("%Y-%m-%dT%H:%M:%SZ"))
    if since is not None:
        rows = rows.filter(text >= since.strftime("%Y-%m-%dT%H:%M:%SZ"))
    path = home / "landing" / "events" / f"shop-{until:%Y%m%d}.csv"
    rows.write_csv(path)
    old = START.timestamp()
    os.utime(path, (old, old))
    return path


def catalogue(home: Path, items=160) -> Path:
    """Land all items, every tenth of them sold out."""
    path = home / "landing" / "items" / "items.csv"
    pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(items)],
            "title": [f"Item {n}" for n in range(items)],
            "available": ["false" if n % 10 == 9 else "true" for n in range(items)],
        }
    ).write_csv(path)
    os.utime(path, (START.timestamp(), START.timestamp()))
    return path


def copy_of(home: Path, target: Path) -> Path:
    """Copy a workspace; the paths in its MLflow database become those of the copy."""
    shutil.copytree(home, target)
    relocate_artifact_uris(target / "mlflow" / "mlflow.db")
    forget_places()
    return target


def forget_mlflow() -> None:
    """Empty MLflow's caches of stores and connections, as in a new process.

    A process keeps connections to a database that was moved away.
    """
    forget_places()
    for store in ("tracking", "model_registry"):
        module = sys.modules.get(f"mlflow.store.{store}.sqlalchemy_store")
        engines = {} if module is None else module.SqlAlchemyStore._engine_map
        for engine in engines.values():
            engine.dispose()
        engines.clear()
    for name in ("_tracking_service", "_model_registry"):
        utils = sys.modules.get(f"mlflow.tracking.{name}.utils")
        stores = [kept for kept in vars(utils or sys).values() if hasattr(kept, _STORE_CACHE)]
        for kept in stores:
            getattr(kept, _STORE_CACHE).cache_clear()


def forget_places() -> None:
    """Empty MLflow's cache of artifact paths, which a process keeps by the id of the run.

    The runs of a copy have the ids of those that they are copies of.
    """
    kept = sys.modules.get("mlflow.tracking._tracking_service.utils")
    if kept is not None:
        kept._artifact_repos_cache.clear()
