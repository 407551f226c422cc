from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.data.matrix import History
from pipeline.models.blend_weights import MAX_TRADED_GAIN, Mixture, optimise_mixture
from pipeline.models.tuning import CandidatePool, PartScores, StabilityCheck

WEIGHTS = (0.0, 0.3, 1.0, 3.0)
TRENDS = (0.0, 0.25, 0.5)


def history(n_items) -> History:
    return History(
        user_ids=np.array(["u"]),
        item_ids=np.array([f"i{n:03}" for n in range(n_items)]),
        indptr=np.zeros(2, np.int64),
        item=np.zeros(0, np.int32),
        timestamp_us=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=None,
    )


def pool(scores, wanted, n_users=30, n_items=40, coverage=None):
    """`scores` and `wanted` are (n_users, n_items); NDCG is how high `wanted` is scored."""
    user, item = np.divmod(np.arange(n_users * n_items), n_items)

    def value(mixed):
        board = mixed.reshape(n_users, n_items)
        rank = np.argsort(np.argsort(-board, axis=1), axis=1)
        ndcg = float((wanted / np.log2(2 + rank)).sum() / wanted.sum())
        return ndcg, 1.0 if coverage is None else coverage(board)

    flat = {name: s.astype(np.float32).ravel() for name, s in scores.items()}
    return CandidatePool(user, PartScores(history(n_items), item, flat), value)


def no_trend(window):
    return lambda trend, spread: np.ones(window.n_items, np.float32)


def boards(seed=0, n=3):
    for k in range(n):
        rng = np.random.default_rng(seed + k)
        wanted = (rng.random((30, 40)) < 0.1).astype(float)
        yield rng, wanted


def choose(pools, start, **more):
    tries = {"weights": WEIGHTS, "recency_boost": TRENDS}
    options = {
        "grid": tries,
        "maximise_coverage": True,
        "untrended_parts": (),
        "trends": no_trend,
    } | more
    return optimise_mixture(start, pools, **options)


def test_noise_gets_no_weight_and_two_halves_both_do():
    pools = []
    for rng, wanted in boards():
        half = rng.random((30, 40)) < 0.5
        a = wanted * half + 0.3 * rng.random((30, 40))
        b = wanted * ~half + 0.3 * rng.random((30, 40))
        pools.append(pool({"a": a, "b": b, "noise": rng.random((30, 40))}, wanted))
    chosen = choose(pools, Mixture({"a": 1.0, "b": 0.0, "noise": 1.0}, 0.0, 0.0))
    assert chosen.weights["a"] > 0
    assert chosen.weights["b"] > 0
    assert chosen.weights["noise"] == 0


def test_without_pools_or_anything_to_try_the_start_stays():
    start = Mixture({"a": 1.0, "b": 0.5}, 0.25, 0.0)
    assert choose([], start) == start
    rng, wanted = next(boards())
    one = pool({"a": wanted, "b": rng.random((30, 40))}, wanted)
    assert choose([one], start, grid={}) == start


def test_the_trend_is_detected_and_spares_steady_items():
    fresh = np.arange(40) % 2

    def trends(trend, spread):
        return np.where(fresh, 1.0, 0.5**trend).astype(np.float32)

    pools = []
    for rng, _ in boards():
        wanted = (rng.random((30, 40)) < 0.1) * fresh
        pools.append(pool({"a": wanted + 3 * rng.random((30, 40))}, wanted.astype(float)))
    start = Mixture({"a": 1.0}, 0.0, 0.0)
    assert choose(pools, start, trends=lambda _: trends).recency_boost == 0.5
    assert (
        choose(pools, start, trends=lambda _: trends, untrended_parts=("a",)).recency_boost == 0.0
    )


def test_it_is_never_worse_than_the_best_part_alone():
    """The trend that the parts start with may hurt all of them."""

    def trends(trend, spread):
        return np.where(np.arange(40) % 2, 0.01**trend, 1.0).astype(np.float32)

    pools = []
    for rng, _ in boards():
        wanted = (rng.random((30, 40)) < 0.1) * (np.arange(40) % 2.0)
        a = wanted + 0.5 * rng.random((30, 40))
        pools.append(pool({"a": a, "b": rng.random((30, 40))}, wanted))
    start = Mixture({"a": 0.0, "b": 1.0}, 0.25, 0.0)
    chosen = choose(pools, start, trends=lambda _: trends)
    assert chosen.recency_boost == 0
    alone = Mixture({"a": 1.0}, 0.0, 0.0)
    assert mixed_value(pools, chosen)[0] >= mixed_value(pools, alone)[0]


def test_coverage_costs_at_most_the_traded_gain():
    """`dull` covers all items but predicts nothing: its coverage gets it little weight."""
    for seed in range(5):
        pools = []
        for rng, wanted in boards(seed):

            def wide(board):
                return len(np.unique(np.argsort(-board, axis=1)[:, :3])) / 40

            a = wanted * rng.random((30, 40)) + 0.2 * rng.random((30, 40))
            b = wanted * rng.random((30, 40)) + 0.2 * rng.random((30, 40))
            dull = np.roll(np.eye(40)[:30], 3, axis=1)
            pools.append(pool({"a": a, "b": b, "dull": dull}, wanted, coverage=wide))
        start = Mixture({"a": 1.0, "b": 1.0, "dull": 1.0}, 0.0, 0.0)
        tries = {"weights": WEIGHTS}
        narrow, wider = (
            mixed_value(pools, choose(pools, start, grid=tries, maximise_coverage=w))
            for w in (False, True)
        )
        alone = max(mixed_value(pools, Mixture({n: 1.0}, 0.0, 0.0))[0] for n in "ab")
        won = np.log(narrow[0] / alone)
        assert won > 0.01
        assert np.log(narrow[0] / wider[0]) <= MAX_TRADED_GAIN * won + 1e-9
        assert wider[1] >= narrow[1]


def mixed_value(pools, mixture):
    """Geometric means of NDCG and coverage over the windows."""
    values = []
    for one in pools:
        parts = [one.part_scores.scores[n].reshape(30, 40) * w for n, w in mixture.weights.items()]
        scale = [
            one.part_scores.scores[n].reshape(30, 40).max(axis=1, keepdims=True)
            for n in mixture.weights
        ]
        values.append(one.value(sum(p / s for p, s in zip(parts, scale, strict=True)).ravel()))
    return np.exp(np.log(values).mean(axis=0))


def test_of_equals_the_wider_one_wins():
    rng, wanted = next(boards())
    a = wanted + 0.01 * rng.random((30, 40))
    b = wanted + 0.01 * rng.random((30, 40))

    def wide(board):  # more of b shows more of the catalogue
        only_a = np.allclose(board / board.max(axis=1, keepdims=True), board_of_a)
        return 0.2 if only_a else 0.4

    board_of_a = a / a.max(axis=1, keepdims=True)
    one = pool({"a": a, "b": b}, wanted, coverage=wide)
    start = Mixture({"a": 1.0, "b": 0.0}, 0.0, 0.0)
    assert choose([one], start).weights["b"] > 0
    assert choose([one], start, maximise_coverage=False).weights["b"] == 0


def test_of_equals_the_more_stable_one_wins():
    """`a` and `b` find the same; a night earlier, `b` would have listed other things."""
    rng, wanted = next(boards())
    both = wanted + 0.2 * rng.random((30, 40))
    one = with_stability(
        pool({"a": both, "b": both}, wanted), {"a": both, "b": both[:, rng.permutation(40)]}
    )
    for start in ({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.0}):
        for wide in (False, True):
            chosen = choose([one], Mixture(start, 0.0, 0.0), maximise_coverage=wide)
            assert chosen.weights["a"] > 0
            assert chosen.weights["b"] == 0


def test_stability_does_not_replace_quality():
    rng, wanted = next(boards())
    good, still = wanted + 0.2 * rng.random((30, 40)), np.tile(rng.random(40), (30, 1))
    then = wanted + rng.random((30, 40))
    one = with_stability(
        pool({"good": good, "still": still}, wanted), {"good": then, "still": still}
    )
    chosen = choose([one], Mixture({"good": 0.0, "still": 1.0}, 0.0, 0.0))
    assert chosen.weights["good"] > 0


@pytest.mark.parametrize("still", [False, True])
def test_stability_and_coverage_cost_at_most_the_traded_gain(still):
    """`dull` covers all items, stable or not; `a` and `b` are better and change a little."""
    for seed in range(5):
        pools = []
        for rng, wanted in boards(seed):

            def wide(board):
                return len(np.unique(np.argsort(-board, axis=1)[:, :3])) / 40

            scores = {
                "a": wanted * rng.random((30, 40)) + 0.2 * rng.random((30, 40)),
                "b": wanted * rng.random((30, 40)) + 0.2 * rng.random((30, 40)),
                "dull": np.roll(np.eye(40)[:30], 3, axis=1) + 0.5 * rng.random(40),
            }
            moves = {"a": 0.2, "b": 0.2, "dull": 0.0 if still else 2.0}
            then = {n: s + moves[n] * rng.random(s.shape) for n, s in scores.items()}
            pools.append(with_stability(pool(scores, wanted, coverage=wide), then))
        start = Mixture(dict.fromkeys("ab", 1.0) | {"dull": 1.0}, 0.0, 0.0)
        tries = {"weights": WEIGHTS}
        blind = [replace(one, stability=None) for one in pools]
        best, stable, wider = (
            choose(seen, start, grid=tries, maximise_coverage=w)
            for seen, w in ((blind, False), (pools, False), (pools, True))
        )
        alone = max(mixed_value(pools, Mixture({n: 1.0}, 0.0, 0.0))[0] for n in "ab")
        top = mixed_value(pools, best)[0]
        for mixture in (stable, wider):
            cost = np.log(top / mixed_value(pools, mixture)[0])
            assert cost <= MAX_TRADED_GAIN * np.log(top / alone) + 1e-9
        assert mean_stability(pools, stable) >= mean_stability(pools, best) - 1e-9
        assert mean_stability(pools, wider) >= mean_stability(pools, best) - 1e-9


def mean_stability(pools, mixture):
    """Return the mean stability of a mixture over the windows."""

    def mixed(part_scores):
        parts = [part_scores.scores[n].reshape(30, 40) * w for n, w in mixture.weights.items()]
        most = [
            part_scores.scores[n].reshape(30, 40).max(axis=1, keepdims=True)
            for n in mixture.weights
        ]
        return sum(p / m for p, m in zip(parts, most, strict=True)).ravel()

    return np.mean(
        [
            one.stability.kept_share(mixed(one.part_scores), mixed(one.stability.part_scores))
            for one in pools
        ]
    )


def test_the_trend_of_the_previous_day_comes_from_its_window():
    rng, wanted = next(boards())
    score = wanted + rng.random((30, 40))
    one = with_stability(pool({"a": score}, wanted), {"a": score})
    windows = []

    def trends(window):
        windows.append(window.item_ids[0])
        return no_trend(window)

    choose([one], Mixture({"a": 1.0}, 0.0, 0.0), trends=trends)
    assert windows == ["i000", "then000"]


def with_stability(one, scores):
    """Return the pool with scores of the previous day: stability of the first five places."""

    def first(mixed):
        return np.argsort(np.argsort(-mixed.reshape(30, 40), axis=1), axis=1) < 5

    def kept(now, then):
        return float((first(now) & first(then)).sum() / first(then).sum())

    flat = {name: s.astype(np.float32).ravel() for name, s in scores.items()}
    then = replace(one.part_scores.history, item_ids=np.array([f"then{n:03}" for n in range(40)]))
    return replace(
        one, stability=StabilityCheck(PartScores(then, one.part_scores.item, flat), kept)
    )


def test_equal_pools_give_equal_choices():
    def once():
        pools = [
            pool({"a": wanted + rng.random((30, 40)), "b": rng.random((30, 40))}, wanted)
            for rng, wanted in boards(5)
        ]
        return choose(pools, Mixture({"a": 1.0, "b": 1.0}, 0.0, 0.0))

    assert once() == once()
