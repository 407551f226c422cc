"""A second real data set, from files to lists by config alone: ratings, times in seconds."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import as_of
from pipeline.steps.ingest.ingest import ingest
from pipeline.steps.lists import lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import EvaluationFile, SplitFile

FILES = Path(__file__).parents[2] / "build" / "movielens"
CONFIG = """\
[sources.ratings]
table = "events"
path = "ratings*.parquet"
columns = { item_id = "movie_id", value = "rating" }
constants = { kind = "rating" }
timestamp_unit = "s"

[sources.movies]
table = "items"
path = "movies*.parquet"
columns = { item_id = "movie_id", title = "movie_title" }

[sources.users]
table = "users"
path = "users*.parquet"
columns = { segment = "occupation" }

[recipes.biased_mf]
family = "biased_mf"

[recipes.biases]
family = "biased_mf"
factors = 0
"""
NIGHT = as_of("1998-04-01T00:00:00Z")


@pytest.mark.realdata
@pytest.mark.skipif(not FILES.is_dir(), reason="no build/movielens: `make movielens` fetches it")
def test_ratings_become_lists_by_config_alone(workspace, tmp_path):
    ws = workspace(tmp_path / "home", CONFIG)
    for table, name, rows in (
        ("events", "ratings", 100_000),
        ("items", "movies", 1_682),
        ("users", "users", 943),
    ):
        result = ingest(ws, [FILES / f"{name}.parquet"], table=table, at=NIGHT.replace(year=2026))
        assert (result.accepted, result.failed) == (rows, False)
    ended = nightly(ws, NIGHT)
    split = ws.run(ended.run_id).read(SplitFile)
    assert (split.task, split.target_kinds) == ("discovery", ("rating",))
    assert ended.decision == "first"
    assert "underpowered: 73 users" in ended.sentence
    listed = lists(ws, None).filter(pl.col(c.USER_ID) != c.FALLBACK_USER)
    assert listed[c.USER_ID].n_unique() == 943
    assert listed.group_by(c.USER_ID).len()["len"].min() == 20
    recipes = ws.run(ended.run_id).read(EvaluationFile).recipes
    assert any("slice.segment_student.ndcg_at_20" in r.metrics for r in recipes.values())
    assert_ratings_are_predicted(ws, ended.run_id)


def assert_ratings_are_predicted(ws, run_id):
    """On the newest four weeks: the mean of all ratings < biases < biases and factors."""
    run = ws.run(run_id)
    recipes = run.read(EvaluationFile).recipes
    given = run.frame("features", "ratings")
    window = run.arrays("features", "train")
    known = given.filter(
        pl.col(c.USER_ID).is_in(window["user_ids"].tolist())
        & pl.col(c.ITEM_ID).is_in(window["item_ids"].tolist())
    )
    assert known.height == recipes["biased_mf"].metrics["ratings"] > 1000
    mean = float(np.sqrt(np.mean((known[c.VALUE].to_numpy() - window["rating"].mean()) ** 2)))
    biases, rated = (recipes[name].metrics["rmse"] for name in ("biases", "biased_mf"))
    assert rated < 0.99 * biases < 0.98 * 0.95 * mean
