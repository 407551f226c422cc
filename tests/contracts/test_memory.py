"""Estimates of `peak_bytes` beside the measured peak memory of a process that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.data.matrix import History
from pipeline.models import families
from pipeline.models.als import Als
from pipeline.models.biased_mf import BiasedMf
from pipeline.models.bpr import Bpr
from pipeline.models.contract import Recipe
from pipeline.models.ease import Ease
from pipeline.models.item_knn import ItemKnn
from pipeline.models.lightfm import LightFm
from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.popularity import DecayedPopularity, Popularity
from pipeline.models.repeat_purchase.recipe import RepeatPurchase
from pipeline.models.rp3beta import Rp3Beta
from pipeline.models.svd import Svd

ROOT = Path(__file__).parents[2]
END = datetime(2026, 3, 1, tzinfo=UTC)
US_PER_DAY = 86_400_000_000
EVENTS = 1_500_000
RECIPES: dict[str, Recipe] = {
    "popularity": Popularity(),
    "decayed_popularity": DecayedPopularity(),
    "personal_frequency": PersonalFrequency(),
    "repeat_purchase": RepeatPurchase(iterations=1),
    "als": Als(iterations=1, device="cpu"),
    "svd": Svd(factors=256),
    "bpr": Bpr(iterations=1),
    "biased_mf": BiasedMf(iterations=1),
    "item_knn": ItemKnn(),
    "ease": Ease(item_limit=6_000),
    "rp3beta": Rp3Beta(),
    "ridge": families.recipe_from(
        {"family": "ridge", "factors_of": {"family": "als", "iterations": 1, "device": "cpu"}}
    ),
    "lightfm": LightFm(iterations=1),
    "blend": families.recipe_from(
        {
            "family": "blend",
            "parts": {
                "als": {"family": "als", "factors": 256, "iterations": 1, "device": "cpu"},
                "svd": {"family": "svd", "factors": 256},
                "knn": {"family": "item_knn", "neighbours": 400},
                "rp3beta": {"family": "rp3beta", "neighbours": 400},
            },
            "recency_boost": 0.25,
        }
    ),
}
"""One for each family, with usual sizes; rounds do not change the peak."""
# The first training allocates imports and the BLAS's buffers, which estimates leave out; so the
# child trains on a small window first. `clear_refs` then makes the peak that of now.
CHILD = """
import gc, json, sys
import numpy as np
from pathlib import Path
from pipeline.data.matrix import History
from pipeline.models import families

def read(name):
    return History.from_arrays(dict(np.load(sys.argv[1] + "/" + name + ".npz")))

def kib(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))

recipe = families.recipe_from(json.loads(sys.argv[2]))
recipe.train(read("small"))
history = read("large")
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = kib("VmRSS")
scorer = recipe.train(history)
print(json.dumps((kib("VmHWM") - before) * 1024))
"""


def features(rng: np.random.Generator, rows: int, width: int, each: int) -> FeatureMatrix:
    """Rows with some features, a few of which many rows have."""
    column = (rng.beta(0.5, 3, rows * each) * width).astype(np.int32)
    cells = sp.csr_matrix(
        (np.ones(rows * each, np.float32), (np.repeat(np.arange(rows), each), column)),
        shape=(rows, width),
    )
    return FeatureMatrix(np.array([f"f={at:05}" for at in range(width)]), cells)


def synthetic(events: int, n_users: int, n_items: int) -> History:
    """Users with a few items or many, items with few users or many; a third of the events repeat.

    Items have a quarter as many features as there are items, users have few.
    """
    rng = np.random.default_rng(0)
    busy = rng.gamma(0.7, size=n_users) + 0.05
    known = 1.0 / (10 + np.arange(n_items))
    user = np.sort(rng.choice(n_users, events, p=busy / busy.sum()))
    item = rng.choice(n_items, events, p=known / known.sum())
    again = np.flatnonzero((rng.random(events) < 0.3) & (np.diff(user, prepend=-1) == 0))
    item[again] = item[again - 1]
    days = rng.uniform(0.1, 300, events)
    at = END.timestamp() * 1e6 - days * US_PER_DAY
    order = np.lexsort((at, user))
    return History(
        user_ids=np.array([f"u{user:07}" for user in range(n_users)]),
        item_ids=np.array([f"i{item:07}" for item in range(n_items)]),
        indptr=np.searchsorted(user, np.arange(n_users + 1)).astype(np.int64),
        item=item[order].astype(np.int32),
        timestamp_us=at[order].astype(np.int64),
        weight=np.ones(events, np.float32),
        end=END,
        rating=rng.integers(1, 6, events).astype(np.float32),
        item_features=features(rng, n_items, n_items // 4, 6),
        user_features=features(rng, n_users, 60, 3),
    )


@pytest.fixture(scope="module")
def windows(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("windows")
    np.savez(folder / "small.npz", **synthetic(5_000, 300, 100).arrays())
    np.savez(folder / "large.npz", **synthetic(EVENTS, 60_000, 12_000).arrays())
    return folder


def test_every_family_of_its_own_has_a_row():
    assert RECIPES.keys() == families.FAMILIES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_the_estimate_is_within_30_percent_of_the_peak(recipe, windows):
    if recipe.family == "lightfm":
        pytest.importorskip("lightfm")
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(windows), recipe.model_dump_json()],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    peak = json.loads(child.stdout)
    estimate = recipe.peak_bytes(History.from_arrays(dict(np.load(windows / "large.npz"))))
    assert 0.7 * peak <= estimate <= 1.3 * peak, f"{estimate / 2**20:.0f} of {peak / 2**20:.0f} MiB"
