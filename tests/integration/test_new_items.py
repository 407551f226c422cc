"""Items without an event, from a file of the catalogue to users' lists."""

import os
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.data.matrix import History
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import train_step
from pipeline.workspace.night import open_night
from pipeline.workspace.run_files import read_history, read_scorer
from tests.worlds import NIGHTS, START, land, purchases

pytestmark = pytest.mark.slow

SHELVES = 4
OLD = [f"new{shelf}" for shelf in range(SHELVES)]
"""New items, one a shelf, that were there before the holdout of the first night begins."""
CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "purchase" }

[split]
task = "discovery"

[publish]
live_from = "as_of"

[recipes.known]
family = "ridge"
[recipes.known.factors_of]
family = "als"
factors = 8
alpha = 4.0
regularization = 1.0
iterations = 5
"""


def stock(home):
    """The items of the shop with their shelf, and new ones; some of them cannot be bought."""
    ids = [*(f"i{n}" for n in range(160)), *OLD, "fresh0", "undated", "later", "gone0"]
    shelves = [*(n % SHELVES for n in range(160)), *range(SHELVES), 0, 0, 0, 0]
    created = [None] * 160 + [format_instant(START)] * SHELVES
    created += [format_instant(NIGHTS[0] - timedelta(hours=1)), None]
    created += [format_instant(NIGHTS[1] + timedelta(days=1)), format_instant(START)]
    path = home / "landing" / "items" / "items.csv"
    pl.DataFrame(
        {
            "item_id": ids,
            "categories": [f"shelf {shelf}" for shelf in shelves],
            "created_at": created,
            "available": ["false" if item == "gone0" else "true" for item in ids],
        }
    ).write_csv(path)
    os.utime(path, (START.timestamp(), START.timestamp()))


@pytest.fixture(scope="module")
def shop(tmp_path_factory, workspace):
    home = tmp_path_factory.mktemp("stocked") / "home"
    ws = workspace(home, CONFIG)
    events = purchases()
    stock(home)
    land(home, events, NIGHTS[0])
    feedback(ws, NIGHTS[0])
    first = nightly(ws, NIGHTS[0])
    land(home, events, NIGHTS[1], NIGHTS[0])
    feedback(ws, NIGHTS[1])
    return ws, first, nightly(ws, NIGHTS[1])


def test_the_night_passes_the_gate_and_the_cold_check(shop):
    _, first, second = shop
    assert (first.decision, first.recipe) == ("first", "known")
    assert (second.decision, second.recipe) == ("refresh", "known")


def test_a_window_has_items_before_its_end_without_users(shop):
    ws, first, _ = shop
    run = open_night(ws, first.run_id).run
    train, full = (read_history(run, name) for name in ("train", "full"))
    assert train.item_features.names.tolist() == [f"categories=shelf {n}" for n in range(SHELVES)]
    assert train.cold_items.ids.tolist() == sorted([*OLD, "gone0"])
    assert full.cold_items.ids.tolist() == sorted([*OLD, "gone0", "fresh0"])


def test_only_the_family_that_can_lists_them(shop):
    ws, first, _ = shop
    run = open_night(ws, first.run_id).run
    train = read_history(run, "train")
    catalogues = {
        name: read_scorer(run, train_step(name)).item_ids.tolist()
        for name in ("known", "popularity", "decayed_popularity")
    }
    known = catalogues.pop("known")
    assert set(known) == {*train.item_ids.tolist(), *OLD, "gone0"}
    assert all(ids == train.item_ids.tolist() for ids in catalogues.values())
    refit = History.from_arrays(run.arrays("refit", "history"))
    assert refit.item_ids.tolist() == read_scorer(run, "refit").item_ids.tolist()
    assert "fresh0" in refit.item_ids


def test_users_get_new_items_of_their_taste(shop):
    ws, _, _ = shop
    rows = lists(ws, None).filter(pl.col(c.USER_ID) != c.FALLBACK_USER)
    shown = rows.filter(pl.col(c.ITEM_ID).is_in([*OLD, "fresh0"]))
    assert shown.height > 50
    assert not set(rows[c.ITEM_ID]) & {"gone0", "undated", "later"}
    bought = purchases().filter(pl.col("timestamp") < format_instant(NIGHTS[1]))
    shelf = bought.select(
        c.USER_ID, pl.col(c.ITEM_ID).str.slice(1).cast(pl.Int64) % SHELVES
    ).group_by(c.USER_ID)
    taste = dict(shelf.agg(pl.col(c.ITEM_ID).mode().first()).rows())
    right = [
        item[-1] == str(taste[user]) for user, item in shown.select(c.USER_ID, c.ITEM_ID).rows()
    ]
    assert np.mean(right) > 0.9


def test_the_list_for_anyone_holds_no_item_without_users(shop):
    ws, _, _ = shop
    anyone = lists(ws, ["*"])
    assert anyone[c.SLOT].unique().to_list() == ["fallback"]
    assert len(anyone) == 20
    assert anyone[c.ITEM_ID].str.starts_with("i").all()
