from __future__ import annotations

import numpy as np
import pytest

from pipeline.models.personal_frequency import PersonalFrequency
from pipeline.models.popularity import DecayedPopularity, Popularity, item_popularity
from pipeline.models.topk import top_k
from tests.windows import window


def random_rows(seed):
    rng = np.random.default_rng(seed)
    return [
        (
            f"u{rng.integers(9)}",
            f"i{rng.integers(30):02}",
            float(rng.uniform(0.5, 200)),
            float(rng.choice([1.0, 3.0, 0.0, -1.0])),
        )
        for _ in range(150)
    ]


@pytest.mark.parametrize("half_life", [None, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_popularity_is_a_loop_over_users(seed, half_life):
    rows = random_rows(seed)
    history = window(rows)
    expected = dict.fromkeys(history.item_ids.tolist(), 0.0)
    for item in expected:
        for user in {u for u, *_ in rows}:
            mine = [(days, weight) for u, i, days, weight in rows if (u, i) == (user, item)]
            if sum(weight for _, weight in mine) > 0:
                newest = min(days for days, weight in mine if weight > 0)
                expected[item] += 1.0 if half_life is None else 0.5 ** (newest / half_life)
    popularity = item_popularity(history, half_life)
    assert popularity.dtype == np.float32
    np.testing.assert_allclose(popularity, list(expected.values()), rtol=1e-5)
    assert min(expected.values()) < max(expected.values())


def test_users_count_once_and_the_newest_counts_most():
    rows = [("a", "often", 10 + day, 1.0) for day in range(30)]
    rows += [("b", "two", 50, 1.0), ("c", "two", 50, 1.0), ("d", "new", 1, 1.0)]
    history = window(rows)
    ever = top_k(Popularity().train(history).score(history), 3).of(0)
    late = top_k(DecayedPopularity(half_life_days=20).train(history).score(history), 3).of(0)
    assert history.item_ids[ever].tolist() == ["two", "new", "often"]
    assert history.item_ids[late].tolist() == ["new", "often", "two"]


@pytest.mark.parametrize("seed", range(4))
def test_own_items_come_first_in_the_order_of_decayed_counts(seed):
    history = window(random_rows(seed))
    scorer = PersonalFrequency(half_life_days=90, popularity_half_life_days=20).train(history)
    lists = top_k(scorer.score(history), history.n_items)
    own = history.confidence(90).toarray()
    popularity = item_popularity(history, 20)
    for user in range(history.n_users):
        listed = lists.of(user)
        mine = int((own[user] > 0).sum())
        assert 0 < mine < history.n_items
        assert (own[user, listed[:mine]] > 0).all()
        # Nearer than a thousandth, popularity may decide.
        assert (np.diff(own[user, listed[:mine]]) <= 1e-3 * own[user, listed[:mine]].min()).all()
        assert (np.diff(popularity[listed[mine:]]) <= 0).all()
