"""Users without events: from the table of users to lists by their features."""

import os
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import REFIT, EvaluationFile
from tests.integration.test_new_items import CONFIG
from tests.served import served
from tests.worlds import NIGHTS, START, land, purchases

pytestmark = pytest.mark.slow

TASTES, KNOWN, ALL = 4, 240, 330
"""Users from `KNOWN` on have their first events in the holdout; the last ten have none."""


def tastes():
    """The taste of each user in `purchases`, and of ten more."""
    drawn = np.random.default_rng(0).integers(0, TASTES, 320)
    return [*drawn.tolist(), *(n % TASTES for n in range(10))]


def night(workspace, home, values):
    """Run a night in a shop whose table of users holds these values of `taste`."""
    ws = workspace(home, CONFIG)
    holdout = format_instant(NIGHTS[0] - timedelta(days=7))
    known = pl.col(c.USER_ID).str.slice(1).cast(pl.Int64) < KNOWN
    land(home, purchases().filter(known | (pl.col("timestamp") >= holdout)), NIGHTS[0])
    shelf = [f"shelf {n % TASTES}" for n in range(160)]
    tables = {
        "items": pl.DataFrame({c.ITEM_ID: [f"i{n}" for n in range(160)], "categories": shelf}),
        "users": pl.DataFrame({c.USER_ID: [f"u{n}" for n in range(ALL)], "taste": values}),
    }
    for name, frame in tables.items():
        path = home / "landing" / name / f"{name}.csv"
        frame.write_csv(path)
        os.utime(path, (START.timestamp(), START.timestamp()))
    feedback(ws, NIGHTS[0])
    ended = nightly(ws, NIGHTS[0])
    assert ended.recipe == "known"
    judged = ws.run(ended.run_id).read(EvaluationFile).recipes
    assert judged["popularity"].new_users is None
    users = [f"u{n}" for n in range(320, ALL)]
    rows = lists(ws, users).filter(pl.col(c.USER_ID) != c.FALLBACK_USER)
    names = ws.vault.lookup(users)
    model = served(ws.run(ended.run_id).folder / REFIT)
    answer = model.predict(None, pd.DataFrame({c.USER_ID: [names[user] for user in users]}))
    published = rows.sort(pl.col(c.USER_ID).str.slice(1).cast(pl.Int64), c.POSITION)
    assert answer[c.ITEM_ID].tolist() == published[c.ITEM_ID].to_list()
    assert set(answer[c.SLOT]) == {c.Slot.FALLBACK.value}
    assert set(answer[c.KNOWN]) == {judged["known"].new_users.better}
    return judged["known"].new_users, rows


def test_features_that_follow_the_taste_give_lists_of_it(workspace, tmp_path):
    judged, rows = night(workspace, tmp_path / "home", [f"likes {n}" for n in tastes()])
    assert judged.users >= 50 and judged.better and judged.ndcg > judged.fallback_ndcg
    assert set(rows[c.SLOT]) == {"fallback"} and set(rows[c.REASON]) == {"known"}
    right = [int(item[1:]) % TASTES == (int(user[1:]) - 320) % TASTES
             for user, item in rows.select(c.USER_ID, c.ITEM_ID).rows()]  # fmt: skip
    assert len(right) == 200 and np.mean(right) > 0.9


def test_random_features_leave_the_fallback_list(workspace, tmp_path):
    random = np.random.default_rng(1).integers(0, TASTES, ALL)
    judged, rows = night(workspace, tmp_path / "home", [f"likes {n}" for n in random.tolist()])
    assert judged.users >= 50 and not judged.better
    assert set(rows[c.REASON]) == {"decayed_popularity"}
