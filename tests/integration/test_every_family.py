"""A complete night with each family: training, evaluation, cost and decision."""

import importlib.util
import math
import os

import polars as pl
import pytest

from pipeline.models.families import FAMILIES
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import EvaluationFile
from pipeline.workspace.release_artifacts import DecisionFile
from tests.worlds import NIGHTS, START, land, purchases, ratings

USERS, ITEMS = 150, 60
CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"

[split]
task = "repeat"    # families that list what people had take part
min_users = 60

[gate]
min_users = 60

[publish]
live_from = "as_of"
"""
RECIPES = {
    "popularity": "",
    "decayed_popularity": "",
    "personal_frequency": "",
    "repeat_purchase": "iterations = 10",
    "als": "factors = 8\niterations = 5",
    "svd": "factors = 8",
    "bpr": "factors = 8\niterations = 50",
    "item_knn": "",
    "ease": "",
    "rp3beta": "",
    "biased_mf": "factors = 4",
    "ridge": 'factors_of = { family = "als", factors = 8, iterations = 5 }',
    "lightfm": "factors = 8\niterations = 5",
    "blend": 'parts = { als = { family = "als", factors = 8 }, '
    'own = { family = "personal_frequency" } }',
}
"""Fields of one small recipe of each family."""
LOWEST = "popularity"
"""Every other family is judged against it, and it against none."""
OPTIONAL = {"lightfm": "lightfm"}
"""Families whose library an environment may do without."""


def missing(family):
    return family in OPTIONAL and importlib.util.find_spec(OPTIONAL[family]) is None


def stock(home):
    """Write the items with their shelf, the one property that features can distinguish."""
    path = home / "landing" / "items" / "items.csv"
    pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "categories": [f"shelf {n % 4}" for n in range(ITEMS)],
        }
    ).write_csv(path)
    os.utime(path, (START.timestamp(), START.timestamp()))


@pytest.fixture(scope="module")
def night(tmp_path_factory, workspace):
    """A first night over purchases and ratings with one recipe of each family."""
    recipes = [
        f'[recipes.{family}]\nfamily = "{family}"\n{fields}\n'
        for family, fields in RECIPES.items()
        if not missing(family)
    ]
    ws = workspace(tmp_path_factory.mktemp("families") / "home", CONFIG + "\n".join(recipes))
    bought = purchases(users=USERS, items=ITEMS, days=72)
    rated = ratings(users=USERS, items=ITEMS, days=72)
    events = pl.concat(
        [
            frame.with_columns(
                pl.lit(kind).alias("kind"),
                pl.concat_str(pl.lit(kind), "event_id").alias("event_id"),
            )
            for kind, frame in (("purchase", bought), ("rating", rated))
        ]
    )
    stock(ws.home)
    land(ws.home, events, NIGHTS[0])
    result = feedback(ws, NIGHTS[0])
    assert not result.failed
    return ws, nightly(ws, NIGHTS[0])


def test_there_is_a_recipe_of_every_family():
    assert set(RECIPES) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_measured_and_judged(night, family):
    if missing(family):
        pytest.skip(f"{family} is not installed: `make {family}` brings it")
    ws, ended = night
    run = ws.run(ended.run_id)
    assert family not in ended.failures
    metrics = run.read(EvaluationFile).recipes[family].metrics
    assert 0 < metrics["ndcg_at_20"] < 1
    cost = ended.cost[family].fit
    assert cost.fit_seconds > 0
    assert cost.peak_mb >= 0
    assert cost.parameters > 0
    assert cost.examples_per_second > 0 and math.isfinite(cost.examples_per_second)
    rules = run.read(DecisionFile).root.rules
    if family == LOWEST:
        judged = [rule for rule in rules if rule.name.endswith(f".{family}")]
    else:
        judged = [rule for rule in rules if rule.subject == family]
    assert judged and all(rule.sentence for rule in judged)


def test_the_night_ends_with_a_champion(night):
    _, ended = night
    assert (ended.status, ended.decision, ended.failures) == ("done", "first", {})
    assert ended.recipe in RECIPES
