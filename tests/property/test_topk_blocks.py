"""Lists do not depend on the block, the tile or the path that they were computed in."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import scipy.sparse as sp
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline.models import topk
from pipeline.models.contract import Scores
from pipeline.models.topk import top_k

USERS, ITEMS, K = 23, 120, 7


def world(seed: int, factors: bool, links: bool, sparse: bool) -> Scores:
    rng = np.random.default_rng(seed)
    cells = {"density": 0.05, "format": "csr", "dtype": np.float32, "random_state": seed}
    users = rng.integers(-2, 3, (USERS, 3)).astype(np.float32)
    users[::5] = 0  # nothing is known of these
    return Scores(
        users if factors else None,
        rng.integers(-2, 3, (ITEMS, 3)).astype(np.float32) if factors else None,
        sp.random(USERS, ITEMS, **cells) if sparse else None,
        sp.random(USERS, 50, **cells).ceil() if links else None,
        (sp.random(50, ITEMS, **cells) * 4).ceil() if links else None,
    )


def dense(scores: Scores, exclude: sp.csr_matrix | None, allowed: np.ndarray | None) -> np.ndarray:
    """All scores in float64, −inf where there is none: no block, no candidate."""
    beside = sp.csr_matrix(scores.shape, dtype=np.float32)
    stored = np.zeros(scores.shape, bool)
    if scores.user_history is not None:
        beside = beside + scores.user_history @ scores.item_similarity
    if scores.sparse_bonus is not None:
        beside = beside + scores.sparse_bonus
    stored[beside.nonzero()] = True
    total = beside.toarray().astype(np.float64)
    if scores.users is not None:
        total += scores.users.astype(np.float64) @ scores.items.T
        stored |= scores.users.any(axis=1)[:, None]
    if exclude is not None:
        stored[exclude.nonzero()] = False
    if allowed is not None:
        stored[:, ~allowed] = False
    return np.where(stored, total.astype(np.float32), -np.inf)


@pytest.mark.parametrize(
    ("users", "tile", "at_once"), [(1, 120, 1), (5, 20, 2), (23, 7, 5), (1024, 2048, 128)]
)
@pytest.mark.parametrize(
    ("factors", "links", "sparse"),
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)],
)
def test_any_block_gives_the_same_lists(
    monkeypatch: pytest.MonkeyPatch,
    users: int,
    tile: int,
    at_once: int,
    factors: int,
    links: int,
    sparse: int,
) -> None:
    scores = world(3, bool(factors), bool(links), bool(sparse))
    exclude = sp.random(USERS, ITEMS, density=0.1, format="csr", random_state=9)
    allowed = np.random.default_rng(4).random(ITEMS) < 0.8
    monkeypatch.setattr(topk, "_BLOCK_USERS", users)
    monkeypatch.setattr(topk, "_TILE_ITEMS", tile)
    monkeypatch.setattr(topk, "_TILE_USERS", at_once)
    for gone, shown in ((None, None), (exclude, None), (exclude, allowed)):
        expected = dense(scores, gone, shown)
        lists = top_k(scores, K, exclude=gone, allowed=shown)
        assert lists.n_rows == USERS
        assert lists.counts.sum() > USERS
        for row in range(USERS):
            best = np.argsort(-expected[row], kind="stable")[:K]
            best = best[np.isfinite(expected[row][best])]
            assert lists.of(row).tolist() == best.tolist()
            mine = slice(lists.indptr[row], lists.indptr[row + 1])
            assert lists.score[mine].tolist() == expected[row][best].tolist()


@pytest.mark.parametrize("links", [False, True])
def test_blocks_use_the_threads_of_the_blas_and_leave_them_as_they_were(
    monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    monkeypatch.setattr(topk, "_BLOCK_USERS", 4)
    names: set[str] = set()
    inside: set[int] = set()
    calls, meet = itertools.count(), threading.Barrier(2, timeout=20)
    block = topk._BestItems.of_block

    def watched(*arguments):
        names.add(threading.current_thread().name)
        inside.update(blas())
        if next(calls) < 2:
            meet.wait()
        return block(*arguments)

    def blas() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    scores = world(0, True, links, False)
    with threadpool_limits(2, "blas"):
        before = blas()
        monkeypatch.setattr(topk._BestItems, "of_block", watched)
        two = top_k(scores, K)
        assert blas() == before
    assert (len(names), inside) == (2, {1})
    monkeypatch.setattr(topk._BestItems, "of_block", block)
    with threadpool_limits(1, "blas"):
        one = top_k(scores, K)
    assert one.item.tobytes() == two.item.tobytes()
    assert one.score.tobytes() == two.score.tobytes()
