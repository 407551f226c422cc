"""Each metric against a plain reference, on random users and on edge cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numba
import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import columns as c
from pipeline.evaluation.beyond_accuracy import (
    categories_over,
    coverage,
    diversity,
    gini,
    novelty,
    self_information,
    serendipity,
)
from pipeline.evaluation.metrics import PER_USER, RECALL, Truth, measure, ndcg
from pipeline.evaluation.metrics_kernel import one_pass
from pipeline.models.topk import Lists
from pipeline.serving.churn import churn

N_ITEMS = 8
User = tuple[list[int], set[int], int]
"""A list, the truth within the catalogue, and the number of truth items outside it."""

# --- right or wrong: ten lines each -----------------------------------------------------------


def plain_ndcg(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    gain = sum(1 / math.log2(rank + 2) for rank, i in enumerate(listed[:k]) if i in wanted)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, size)))


def plain_recall(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    return sum(i in wanted for i in listed[:k]) / size


def plain_recall_capped(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    return sum(i in wanted for i in listed[:k]) / min(k, size)


def plain_precision(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    return sum(i in wanted for i in listed[:k]) / k


def plain_map(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    total = 0.0
    for rank, item in enumerate(listed[:k], start=1):
        if item in wanted:
            total += sum(i in wanted for i in listed[:rank]) / rank
    return total / min(k, size)


def plain_mrr(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    for rank, item in enumerate(listed[:k], start=1):
        if item in wanted:
            return 1 / rank
    return 0.0


def plain_hit_rate(listed: list[int], wanted: set[int], size: int, k: int) -> float:
    return float(any(i in wanted for i in listed[:k]))


PLAIN: dict[str, Callable[[list[int], set[int], int, int], float]] = {
    "ndcg": plain_ndcg,
    "recall": plain_recall,
    "recall_capped": plain_recall_capped,
    "precision": plain_precision,
    "map": plain_map,
    "mrr": plain_mrr,
    "hit_rate": plain_hit_rate,
}

ITEMS = st.integers(0, N_ITEMS - 1)
LISTED = st.lists(ITEMS, unique=True, max_size=N_ITEMS)
USER = st.tuples(LISTED, st.sets(ITEMS), st.integers(0, 3))


def ragged(all_listed: list[list[int]]) -> Lists:
    return Lists(
        np.cumsum([0, *map(len, all_listed)]).astype(np.int64),
        np.array([i for listed in all_listed for i in listed], np.int32),
        np.array([-float(r) for listed in all_listed for r in range(len(listed))], np.float32),
    )


def written(users: list[User]) -> tuple[Lists, Truth]:
    cells = sp.lil_matrix((len(users), N_ITEMS), dtype=np.float32)
    for row, (_, wanted, _) in enumerate(users):
        for item in wanted:
            cells[row, item] = 1.0
    size = np.array([len(u[1]) + u[2] for u in users], np.int64)
    return ragged([u[0] for u in users]), Truth(cells.tocsr(), size)


NO_USERS: list[User] = []
NO_TRUTH: list[User] = [([0, 1], set(), 0), ([2], {2}, 0), ([], set(), 0)]
ONE_ITEM: list[User] = [([5], {5}, 0), ([5], {4}, 0)]
EMPTY_LISTS: list[User] = [([], {1}, 0), ([], {1, 2}, 3)]
ALL_OUTSIDE: list[User] = [([0, 1, 2], set(), 2)]
ALL_RIGHT: list[User] = [(list(range(N_ITEMS)), set(range(N_ITEMS)), 0)]


@settings(max_examples=150, deadline=None)
@given(st.lists(USER, max_size=6), st.lists(st.integers(1, 10), min_size=1, max_size=3))
@example(NO_USERS, [3])
@example(NO_TRUTH, [1, 3])
@example(ONE_ITEM, [1, 20])
@example(EMPTY_LISTS, [2])
@example(ALL_OUTSIDE, [2, 10])
@example(ALL_RIGHT, [3, 8, 10])
def test_each_metric_is_its_ten_lines(users: list[User], depths: list[int]) -> None:
    lists, truth = written(users)
    metrics = measure(lists, truth, *depths)
    assert set(metrics) == {(name, k) for name in PLAIN for k in depths}
    for (name, k), values in metrics.items():
        sizes = [len(wanted) + outside for _, wanted, outside in users]
        expected = [
            PLAIN[name](listed, wanted, size, k) if size else math.nan
            for (listed, wanted, _), size in zip(users, sizes, strict=True)
        ]
        np.testing.assert_allclose(values, expected, atol=1e-12, err_msg=f"{name}@{k}")


def test_no_user_is_evaluated_by_targets_of_others() -> None:
    random = np.random.default_rng(3)
    users: list[User] = [
        (
            random.permutation(N_ITEMS)[: random.integers(0, N_ITEMS + 1)].tolist(),
            set(random.integers(0, N_ITEMS, random.integers(0, 4)).tolist()),
            int(random.integers(0, 2)),
        )
        for _ in range(500)
    ]
    whole = measure(*written(users), 2, 5)
    alone = [measure(*written([user]), 2, 5) for user in users]
    for key, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([one[key] for one in alone]), values)


def test_where_no_cache_can_be_written_the_pass_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists, truth = written([([4, 0, 2], {0, 2, 7}, 0)])
    expected = measure(lists, truth, 3)
    compiled = numba.njit

    def without_a_cache(*, cache: bool = False, nogil: bool = False) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compiled(nogil=nogil)

    monkeypatch.setattr(numba, "njit", without_a_cache)
    one_pass.cache_clear()
    metrics = measure(lists, truth, 3)
    one_pass.cache_clear()
    for key, values in expected.items():
        np.testing.assert_array_equal(metrics[key], values)


def test_the_order_of_the_truth_does_not_matter() -> None:
    lists, truth = written([([4, 0, 2], {0, 2, 7}, 0)])
    stored = sp.csr_matrix((np.zeros(3), np.array([7, 2, 0]), np.array([0, 3])), truth.items.shape)
    again = measure(lists, Truth(stored, truth.size), 3)
    for key, values in measure(lists, truth, 3).items():
        np.testing.assert_array_equal(again[key], values)
    assert again["mrr", 3] == 0.5


@settings(max_examples=50, deadline=None)
@given(st.lists(USER, min_size=1, max_size=6), st.integers(1, 10), st.sets(ITEMS))
def test_truth_within_some_items_is_truth_without_the_others(
    users: list[User], k: int, kept: set[int]
) -> None:
    lists, truth = written(users)
    mask = np.isin(np.arange(N_ITEMS), list(kept))
    sizes = [len(u[1] & kept) for u in users]
    expected = [
        plain_ndcg(u[0], u[1] & kept, size, k) if size else math.nan
        for u, size in zip(users, sizes, strict=True)
    ]
    actual = ndcg(lists, truth.only(mask, np.array(sizes, np.int64)), k)
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_a_perfect_list_scores_one_and_a_missing_item_costs() -> None:
    lists, truth = written([([3, 1], {1, 3}, 0), ([3, 1], {1, 3}, 1), ([], {1}, 0)])
    assert ndcg(lists, truth, 5).tolist() == pytest.approx([1.0, 0.7653606, 0.0])
    assert measure(lists, truth, 5)[RECALL, 5].tolist() == pytest.approx([1.0, 2 / 3, 0.0])
    perfect = measure(*written(ALL_RIGHT), 5)
    assert {name: perfect[name, 5][0] for name in PER_USER} == {
        **dict.fromkeys(PER_USER, 1.0),
        "recall": 5 / 8,
    }


def test_invalid_arguments_are_refused() -> None:
    lists, truth = written([([3, 1], {1, 3}, 0)])
    with pytest.raises(ValueError, match="2 lists do not match the ground truth of 1 users"):
        measure(ragged([[1], [2]]), truth, 5)
    for item in (-1, N_ITEMS):
        with pytest.raises(ValueError, match="outside the catalogue of 8"):
            measure(ragged([[item]]), truth, 5)
    for depths in ((), (0,), (5, -1)):
        with pytest.raises(ValueError, match="must be at least 1"):
            measure(lists, truth, *depths)


# --- what lists are like ------------------------------------------------------------------------


def plain_gini(all_listed: list[list[int]], k: int) -> float:
    shown = [sum(listed[:k].count(i) for listed in all_listed) for i in range(N_ITEMS)]
    if not sum(shown):
        return math.nan
    apart = sum(abs(x - y) for x in shown for y in shown)
    return apart / (2 * N_ITEMS * sum(shown))


def plain_novelty(listed: list[int], had: list[set[int]], k: int) -> float:
    users = [items for items in had if items]
    bits = [
        -math.log2(max(sum(i in items for items in users), 1) / max(len(users), 1))
        for i in listed[:k]
    ]
    return sum(bits) / len(bits) if bits else math.nan


def plain_diversity(listed: list[int], of: list[set[str]], k: int) -> float:
    pairs = list(combinations([i for i in listed[:k] if of[i]], 2))
    return sum(not of[i] & of[j] for i, j in pairs) / len(pairs) if pairs else math.nan


def plain_serendipity(
    listed: list[int], wanted: set[int], had: set[int], popular: set[int], k: int
) -> float:
    useful = [i in wanted and i not in had | popular for i in listed[:k]]
    return sum(useful) / len(useful) if useful else math.nan


def plain_overlap(pairs: list[tuple[list[int], list[int]]], k: int) -> float | None:
    kept = sum(len(set(before[:k]) & set(after[:k])) for before, after in pairs)
    entries = sum(len(before[:k]) for before, _ in pairs)
    return kept / entries if entries else None


@settings(max_examples=100, deadline=None)
@given(st.lists(LISTED, max_size=6), st.lists(st.sets(ITEMS), max_size=6), st.integers(1, 10))
@example([], [], 3)
@example([[]], [set()], 3)
@example([[0, 1], [0]], [set(), set()], 2)
def test_coverage_gini_and_novelty_are_their_ten_lines(
    all_listed: list[list[int]], had: list[set[int]], k: int
) -> None:
    lists = ragged(all_listed)
    expected = len({i for listed in all_listed for i in listed[:k]}) / N_ITEMS
    assert coverage(lists, N_ITEMS, k) == pytest.approx(expected)
    assert gini(lists, N_ITEMS, k) == pytest.approx(plain_gini(all_listed, k), nan_ok=True)
    seen = written([([], items, 0) for items in had])[1].items
    actual = novelty(lists, self_information(seen), k)
    bits = [plain_novelty(listed, had, k) for listed in all_listed]
    np.testing.assert_allclose(actual, bits, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(LISTED, st.sets(ITEMS), st.sets(ITEMS)), max_size=6),
    st.sets(ITEMS),
    st.integers(1, 10),
)
@example([], set(), 3)
@example([([], {0}, set()), ([0, 1], {0, 1}, {1})], set(), 3)
def test_serendipity_is_its_two_lines(
    users: list[tuple[list[int], set[int], set[int]]], popular: set[int], k: int
) -> None:
    lists, truth = written([(listed, wanted, 0) for listed, wanted, _ in users])
    had = written([([], had, 0) for _, _, had in users])[1].items
    had.data[:] = 0.0  # a stored cell counts, whatever its value
    actual = serendipity(lists, truth, had, np.array(sorted(popular), np.int64), k)
    expected = [plain_serendipity(*user, popular, k) for user in users]
    np.testing.assert_allclose(actual, expected, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(LISTED, max_size=6),
    st.lists(st.sets(st.sampled_from("abc")), min_size=N_ITEMS, max_size=N_ITEMS),
    st.integers(1, 10),
)
@example([], [set()] * N_ITEMS, 3)
@example([[0, 1], [0], []], [set()] * N_ITEMS, 3)
@example([list(range(N_ITEMS))] * 2, [{"a"}] * N_ITEMS, 5)
def test_diversity_is_its_ten_lines(
    all_listed: list[list[int]], of: list[set[str]], k: int
) -> None:
    ids = np.array([f"i{i}" for i in range(N_ITEMS)])
    table = pl.DataFrame(
        {
            c.ITEM_ID: [*ids[::-1].tolist(), "elsewhere"],
            c.CATEGORIES: [*(sorted(names) or None for names in of[::-1]), ["a", "z"]],
        },
        schema={c.ITEM_ID: pl.String, c.CATEGORIES: pl.List(pl.String)},
    )
    actual = diversity(ragged(all_listed), categories_over(table, ids), k)
    expected = [plain_diversity(listed, of, k) for listed in all_listed]
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_diversity_of_many_lists_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    all_listed = [
        random.permutation(N_ITEMS)[: random.integers(0, N_ITEMS + 1)].tolist() for _ in range(200)
    ]
    kinds = sp.csr_matrix(random.random((N_ITEMS, 3)) < 0.4)
    whole = diversity(ragged(all_listed), kinds, 6)
    monkeypatch.setattr("pipeline.evaluation.beyond_accuracy._PAIRS", 100)
    np.testing.assert_array_equal(diversity(ragged(all_listed), kinds, 6), whole)
    assert np.isnan(whole).any() and (whole > 0).any()


def shown(all_listed: list[list[int]]) -> pl.DataFrame:
    rows = [
        (f"u{u}", position, f"i{item}")
        for u, listed in enumerate(all_listed)
        for position, item in enumerate(listed, start=1)
    ]
    schema = {c.USER_ID: pl.String, c.POSITION: pl.Int32, c.ITEM_ID: pl.String}
    return pl.DataFrame(rows, schema, orient="row")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LISTED, LISTED), max_size=6), st.integers(1, 10))
@example([], 3)
@example([([], [])], 3)
@example([([1, 2], [])], 3)
def test_overlap_of_publications_is_its_ten_lines(
    pairs: list[tuple[list[int], list[int]]], k: int
) -> None:
    before, after = shown([a for a, _ in pairs]), shown([b for _, b in pairs])
    users = [f"u{u}" for u in range(len(pairs))]
    assert churn(before, after, users, k=k).overlap == pytest.approx(plain_overlap(pairs, k))
