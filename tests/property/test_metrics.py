from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.metrics import Truth, coverage, hit_rate, ndcg, recall
from pipeline.models.topk import Lists

N_ITEMS = 8


def plain_ndcg(listed: list[int], wanted: set[int], outside: int, k: int) -> float:
    size = len(wanted) + outside
    if size == 0:
        return math.nan
    gain = sum(1 / math.log2(rank + 2) for rank, i in enumerate(listed[:k]) if i in wanted)
    return gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, size)))


def plain_recall(listed: list[int], wanted: set[int], outside: int, k: int) -> float:
    size = len(wanted) + outside
    return sum(i in wanted for i in listed[:k]) / size if size else math.nan


def plain_hit_rate(listed: list[int], wanted: set[int], outside: int, k: int) -> float:
    if len(wanted) + outside == 0:
        return math.nan
    return float(any(i in wanted for i in listed[:k]))


def plain_coverage(all_listed: list[list[int]], k: int) -> float:
    return len({i for listed in all_listed for i in listed[:k]}) / N_ITEMS


ITEMS = st.integers(0, N_ITEMS - 1)
USER = st.tuples(st.lists(ITEMS, unique=True, max_size=N_ITEMS), st.sets(ITEMS), st.integers(0, 3))
User = tuple[list[int], set[int], int]


def written(users: list[User]) -> tuple[Lists, Truth]:
    lists = Lists(
        np.cumsum([0, *(len(u[0]) for u in users)]).astype(np.int64),
        np.array([i for u in users for i in u[0]], np.int32),
        np.array([-float(r) for u in users for r in range(len(u[0]))], np.float32),
    )
    cells = sp.lil_matrix((len(users), N_ITEMS), dtype=np.float32)
    for row, (_, wanted, _) in enumerate(users):
        for item in wanted:
            cells[row, item] = 1.0
    size = np.array([len(u[1]) + u[2] for u in users], np.int64)
    return lists, Truth(cells.tocsr(), size)


@settings(max_examples=150, deadline=None)
@given(st.lists(USER, min_size=1, max_size=6), st.integers(1, 10))
def test_each_metric_is_its_ten_lines(users: list[User], k: int) -> None:
    lists, truth = written(users)
    for fast, plain in ((ndcg, plain_ndcg), (recall, plain_recall), (hit_rate, plain_hit_rate)):
        expected = [plain(*user, k) for user in users]
        np.testing.assert_allclose(fast(lists, truth, k), expected, atol=1e-12)
    assert coverage(lists, N_ITEMS, k) == pytest.approx(plain_coverage([u[0] for u in users], k))


@settings(max_examples=50, deadline=None)
@given(st.lists(USER, min_size=1, max_size=6), st.integers(1, 10), st.sets(ITEMS))
def test_truth_within_some_items_is_truth_without_the_others(
    users: list[User], k: int, kept: set[int]
) -> None:
    lists, truth = written(users)
    mask = np.isin(np.arange(N_ITEMS), list(kept))
    size = np.array([len(u[1] & kept) for u in users], np.int64)
    expected = [plain_ndcg(u[0], u[1] & kept, 0, k) for u in users]
    np.testing.assert_allclose(ndcg(lists, truth.only(mask, size), k), expected, atol=1e-12)


def test_a_perfect_list_is_worth_one_and_a_missing_item_costs() -> None:
    lists, truth = written([([3, 1], {1, 3}, 0), ([3, 1], {1, 3}, 1), ([], {1}, 0)])
    assert ndcg(lists, truth, 5).tolist() == pytest.approx([1.0, 0.7653606, 0.0])
    assert recall(lists, truth, 5).tolist() == pytest.approx([1.0, 2 / 3, 0.0])
    assert ndcg(lists, truth, 1).tolist() == [1.0, 1.0, 0.0]


def test_lists_of_other_people_are_refused() -> None:
    lists, _ = written([([3, 1], {1, 3}, 0)])
    with pytest.raises(ValueError, match="1 lists, but the truth of 2 users"):
        ndcg(lists, Truth(sp.csr_matrix((2, N_ITEMS)), np.zeros(2, np.int64)), 5)
