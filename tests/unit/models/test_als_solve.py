"""Users of ALS against a plain loop: equality, independence, extreme confidences, and speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController, threadpool_limits

from pipeline.models import als
from pipeline.models.als import Als, solve_users
from pipeline.models.als_kernel import solve_rows
from pipeline.models.threads import in_threads
from tests.windows import random_history

Solve = Callable[[NDArray[np.float32], sp.csr_matrix, float], NDArray[np.float32]]


def plain(items: NDArray[np.float32], cells: sp.csr_matrix, penalty: float) -> NDArray[np.float32]:
    """Solve user by user in float64, in the space of the factors."""
    items = items.astype(np.float64)
    gram = items.T @ items + penalty * np.eye(items.shape[1])
    users = np.zeros((cells.shape[0], items.shape[1]), np.float32)
    for row in np.flatnonzero(np.diff(cells.indptr)):
        own = slice(cells.indptr[row], cells.indptr[row + 1])
        c, x = cells.data[own].astype(np.float64), items[cells.indices[own]]
        users[row] = np.linalg.solve(gram + x.T @ ((c - 1.0)[:, None] * x), x.T @ c)
    return users


def factors_of(rng: np.random.Generator, n_items: int, width: int, scale: float = 0.3):
    """Draw item factors, of which two are equal."""
    items = (rng.standard_normal((n_items, width)) * scale).astype(np.float32)
    items[-1] = items[0]
    return items


def cells_of(rng: np.random.Generator, sizes: list[int], n_items: int, low: float, high: float):
    """Draw cells with confidences from 10^low to 10^high."""
    columns = [np.sort(rng.choice(n_items, size, replace=False)) for size in sizes]
    value = (10 ** rng.uniform(low, high, sum(sizes))).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(sizes)])
    return sp.csr_matrix((value, np.concatenate(columns), start), shape=(len(sizes), n_items))


def error(solved: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the largest error of a row, relative to its length."""
    length = np.linalg.norm(expected, axis=1)
    return float(
        (np.linalg.norm(solved - expected, axis=1) / np.where(length > 0, length, 1)).max()
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(1, 40),
    n_items=st.integers(1, 60),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    low=st.floats(-6, 6),
    high=st.floats(-6, 6),
    penalty=st.floats(-2, 3).map(lambda power: 10**power),
)
@settings(deadline=None, max_examples=150)
def test_each_user_equals_a_plain_solve(seed, width, n_items, sizes, low, high, penalty):
    rng = np.random.default_rng(seed)
    items = factors_of(rng, n_items, width)
    cells = cells_of(rng, [min(n, n_items) for n in sizes], n_items, *sorted((low, high)))
    assert error(solve_users(items, cells, penalty), plain(items, cells, penalty)) < 1e-5


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([3, 16, 33, 64]),
    threads=st.integers(1, 4),
)
@settings(deadline=None, max_examples=25)
def test_no_bit_depends_on_order_batch_or_threads(seed, width, threads):
    rng = np.random.default_rng(seed)
    sizes = [int(size) for size in rng.integers(0, 90, 100)]
    items, cells = factors_of(rng, 120, width), cells_of(rng, sizes, 120, -2, 2)
    everybody = solve_users(items, cells, 1.0)
    rows = rng.permutation(len(sizes))[: int(rng.integers(1, 100))]
    with threadpool_limits(threads, "blas"):
        some, alone = (solve_users(items, cells[own], 1.0) for own in (rows, rows[:1]))
    assert np.array_equal(some, everybody[rows])
    assert np.array_equal(alone, everybody[rows[:1]])


@pytest.mark.parametrize("span", [(-6, -6), (-6, 0), (-6, 6), (0, 0), (6, 6)])
def test_users_with_1_to_5000_items_and_extreme_confidences(span):
    rng = np.random.default_rng(0)
    items = factors_of(rng, 6000, 64, 0.1)
    cells = cells_of(rng, [1, 2, 31, 32, 33, 60, 63, 64, 65, 200, 1000, 5000], 6000, *span)
    for penalty in (0.1, 10.0):
        solved = solve_users(items, cells, penalty)
        assert error(solved, plain(items, cells, penalty)) < 1e-5


def solved_again(items: NDArray[np.float32], cells: sp.csr_matrix, penalty: float) -> int:
    """Return the number of users whom the space of their items does not suffice."""
    gram = als._gram(items) + penalty * np.eye(items.shape[1])
    solved = als._solved(items, np.linalg.inv(gram), cells.indices)
    users = np.zeros((cells.shape[0], items.shape[1]), np.float32)
    start, column = cells.indptr.astype(np.int64), cells.indices.astype(np.int32)
    return solve_rows(items, solved, gram, penalty, start, column, cells.data, users)


def test_a_user_without_an_exact_result_is_solved_in_the_space_of_the_factors():
    rng = np.random.default_rng(1)
    cells = cells_of(rng, [8] * 50, 300, -6, 0)
    usual, long = factors_of(rng, 300, 16), factors_of(rng, 300, 16, 30.0)
    assert solved_again(usual, cells, 1.0) == 0
    assert solved_again(long, cells, 1e-6) == 50
    assert error(solve_users(long, cells, 1e-6), plain(long, cells, 1e-6)) < 1e-5


def test_one_call_alone_has_one_thread_of_the_blas_too():
    def threads(_: int) -> set[int]:
        blas = ThreadpoolController().select(user_api="blas")
        return {library.num_threads for library in blas.lib_controllers}

    assert list(in_threads(threads, [0])) == [{1}]


def test_fold_in_with_the_training_window_returns_the_trained_factors_exactly():
    history = random_history()
    scorer = Als(factors=40, iterations=2, alpha=0.3, device="cpu").train(history)
    folded = scorer.fold_in(history).users
    assert folded is not None
    order = np.argsort(history.user_ids, kind="stable")
    assert np.array_equal(folded[order], scorer.user_factors)
    for row in (0, 7):
        assert np.array_equal(scorer.fold_in(history.take(np.array([row]))).users[0], folded[row])


def test_users_with_fewer_items_than_factors_take_less_than_half_of_the_time():
    rng = np.random.default_rng(2)
    items, cells = factors_of(rng, 500, 256, 0.1), cells_of(rng, [60] * 128, 500, -2, 1)

    def seconds(solve: Solve) -> float:
        solve(items, cells[:2], 3.0)
        start = time.process_time()
        solve(items, cells, 3.0)
        return time.process_time() - start

    with threadpool_limits(1, "blas"):
        assert min(seconds(solve_users) for _ in range(3)) < seconds(plain) / 2


def test_estimates_follow_the_space_in_which_users_are_solved():
    history = random_history()
    size = np.diff(history.seen.indptr)
    assert 0 < np.median(size) < 40
    # All users in the space of the factors would take four seconds.
    assert Als(factors=512, iterations=1).cpu_seconds(history) < 1.0
    assert Als(factors=1024).peak_bytes(history) > 32 * 1024**2
