from __future__ import annotations

import numpy as np

from pipeline.data.matrix import History
from pipeline.models.tuning import Pool
from pipeline.models.weighing import Mixture, choose

WEIGHTS = (0.0, 0.3, 1.0, 3.0)
TRENDS = (0.0, 0.25, 0.5)


def history(n_items) -> History:
    return History(
        user_ids=np.array(["u"]),
        item_ids=np.array([f"i{n:03}" for n in range(n_items)]),
        indptr=np.zeros(2, np.int64),
        item=np.zeros(0, np.int32),
        at=np.zeros(0, np.int64),
        weight=np.zeros(0, np.float32),
        end=None,
    )


def pool(scores, wanted, n_users=30, n_items=40, wide=None):
    """`scores` and `wanted` are (n_users, n_items); NDCG is how high `wanted` is scored."""
    user, item = np.divmod(np.arange(n_users * n_items), n_items)

    def value(mixed):
        board = mixed.reshape(n_users, n_items)
        rank = np.argsort(np.argsort(-board, axis=1), axis=1)
        ndcg = float((wanted / np.log2(2 + rank)).sum() / wanted.sum())
        return ndcg, 1.0 if wide is None else wide(board)

    flat = {name: s.astype(np.float32).ravel() for name, s in scores.items()}
    return Pool(user, item, flat, history(n_items), value)


def no_trend(window, trend, spread):
    return np.ones(window.n_items, np.float32)


def boards(seed=0, n=3):
    for k in range(n):
        rng = np.random.default_rng(seed + k)
        wanted = (rng.random((30, 40)) < 0.1).astype(float)
        yield rng, wanted


def choose_(pools, start, **more):
    tries = {"weights": WEIGHTS, "trend": TRENDS}
    options = {"tries": tries, "coverage_counts": 0.1, "still": (), "trend_of": no_trend} | more
    return choose(start, pools, **options)


def test_noise_gets_no_weight_and_two_halves_both_do():
    pools = []
    for rng, wanted in boards():
        half = rng.random((30, 40)) < 0.5
        a = wanted * half + 0.3 * rng.random((30, 40))
        b = wanted * ~half + 0.3 * rng.random((30, 40))
        pools.append(pool({"a": a, "b": b, "noise": rng.random((30, 40))}, wanted))
    found = choose_(pools, Mixture({"a": 1.0, "b": 0.0, "noise": 1.0}, 0.0, 0.0))
    assert found.weights["a"] > 0
    assert found.weights["b"] > 0
    assert found.weights["noise"] == 0


def test_without_pools_or_anything_to_try_the_start_stays():
    start = Mixture({"a": 1.0, "b": 0.5}, 0.25, 0.0)
    assert choose_([], start) == start
    rng, wanted = next(boards())
    one = pool({"a": wanted, "b": rng.random((30, 40))}, wanted)
    assert choose_([one], start, tries={}) == start


def test_the_trend_is_found_and_spares_what_stands_still():
    fresh = np.arange(40) % 2

    def trend_of(window, trend, spread):
        return np.where(fresh, 1.0, 0.5**trend).astype(np.float32)

    pools = []
    for rng, _ in boards():
        wanted = (rng.random((30, 40)) < 0.1) * fresh
        pools.append(pool({"a": wanted + 3 * rng.random((30, 40))}, wanted.astype(float)))
    start = Mixture({"a": 1.0}, 0.0, 0.0)
    assert choose_(pools, start, trend_of=trend_of).trend == 0.5
    assert choose_(pools, start, trend_of=trend_of, still=("a",)).trend == 0.0


def test_a_move_must_pay_on_more_windows_than_not():
    rng, wanted = next(boards())
    noise = rng.random((30, 40))
    lucky = pool({"a": noise + 0.2 * wanted, "b": wanted + 0.1 * noise}, wanted)
    against = pool({"a": noise + 0.2 * wanted, "b": -wanted + 0.1 * noise}, wanted)
    start = Mixture({"a": 1.0, "b": 0.0}, 0.0, 0.0)
    assert choose_([lucky, lucky, against], start).weights["b"] > 0
    alone = Mixture({"a": 1.0, "b": 0.0}, 0.0, 0.0)
    assert choose_([lucky, against, against], alone).weights["b"] == 0


def test_of_equals_the_wider_one_wins():
    rng, wanted = next(boards())
    a = wanted + 0.01 * rng.random((30, 40))
    b = wanted + 0.01 * rng.random((30, 40))

    def wide(board):  # more of b shows more of the catalogue
        only_a = np.allclose(board / board.max(axis=1, keepdims=True), board_of_a)
        return 0.2 if only_a else 0.4

    board_of_a = a / a.max(axis=1, keepdims=True)
    one = pool({"a": a, "b": b}, wanted, wide=wide)
    start = Mixture({"a": 1.0, "b": 0.0}, 0.0, 0.0)
    assert choose_([one], start).weights["b"] > 0
    assert choose_([one], start, coverage_counts=0.0).weights["b"] == 0


def test_equal_pools_give_equal_choices():
    def once():
        pools = [
            pool({"a": wanted + rng.random((30, 40)), "b": rng.random((30, 40))}, wanted)
            for rng, wanted in boards(5)
        ]
        return choose_(pools, Mixture({"a": 1.0, "b": 1.0}, 0.0, 0.0))

    assert once() == once()
