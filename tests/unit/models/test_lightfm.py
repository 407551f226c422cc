from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.matrix import History
from pipeline.models.lightfm import LightFm
from pipeline.models.ridge import Ridge
from pipeline.models.topk import top_k
from tests.raising import raises
from tests.windows import described, grouped, strangers, window, with_groups

RECIPE = LightFm(factors=8, iterations=20, half_life_days=None)


@pytest.fixture(autouse=True)
def _library(request):
    if "without_the_library" not in request.node.name:
        pytest.importorskip("lightfm")


def own_group(scorer, history: History) -> float:
    """Share of the entries of lists of ten that are of the user's own group."""
    lists = top_k(scorer.score(history), 10)
    items = scorer.item_ids[lists.item]
    users = history.user_ids[lists.row]
    return float(np.mean([item[1] == user[1] for item, user in zip(items, users, strict=True)]))


@pytest.mark.parametrize("loss", ["warp", "bpr"])
def test_it_learns_groups_from_events_alone(loss):
    history = grouped()
    scorer = RECIPE.model_copy(update={"loss": loss}).train(history)
    assert own_group(scorer, history) > 0.95


def test_logistic_learns_from_negative_events():
    history = grouped(dislikes=True)
    recipe = RECIPE.model_copy(update={"loss": "logistic", "iterations": 40})
    assert own_group(recipe.train(history), history) > 0.9


def test_the_items_are_those_of_the_library(monkeypatch):
    from lightfm import LightFM

    made = []

    def kept(self, *arguments, fit=LightFM.fit_partial, **named):
        made.append((self, arguments))
        return fit(self, *arguments, **named)

    monkeypatch.setattr(LightFM, "fit_partial", kept)
    history = with_groups(grouped(), cold_items=False)
    scores = RECIPE.train(history).score(history)
    model, (_, _, of_items, _) = made[-1]
    assert len(made) == RECIPE.iterations
    biases, vectors = model.get_item_representations(of_items)
    np.testing.assert_allclose(scores.items[:, :-1], vectors, atol=1e-6)
    np.testing.assert_allclose(scores.items[:, -1], biases, atol=1e-6)
    assert np.abs(biases).max() > 0.01


def test_folded_in_users_have_nearly_the_vectors_of_the_descent(monkeypatch):
    from lightfm import LightFM

    models = []

    def kept(self, *arguments, fit=LightFM.fit_partial, **named):
        models.append(self)
        return fit(self, *arguments, **named)

    monkeypatch.setattr(LightFM, "fit_partial", kept)
    history = grouped()
    scorer = RECIPE.train(history)
    folded, learnt = scorer.fold_in(history).users, models[-1].user_embeddings
    assert (folded[:, -1] == 1.0).all()
    error = np.square(folded[:, :-1] - learnt).sum()
    assert error < 0.1 * np.square(learnt - learnt.mean(axis=0)).sum()


def test_a_described_user_keeps_the_features_and_gains_the_events():
    history = with_groups(grouped(), cold_items=False)
    scorer = RECIPE.train(history)
    bare = replace(history, user_features=None)
    gained = scorer.fold_in(history).users - scorer.fold_in(bare).users
    features = scorer.score(strangers(history, [[0], [1], [2]])).users
    groups = [int(user[1]) for user in history.user_ids.tolist()]
    np.testing.assert_allclose(gained[:, :-1], features[groups, :-1], atol=1e-6)


def test_features_of_some_users_only():
    history = with_groups(grouped(), cold_items=False)
    rows = [[int(user[1])] if n % 2 else [] for n, user in enumerate(history.user_ids.tolist())]
    some = replace(history, user_features=described(rows))
    scorer = RECIPE.train(some)
    assert own_group(scorer, some) > 0.95
    lists = top_k(scorer.score(strangers(some, [[0], [], [2]])), 5)
    assert lists.counts.tolist() == [5, 0, 5]


def test_a_fit_that_learnt_nothing_gives_finite_scores():
    history = window([("a", "x", 9, 1.0), ("b", "x", 9, 1.0)])
    assert np.isfinite(RECIPE.train(history).score(history).users).all()


def test_an_item_of_which_nothing_is_known_is_learnt_from_its_events():
    history = with_groups(grouped())
    rows = [[int(item[1])] for item in history.item_ids.tolist()]
    rows[0] = []
    scorer = RECIPE.train(replace(history, item_features=described(rows), cold_items=None))
    assert own_group(scorer, history) > 0.9
    scores = scorer.score(history)
    liked = scores.users @ scores.items[:2].T
    fans = np.char.startswith(history.user_ids, "u" + history.item_ids[0][1])
    blank, with_featuresone = liked[fans].mean(axis=0) - liked[~fans].mean(axis=0)
    assert blank > 0.3 * with_featuresone > 0


def test_a_row_of_features_weighs_the_same_however_large_its_cells():
    def louder(known):
        return None if known is None else replace(known, cells=known.cells * np.float32(4))

    history = with_groups(grouped(), cold_items=False)
    loud = replace(
        history,
        item_features=louder(history.item_features),
        user_features=louder(history.user_features),
    )
    one, other = RECIPE.train(history), RECIPE.train(loud)
    assert one.item_factors.tobytes() == other.item_factors.tobytes()
    users = strangers(history, [[0, 1]])
    scores = [
        one.score(some).users.tobytes()
        for some in (users, replace(users, user_features=louder(users.user_features)))
    ]
    assert scores[0] == scores[1]


def test_an_example_weighs_its_confidence():
    history = grouped()
    heavy = history.weight.copy()
    heavy[history.indptr[0]] = 50.0
    one, other = RECIPE.train(history), RECIPE.train(replace(history, weight=heavy))
    scaled = RECIPE.train(replace(history, weight=history.weight * 8))
    assert one.item_factors.tobytes() != other.item_factors.tobytes()
    assert one.item_factors.tobytes() == scaled.item_factors.tobytes()


def test_a_user_without_net_purchases_gets_no_list():
    history = grouped()
    weight = history.weight.copy()
    weight[: history.indptr[1]] = 0.0
    bare = replace(history, weight=weight)
    lists = top_k(RECIPE.train(bare).score(bare), 5)
    assert lists.counts.tolist() == [0] + [5] * (history.n_users - 1)
    with_features = with_groups(bare, cold_items=False)
    lists = top_k(RECIPE.train(with_features).score(with_features), 5)
    assert lists.counts.tolist() == [5] * history.n_users


def test_it_can_be_the_base_of_ridge():
    history = with_groups(grouped())
    scorer = Ridge(factors_of=RECIPE).train(history)
    longer = history.reindex_items(scorer.item_ids)
    some, new = longer.take(np.array([25, 3])), strangers(longer, [[2], []])
    assert top_k(scorer.score(some), 3).counts.tolist() == [3, 3]
    both = replace(
        some,
        user_ids=np.concatenate([some.user_ids, new.user_ids]),
        indptr=np.concatenate([some.indptr, some.indptr[-1:], some.indptr[-1:]]),
        user_features=described([[2], [0], [2], []]),
    )
    lists = top_k(scorer.score(both), 5)
    assert lists.counts.tolist() == [5, 5, 5, 0]
    assert lists.of(0).tolist() == top_k(scorer.score(some), 5).of(0).tolist()
    assert {item[1] for item in scorer.item_ids[lists.of(2)].tolist()} <= {"2"}


def test_without_the_library_the_error_names_the_next_step(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightfm", None)
    with raises("extra.lightfm_missing"):
        RECIPE.train(grouped())


def test_more_threads_are_the_same_recipe():
    assert LightFm(threads=2).hash == LightFm().hash != LightFm(loss="bpr").hash
