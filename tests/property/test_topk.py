from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.models import topk
from pipeline.models.contract import Scores
from pipeline.models.topk import Lists, pair_scores, top_k
from tests.raising import raises


def sparse_matrix(rows: int, columns: int, density: float, seed: int) -> sp.csr_matrix:
    return sp.random(
        rows, columns, density=density, format="csr", dtype=np.float32, random_state=seed
    )


def reference(scores, k, exclude=None, allowed=None):
    n_users, n_items = scores.shape
    lists = []
    for u in range(n_users):
        ranked = []
        cells = _beside(scores, u)
        for i in range(n_items):
            known = scores.users is not None and scores.users[u].any()
            if not known and i not in cells:
                continue
            if (exclude is not None and i in _row(exclude, u)) or not (
                allowed is None or allowed[i]
            ):
                continue
            dense = 0.0
            if scores.users is not None:
                dense = (scores.users[u].astype(np.float64) * scores.items[i]).sum()
            ranked.append((-np.float32(dense + np.float64(cells.get(i, 0.0))), i))
        lists.append([(i, -score) for score, i in sorted(ranked)[:k]])
    return lists


def _beside(scores, u):
    """Return the score beside the factors, by item; links that add up to 0 are not a score."""
    cells = {} if scores.sparse_bonus is None else _row(scores.sparse_bonus, u)
    if scores.user_history is None:
        return cells
    led = {}
    for had, amount in _row(scores.user_history, u).items():
        for item, link in _row(scores.item_similarity, had).items():
            led[item] = led.get(item, np.float32(0)) + amount * link
    summed = {i: led.get(i, np.float32(0)) + cells.get(i, np.float32(0)) for i in led | cells}
    return {item: value for item, value in summed.items() if value != 0}


def _row(matrix, u):
    cells = slice(matrix.indptr[u], matrix.indptr[u + 1])
    return dict(zip(matrix.indices[cells].tolist(), matrix.data[cells], strict=True))


def assert_agrees(lists: Lists, expected):
    assert lists.n_rows == len(expected)
    assert lists.counts.tolist() == [len(entries) for entries in expected]
    assert lists.item.tolist() == [item for entries in expected for item, _ in entries]
    assert lists.score.tolist() == [score for entries in expected for _, score in entries]
    assert (lists.indptr.dtype, lists.item.dtype, lists.score.dtype) == (
        np.int64,
        np.int32,
        np.float32,
    )


# Few levels: most scores tie, with zeros and negatives among them.
LEVELS = st.sampled_from([-2.0, -0.5, 0.0, 0.0, 0.5, 1.0, 3.0])
CELLS = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0, 4.0])


def _matrix(draw, shape, elements):
    return draw(hnp.arrays(np.float32, shape, elements=elements))


@st.composite
def cases(draw):
    n_users = draw(st.integers(0, 7))
    n_items = draw(st.integers(0, 40))
    factors = draw(st.integers(0, 3))
    dense, linked = factors > 0, draw(st.booleans())
    sparse = not (dense or linked) or draw(st.booleans())
    inner = draw(st.integers(0, 5))
    scores = Scores(
        users=_matrix(draw, (n_users, factors), LEVELS) if dense else None,
        items=_matrix(draw, (n_items, factors), LEVELS) if dense else None,
        sparse_bonus=sp.csr_matrix(_matrix(draw, (n_users, n_items), CELLS)) if sparse else None,
        user_history=sp.csr_matrix(_matrix(draw, (n_users, inner), CELLS)) if linked else None,
        item_similarity=sp.csr_matrix(_matrix(draw, (inner, n_items), LEVELS)) if linked else None,
    )
    exclude = allowed = None
    if draw(st.booleans()):
        exclude = sp.csr_matrix(_matrix(draw, (n_users, n_items), CELLS))
    if draw(st.booleans()):
        allowed = draw(hnp.arrays(np.bool_, (n_items,)))
    return scores, draw(st.integers(1, 45)), exclude, allowed


@settings(max_examples=300, deadline=None)
@given(
    case=cases(),
    users=st.sampled_from([1, 3, 1024]),
    tile=st.sampled_from([(1, 1), (5, 2), (2048, 128)]),
)
def test_lists_are_those_of_the_plain_reference(case, users, tile):
    scores, k, exclude, allowed = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_BLOCK_USERS", users)
        patch.setattr(topk, "_TILE_ITEMS", tile[0])
        patch.setattr(topk, "_TILE_USERS", tile[1])
        lists = top_k(scores, k, exclude=exclude, allowed=allowed)
    assert_agrees(lists, reference(scores, k, exclude, allowed))


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_the_fast_product_changes_nothing(seed):
    # Large parts that cancel: the float32 product is off by far more than the scores differ.
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((20, 33)).astype(np.float32)
    items = (rng.standard_normal((400, 33)) * 1e-3).astype(np.float32)
    users[:, 0], users[:, 16] = 3e3, -3e3
    items[:, 0] = items[:, 16] = rng.uniform(1e3, 2e3, 400)
    scores = Scores(users, items)
    fast = users @ items.T
    exact = (users.astype(np.float64)[:, None] * items).sum(axis=2)
    assert (np.argsort(-fast, axis=1)[:, :10] != np.argsort(-exact, axis=1)[:, :10]).any()
    assert_agrees(top_k(scores, 10), reference(scores, 10))


def test_lists_do_not_depend_on_the_other_users():
    rng = np.random.default_rng(0)
    users = rng.standard_normal((64, 48)).astype(np.float32)
    # Every item three times: equal scores to the last bit, in any kernel.
    items = np.repeat(rng.standard_normal((500, 48)).astype(np.float32), 3, axis=0)
    together = top_k(Scores(users, items), 20)
    for u in range(64):
        alone = top_k(Scores(users[u : u + 1], items), 20)
        assert alone.item.tolist() == together.of(u).tolist()
    assert (np.diff(together.item.reshape(64, 20)[:, :3]) == 1).all()


@pytest.mark.parametrize("beside", ["item_similarity", "factors", "own", "all"])
def test_lists_do_not_depend_on_the_block(beside, monkeypatch):
    # Sums of many links, none of which float32 holds exactly: another order would be another score.
    rng = np.random.default_rng(9)
    parts = {
        "user_history": sp.random(
            90, 70, density=0.4, format="csr", dtype=np.float32, random_state=1
        ),
        "item_similarity": sp.random(
            70, 300, density=0.3, format="csr", dtype=np.float32, random_state=2
        ),
    }
    parts["item_similarity"].data -= np.float32(0.4)
    if beside in ("factors", "all"):
        parts["users"] = rng.standard_normal((90, 16)).astype(np.float32)
        parts["items"] = rng.standard_normal((300, 16)).astype(np.float32)
    if beside in ("own", "all"):
        own = sp.random(90, 300, density=0.1, format="csr", dtype=np.float32, random_state=3)
        parts["sparse_bonus"] = own
    scores = Scores(**parts)
    exclude = sp.random(90, 300, density=0.2, format="csr", random_state=4)
    together = top_k(scores, 15, exclude=exclude)
    assert together.counts.min() == 15
    per_user = {
        name: part for name, part in parts.items() if name not in ("items", "item_similarity")
    }
    for users, tile, at_once in ((1, 300, 1), (90, 64, 90), (7, 1, 3), (40, 2048, 16)):
        monkeypatch.setattr(topk, "_BLOCK_USERS", users)
        monkeypatch.setattr(topk, "_TILE_ITEMS", tile)
        monkeypatch.setattr(topk, "_TILE_USERS", at_once)
        again = top_k(scores, 15, exclude=exclude)
        for name in ("indptr", "item", "score"):
            assert getattr(again, name).tobytes() == getattr(together, name).tobytes()
    for u in range(0, 90, 9):
        mine = Scores(**(parts | {name: part[u : u + 1] for name, part in per_user.items()}))
        alone = top_k(mine, 15, exclude=exclude[u : u + 1])
        assert alone.item.tolist() == together.of(u).tolist()


def test_more_items_than_piles():
    rng = np.random.default_rng(1)
    users = rng.standard_normal((12, 8)).astype(np.float32)
    items = rng.standard_normal((64 * 2 * 3 + 17, 8)).astype(np.float32)
    exclude = sp.random(12, len(items), density=0.5, format="csr", random_state=2)
    scores = Scores(users, items)
    assert_agrees(top_k(scores, 2, exclude=exclude), reference(scores, 2, exclude))


@pytest.mark.parametrize("levels", [1, 2, 40])
def test_a_crowd_of_ties_at_the_cut(levels):
    rng = np.random.default_rng(4)
    items = rng.integers(0, levels, (1200, 1)).astype(np.float32)
    users = np.array([[1.0], [0.5], [-1.0]], np.float32)
    exclude = sp.random(3, 1200, density=0.3, format="csr", random_state=5)
    scores = Scores(users, items)
    assert_agrees(top_k(scores, 7, exclude=exclude), reference(scores, 7, exclude))
    cells = sp.csr_matrix((rng.random((3, 1200)) < 0.7).astype(np.float32))
    assert_agrees(top_k(Scores(sparse_bonus=cells), 7), reference(Scores(sparse_bonus=cells), 7))


def test_large_cells_do_not_blur_small_scores():
    # Own counts in the thousands before popularity below a thousandth, all distinct.
    rng = np.random.default_rng(6)
    users = np.full((5, 1), 1e-4, np.float32)
    items = rng.permutation(4000).astype(np.float32)[:, None] / np.float32(4000)
    own = sp.random(5, 4000, density=0.001, format="csr", dtype=np.float32, random_state=7) * 5e3
    scores = Scores(users, items, own)
    for exclude in (None, own):
        assert_agrees(top_k(scores, 10, exclude=exclude), reference(scores, 10, exclude))


def test_rounding_of_the_sum_with_a_cell_changes_nothing():
    # Products near 1 beside cells near 30: the sum is rounded far more coarsely than the product.
    rng = np.random.default_rng(8)
    users = rng.uniform(1, 2, (3000, 1)).astype(np.float32)
    items = rng.uniform(1, 1.00002, (300, 1)).astype(np.float32)
    scores = Scores(users, items, sp.csr_matrix(np.full((3000, 300), 30.3, np.float32)))
    rounded_twice = users @ items.T + np.float32(30.3)
    exact = (users.astype(np.float64) @ items.T + np.float32(30.3)).astype(np.float32)
    assert 0.001 < (rounded_twice != exact).mean() < 0.1
    for k in (1, 5, 20):
        best = np.argsort(-exact, axis=1, kind="stable")[:, :k]
        assert np.array_equal(top_k(scores, k).item.reshape(-1, k), best)


def test_one_item_and_a_longer_list_than_the_catalogue():
    scores = Scores(np.ones((2, 1), np.float32), np.array([[3.0]], np.float32))
    exclude = sp.csr_matrix(np.array([[0.0], [1.0]], np.float32))
    lists = top_k(scores, 50, exclude=exclude)
    assert lists.counts.tolist() == [1, 0]
    assert lists.of(0).tolist() == [0]


def test_an_excluded_cell_of_value_zero_is_excluded():
    scores = Scores(np.ones((1, 1), np.float32), np.array([[3.0], [2.0]], np.float32))
    exclude = sp.csr_matrix((np.zeros(1, np.float32), [0], [0, 1]), shape=(1, 2))
    assert top_k(scores, 2, exclude=exclude).of(0).tolist() == [1]


def test_cells_written_twice_are_added():
    sparse = sp.csr_matrix((np.array([1, 1, 1.5], np.float32), [0, 0, 1], [0, 3]), shape=(1, 2))
    lists = top_k(Scores(sparse_bonus=sparse), 2)
    assert (lists.item.tolist(), lists.score.tolist()) == ([0, 1], [2.0, 1.5])
    assert sparse.nnz == 3


def test_rows_and_ranks():
    lists = Lists(
        np.array([0, 2, 2, 3]), np.array([4, 1, 4], np.int32), np.array([2, 1, 1], np.float32)
    )
    assert lists.row.tolist() == [0, 0, 2]
    assert lists.rank.tolist() == [0, 1, 0]
    assert lists.counts.tolist() == [2, 0, 1]
    assert (lists.of(0).tolist(), lists.of(1).tolist()) == ([4, 1], [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("where", ["users", "items", "sparse_bonus", "user_history", "links"])
@pytest.mark.parametrize("factors", [True, False])
def test_scores_that_are_no_numbers_are_refused(bad, where, factors):
    parts = {
        "users": np.ones((3, 2), np.float32),
        "items": np.ones((4, 2), np.float32),
        "sparse_bonus": np.ones((3, 4), np.float32),
        "user_history": np.ones((3, 2), np.float32),
        "links": np.ones((2, 4), np.float32),
    }
    parts[where][-1, -1] = bad
    linked = where in ("user_history", "links")
    scores = Scores(
        parts["users"] if factors else None,
        parts["items"] if factors else None,
        None if linked else sp.csr_matrix(parts["sparse_bonus"]),
        sp.csr_matrix(parts["user_history"]) if linked else None,
        sp.csr_matrix(parts["links"]) if linked else None,
    )
    if where in ("users", "items") and not factors:
        assert top_k(scores, 2).counts.tolist() == [2, 2, 2]
        return
    with raises("model.scores_not_finite"):
        top_k(scores, 2)


@pytest.mark.parametrize("factors", [1, 7, 8, 127, 128, 129, 300, 1024])
def test_an_inner_product_is_summed_as_numpy_sums_it(factors):
    rng = np.random.default_rng(factors)
    users = rng.standard_normal((6, factors)).astype(np.float32)
    items = rng.standard_normal((50, factors)).astype(np.float32)
    users[:, ::3] *= np.float32(1e6)
    users[:, 1::3] *= np.float32(-1e6)
    user, item = np.repeat(np.arange(6), 50), np.tile(np.arange(50), 6)
    expected = (users[user].astype(np.float64) * items[item]).sum(axis=1).astype(np.float32)
    assert pair_scores(Scores(users, items), user, item).tobytes() == expected.tobytes()


@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize("bonus", [True, False])
def test_links_that_are_nearly_all_stored_give_the_same_lists(factors, bonus, monkeypatch):
    rng = np.random.default_rng(11)
    links = rng.standard_normal((40, 60)).astype(np.float32)
    links[rng.random(links.shape) < 0.1] = 0
    scores = Scores(
        rng.standard_normal((30, 5)).astype(np.float32) if factors else None,
        rng.standard_normal((60, 5)).astype(np.float32) if factors else None,
        sparse_matrix(30, 60, 0.1, 1) if bonus else None,
        sparse_matrix(30, 40, 0.3, 2),
        sp.csr_matrix(links),
    )
    exclude = sparse_matrix(30, 60, 0.2, 3)
    allowed = rng.random(60) < 0.7
    for shown in (None, allowed):
        expected = reference(scores, 9, exclude, shown)
        assert topk._nearly_dense(scores.item_similarity, scores.user_history)
        assert_agrees(top_k(scores, 9, exclude=exclude, allowed=shown), expected)
        with monkeypatch.context() as patch:
            patch.setattr(topk, "_nearly_dense", lambda *_: False)
            assert_agrees(top_k(scores, 9, exclude=exclude, allowed=shown), expected)


def test_pairs_have_the_scores_of_the_lists():
    rng = np.random.default_rng(12)
    scores = Scores(
        rng.standard_normal((20, 3)).astype(np.float32),
        rng.standard_normal((30, 3)).astype(np.float32),
        sparse_matrix(20, 30, 0.1, 1),
        sparse_matrix(20, 25, 0.2, 2),
        sparse_matrix(25, 30, 0.2, 3),
    )
    for part in (
        scores,
        replace(scores, users=None, items=None),
        replace(scores, user_history=None, item_similarity=None),
    ):
        lists = top_k(part, 30)
        assert len(lists.item) > 20
        paired = pair_scores(part, lists.row.astype(np.int64), lists.item.astype(np.int64))
        assert paired.tobytes() == lists.score.tobytes()


def test_scores_closer_than_their_products_are_exact_are_computed(monkeypatch):
    # Items that differ in the last bit of one factor: no product in float32 can rank them.
    rng = np.random.default_rng(0)
    users = rng.uniform(1, 2, (9, 16)).astype(np.float32)
    items = np.ones((500, 16), np.float32)
    items[:, 3] += np.float32(2**-23) * rng.integers(0, 3, 500)
    exact, offer = [], topk._BestItems._offer_tile

    def watched(self, block, live, base, is_exact):
        exact.append(is_exact)
        return offer(self, block, live, base, is_exact)

    monkeypatch.setattr(topk._BestItems, "_offer_tile", watched)
    scores = Scores(users, items)
    assert_agrees(top_k(scores, 10), reference(scores, 10))
    assert set(exact) == {False, True}
    exact.clear()
    scores = Scores(users, rng.standard_normal((500, 16)).astype(np.float32))
    assert_agrees(top_k(scores, 10), reference(scores, 10))
    assert set(exact) == {False}


def test_a_user_leaves_the_tiles_when_no_item_can_reach_the_list(monkeypatch):
    rng = np.random.default_rng(1)
    items = rng.standard_normal((400, 8)).astype(np.float32)
    items *= np.float32(0.97) ** rng.permutation(400).astype(np.float32)[:, None]
    users = rng.standard_normal((50, 8)).astype(np.float32)
    links, history = sparse_matrix(30, 400, 0.05, 2), sparse_matrix(50, 30, 0.2, 3)
    products, offer = [], topk._BestItems._offer_tile

    def watched(self, block, live, base, exact):
        products.append(len(live))
        return offer(self, block, live, base, exact)

    monkeypatch.setattr(topk._BestItems, "_offer_tile", watched)
    monkeypatch.setattr(topk, "_TILE_ITEMS", 20)
    for scores in (
        Scores(users, items),
        Scores(users, items, user_history=history, item_similarity=links),
    ):
        products.clear()
        assert_agrees(top_k(scores, 5), reference(scores, 5))
        assert 0 < sum(products) < 0.6 * 50 * 20


def test_shapes_that_do_not_fit_are_refused():
    scores = Scores(np.ones((2, 1), np.float32), np.ones((3, 1), np.float32))
    with pytest.raises(ValueError, match="at least 1"):
        top_k(scores, 0)
    with pytest.raises(ValueError, match="exclude is"):
        top_k(scores, 1, exclude=sp.csr_matrix((2, 4)))
    with pytest.raises(ValueError, match="allowed is"):
        top_k(scores, 1, allowed=np.ones(2, bool))
    with pytest.raises(ValueError, match="sparse is"):
        top_k(Scores(scores.users, scores.items, sp.csr_matrix((3, 3))), 1)
    with pytest.raises(ValueError, match="half of a product"):
        top_k(Scores(users=scores.users), 1)
    with pytest.raises(ValueError, match="half of a product"):
        top_k(Scores(item_similarity=sp.csr_matrix((3, 3), dtype=np.float32)), 1)
    with pytest.raises(ValueError, match="scores need"):
        top_k(Scores(), 1)


@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize("led", [True, False])
def test_the_best_score_heads_the_list(factors, led, monkeypatch):
    monkeypatch.setattr(topk, "_BLOCK_USERS", 7)
    rng = np.random.default_rng(3)

    def cells(rows, columns, share):
        drawn_scores = rng.random((rows, columns)) * (rng.random((rows, columns)) < share)
        drawn_scores[:2] = 0  # the first two rows are empty
        return sp.csr_matrix(drawn_scores.astype(np.float32))

    scores = Scores(
        users=rng.normal(size=(40, 5)).astype(np.float32) if factors else None,
        items=rng.normal(size=(30, 5)).astype(np.float32) if factors else None,
        sparse_bonus=cells(40, 30, 0.1),
        user_history=cells(40, 12, 0.2) if led else None,
        item_similarity=cells(12, 30, 0.2) if led else None,
    )
    lists = top_k(scores, 1)
    wanted = np.zeros(40, np.float32)
    wanted[lists.row] = lists.score
    np.testing.assert_array_equal(topk.best_scores(scores), wanted)
    assert factors or (wanted == 0).any()
