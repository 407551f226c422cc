"""Lifts without events that answer a shown list, in a planted shop with two equal recipes."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from pipeline.base import plain
from pipeline.evaluation.compare import difference
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.gate import EvaluatedRecipe, GateConfig, Reference, decide
from pipeline.evaluation.gate.answers import lifts_without_answers
from pipeline.evaluation.holdout import UNANSWERED
from tests.unit.evaluation.gate.test_gate import evidence, judged, users

CONFIG = GateConfig()


def shop(effect, n=4_000, seed=0):
    """Return the champion and an equal candidate; showing an item makes some users take it.

    A value is the share of a user's targets that a list has. The live lists hold most items of the
    champion's evaluated ones.
    """
    random = np.random.default_rng(seed)
    champions, candidates, others, live, picked = random.random((5, n))
    own = (champions < 0.3).astype(float)
    shown = own * (live < 0.6)
    picked = (picked < effect).astype(float)
    hits = {"als": own + picked, "new": (candidates < 0.3).astype(float)}
    targets = own + hits["new"] + (others < 0.9) + picked
    left = targets - shown - picked
    kept = {"als": own - shown, "new": hits["new"]}
    recipes = []
    for name in hits:
        frame = users(np.where(targets > 0, hits[name] / np.maximum(targets, 1), 0))
        rest = np.where(left > 0, kept[name] / np.maximum(left, 1), np.nan)
        frame = frame.with_columns(pl.Series(UNANSWERED, rest, nan_to_null=True))
        recipes.append(EvaluatedRecipe(name, f"hash-{name}", None, frame, 0.5, k=20))
    return recipes


@pytest.mark.parametrize("effect", [0.1, 0.3])
def test_the_true_lift_lies_between_the_two_lifts(effect):
    [lift] = [
        row for row in lifts_without_answers(evidence(*shop(effect)), CONFIG) if row.recipe == "new"
    ]
    assert lift.against == "als"
    # The lists of the champion shaped the holdout: an equal recipe seems worse.
    assert lift.lo < lift.lift < lift.hi < 0
    assert 0 < lift.lo_without < lift.lift_without < lift.hi_without
    assert lift.users_without < lift.users == 4_000


def test_both_lifts_are_those_of_the_gate():
    als, new = shop(0.1)
    [lift] = lifts_without_answers(evidence(als, new, last=None), CONFIG)
    expected = difference(new.users[NDCG].to_numpy(), als.users[NDCG].to_numpy())
    assert lift.lift == pytest.approx(expected.x)
    assert lift.hi - lift.lo == pytest.approx(2 * 1.96 * expected.se, rel=1e-3)
    rest = [recipe.users.drop_nulls(UNANSWERED) for recipe in (new, als)]
    gained = rest[0][UNANSWERED].mean() - rest[1][UNANSWERED].mean()
    assert lift.lift_without == pytest.approx(gained / rest[1][NDCG].mean())
    assert lift.users_without == len(rest[0])


def test_a_champion_without_a_hit_on_other_targets_has_a_lift_to_compare_with():
    als, new = shop(0.1)
    als = replace(als, users=als.users.with_columns(pl.col(UNANSWERED) * 0))
    [lift] = lifts_without_answers(evidence(als, new, last=None), CONFIG)
    assert lift.lo_without > 0.5


def test_tonights_fit_is_compared_with_the_last_scorer():
    als, new = shop(0.1)
    last = Reference("2024-06-23", tonight=new.users, stored=als.users)
    rows = lifts_without_answers(evidence(als, new, last=last), CONFIG)
    assert [(row.recipe, row.against) for row in rows] == [
        ("new", "als"),
        ("als", "scorer of 2024-06-23"),
    ]
    assert rows[1].lift < 0 < rows[1].lift_without


def test_too_few_users_without_answers_have_no_lift():
    als, new = shop(0.1, n=400)
    few = [
        replace(r, users=r.users.with_columns(pl.col(UNANSWERED).shift(-250))) for r in (als, new)
    ]
    [lift] = lifts_without_answers(evidence(*few, last=None), CONFIG)
    assert lift.lift is not None and lift.users_without < CONFIG.min_users
    assert lift.lift_without is lift.lo_without is lift.hi_without is None


def test_the_decision_has_the_lifts_and_no_rule_reads_them():
    als, new = shop(0.1)
    decision = decide(evidence(als, new), CONFIG)
    plain_recipes = [replace(r, users=r.users.drop(UNANSWERED)) for r in (als, new)]
    before = decide(evidence(*plain_recipes), CONFIG)
    assert before.without_answers == ()
    assert replace(decision, without_answers=()) == before
    row = plain(decision)["without_answers"][0]
    assert (row["recipe"], row["against"]) == ("new", "als") and row["lo_without"] > 0
    first = decide(evidence(als, new, champion=None), CONFIG)
    assert first.without_answers == ()
    assert judged("als").users.columns.count(UNANSWERED) == 0
