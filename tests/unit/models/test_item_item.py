from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from threadpoolctl import threadpool_limits

from pipeline.base import silent
from pipeline.models import item_item
from pipeline.models.cholesky import invert
from pipeline.models.ease import Ease
from pipeline.models.item_item import decayed_presence, topk_rows_product
from pipeline.models.item_knn import ItemKnn
from pipeline.models.rp3beta import Rp3Beta
from pipeline.models.sparse_rows import keep_topk_per_row
from pipeline.models.topk import top_k
from tests.raising import raises
from tests.windows import pairs, random_history, shuffled

ALL = 1000
RECIPES = [
    ItemKnn(neighbours=5),
    ItemKnn(similarity="cosine", neighbours=5),
    ItemKnn(similarity="bm25", neighbours=5),
    Rp3Beta(neighbours=5),
    Ease(neighbours=5),
]
every = pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: getattr(r, "similarity", r.family))


def dense(history, half_life):
    """Largest decayed weight of each user and item, by a loop over the events."""
    had, total = np.zeros((2, history.n_users, history.n_items))
    age, user = history.age_days.astype(np.float64), history.user
    for e, item in enumerate(history.item):
        decay = 1.0 if half_life is None else 0.5 ** (age[e] / half_life)
        had[user[e], item] = max(had[user[e], item], history.weight[e] * decay)
        total[user[e], item] += history.weight[e]
    return had * (total > 0)


def kept(matrix, most):
    """The largest of each row by magnitude, lower columns first among equals; no diagonal."""
    matrix = matrix.astype(np.float32).copy()
    np.fill_diagonal(matrix, 0)
    for row in matrix:
        row[sorted(range(len(row)), key=lambda i: (-abs(row[i]), i))[most:]] = 0
    return matrix


def same(one, other):
    names = ("data", "indices", "indptr")
    return all(getattr(one, n).tobytes() == getattr(other, n).tobytes() for n in names)


@pytest.mark.parametrize("half_life", [None, 10.0])
def test_presence_is_a_loop_over_events(half_life):
    history = random_history(n_users=40, n_items=20, events=1500)
    cells = decayed_presence(history, half_life)
    expected = dense(history, half_life)
    assert 0 < np.count_nonzero(expected) < history.seen.nnz  # some took everything back
    np.testing.assert_allclose(cells.toarray(), expected, rtol=1e-12)
    assert (cells.data > 0).all()
    assert cells.has_sorted_indices


def test_a_long_absence_leaves_a_list():
    recipe = Rp3Beta(half_life_days=None, profile_half_life_days=1.0)
    old = pairs([("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "z")])
    scorer = recipe.train(old)
    away = replace(old, timestamp_us=old.timestamp_us - 300 * 86_400_000_000)
    assert np.float32(0.5**301) == 0  # the decay itself rounds to nothing
    lists = [top_k(scorer.score(history), 3, exclude=old.seen) for history in (old, away)]
    assert lists[0].of(0).tolist() == lists[1].of(0).tolist() == [2]
    np.testing.assert_allclose(lists[0].score, lists[1].score, rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 3, 7, 50])
def test_the_cut_is_exact_and_ties_fall_to_lower_columns(seed, most):
    rng = np.random.default_rng(seed)
    matrix = rng.choice([0.0, -2.0, -1.0, 0.5, 1.0, 2.0], (30, 30)).astype(np.float32)
    cells = sp.csr_matrix(matrix)
    for row in range(30):  # columns in any order, as products give them
        own = slice(cells.indptr[row], cells.indptr[row + 1])
        order = rng.permutation(own.stop - own.start)
        cells.indices[own], cells.data[own] = cells.indices[own][order], cells.data[own][order]
    cells = sp.csr_matrix((cells.data, cells.indices, cells.indptr), shape=(30, 30))
    cut = keep_topk_per_row(cells, most)
    no_diagonal = matrix.copy()
    np.fill_diagonal(no_diagonal, 0)
    off = sp.csr_matrix(no_diagonal)
    assert np.array_equal(keep_topk_per_row(off, most).toarray(), kept(matrix, most))
    assert cut.has_sorted_indices
    assert np.diff(cut.indptr).max() <= most
    assert (cut.data != 0).all()
    for row in range(30):
        order = sorted(range(30), key=lambda i, row=row: (-abs(matrix[row, i]), i))
        expected = sorted(i for i in order[:most] if matrix[row, i])
        assert cut.indices[cut.indptr[row] : cut.indptr[row + 1]].tolist() == expected


@pytest.mark.parametrize("block", [1, 20, 1 << 20])
def test_products_do_not_depend_on_their_blocks(block, monkeypatch):
    monkeypatch.setattr(item_item, "_BLOCK_CELLS", block)
    left = sp.random(60, 90, density=0.1, format="csr", random_state=0)
    right = sp.random(90, 60, density=0.1, format="csr", random_state=1)
    lines = []
    product = topk_rows_product(left, right, 4, lines.append)
    assert len(lines) == {1: 60, 20: 12, 1 << 20: 1}[block]
    np.testing.assert_array_equal(product.toarray(), kept((left @ right).toarray(), 4))


@pytest.mark.parametrize("most", [1, 4, 30, 500])
@pytest.mark.parametrize("seed", range(4))
def test_the_largest_cells_are_those_of_scipy(seed, most):
    """Equal to the bit, with many ties and empty rows."""
    rng = np.random.default_rng(seed)
    left, right = (
        sp.random(*shape, density=0.1, format="csr", random_state=rng, data_rvs=values)
        for shape, values in (
            ((200, 90), lambda n: rng.choice([0.25, 0.5, 1.0, 1e-200], n)),
            ((90, 200), lambda n: rng.choice([0.5, 1.0, 1e-200, 0.0], n)),
        )
    )
    norms = rng.choice([0.5, 1.0, 3.0], 200)
    for own in (None, norms):
        product = (left @ right).tocsr()
        product.sort_indices()
        if own is not None:
            row = np.repeat(np.arange(200), np.diff(product.indptr))
            product.data /= own[row] * own[product.indices] + 7.0
        product.data = product.data.astype(np.float32)
        product.setdiag(0)
        expected = keep_topk_per_row(product, most)
        links = topk_rows_product(left, right, most, silent, own, 7.0)
        assert same(links, sp.csr_matrix(expected, dtype=np.float32))
        assert links.nnz > 0


@every
def test_links_do_not_depend_on_names_order_or_blocks(recipe, monkeypatch):
    history = random_history(n_users=200, n_items=60)
    once = recipe.train(history).item_similarity
    other, _ = shuffled(history)
    assert same(once, recipe.train(other).item_similarity)
    monkeypatch.setattr(item_item, "_BLOCK_CELLS", 77)
    assert same(once, recipe.train(history).item_similarity)
    assert np.diff(once.indptr).max() > 0
    assert once.diagonal().tolist() == [0] * 60


@every
def test_the_unit_of_weights_changes_nothing(recipe):
    one, ten = (random_history(n_users=200, n_items=60, scale=scale) for scale in (1.0, 16.0))
    np.testing.assert_allclose(
        recipe.train(ten).item_similarity.toarray(),
        recipe.train(one).item_similarity.toarray(),
        rtol=1e-5,
    )


@pytest.mark.parametrize("half_life", [None, 20.0])
@pytest.mark.parametrize("shrinkage", [0.0, 7.0])
def test_cosines_are_those_of_a_dense_matrix(half_life, shrinkage):
    history = random_history(n_users=80, n_items=30, events=900)
    idf = np.log(31 / (1 + np.count_nonzero(dense(history, None), axis=1)))[:, None]
    for similarity, weight in (("cosine", 1.0), ("tfidf", idf)):
        x = dense(history, half_life) * weight
        x /= np.sqrt((x[x > 0] ** 2).mean())
        length = np.sqrt((x**2).sum(axis=0))
        expected = kept(x.T @ x / (np.outer(length, length) + shrinkage), 6)
        recipe = ItemKnn(
            similarity=similarity, shrinkage=shrinkage, neighbours=6, half_life_days=half_life
        )
        cosines = recipe.train(history).item_similarity.toarray()
        np.testing.assert_allclose(cosines, expected, rtol=2e-6)


@pytest.mark.parametrize("b", [0.0, 0.75, 1.0])
def test_bm25_is_that_of_a_dense_matrix(b):
    history = random_history(n_users=80, n_items=30, events=900)
    x, whole = dense(history, 20.0), dense(history, None)
    x /= whole[whole > 0].mean()
    idf = np.log(31 / (1 + np.count_nonzero(x, axis=1)))[:, None]
    total = x.sum(axis=0)
    y = idf * x * 2.2 / (x + 1.2 * (1 - b + b * total / total.mean()))
    recipe = ItemKnn(similarity="bm25", b=b, neighbours=6, half_life_days=20.0)
    np.testing.assert_allclose(
        recipe.train(history).item_similarity.toarray(), kept(y.T @ y, 6), rtol=2e-6
    )


@pytest.mark.filterwarnings("ignore:Method expects CSR input")  # it hands itself another
@pytest.mark.parametrize(
    ("similarity", "library"),
    [
        ("cosine", CosineRecommender(K=ALL)),
        ("tfidf", TFIDFRecommender(K=ALL)),
        ("bm25", BM25Recommender(K=ALL, B=0.0)),
    ],
)
def test_similarities_are_those_of_implicit(similarity, library):
    history = random_history(n_users=100, n_items=40, events=1200)
    history = replace(history, weight=np.ones_like(history.weight))
    recipe = ItemKnn(
        similarity=similarity, shrinkage=0.0, b=0.0, neighbours=ALL, half_life_days=None
    )
    # implicit's idf takes the log of items, not of 1 + items: so it gets one more item, without
    # users (which changes the mean length of BM25: hence b = 0). It keeps the diagonal.
    padded = sp.hstack([history.seen, sp.csr_matrix((100, 1), dtype=np.float32)], format="csr")
    library.fit(padded.astype(np.float64), show_progress=False)
    expected = library.similarity.toarray()[:40, :40]
    assert (expected.diagonal() > 0).all()
    trained = recipe.train(history).item_similarity
    assert trained.nnz > 500
    np.testing.assert_allclose(trained.toarray(), kept(expected, ALL), rtol=2e-6)


@pytest.mark.parametrize("exponents", [(1.0, 1.0, 0.0), (1.0, 1.0, 0.6), (0.8, 0.6, 0.4)])
def test_walks_are_those_of_dense_matrices(exponents):
    user, source, target = exponents
    history = random_history(n_users=80, n_items=30, events=900)
    x, whole = dense(history, 20.0), dense(history, None)
    x /= whole[whole > 0].mean()
    of_users, of_items = x.sum(axis=1), x.sum(axis=0)
    known = of_users > 0
    forth = (x[known] / of_users[known, None] ** user) / of_items**target
    expected = (x[known] / of_items**source).T @ forth
    if exponents == (1.0, 1.0, 0.0):
        np.testing.assert_allclose(expected.sum(axis=1), 1.0)  # a walk ends somewhere
    recipe = Rp3Beta(
        user_exponent=user,
        source_exponent=source,
        target_exponent=target,
        neighbours=6,
        half_life_days=20.0,
    )
    np.testing.assert_allclose(
        recipe.train(history).item_similarity.toarray(), kept(expected, 6), rtol=2e-6
    )


def test_ease_is_the_closed_form():
    history = random_history(n_users=300, n_items=150, events=4000)
    x, whole = dense(history, 20.0), dense(history, None)
    x /= whole[whole > 0].mean()
    inverse = np.linalg.inv(x.T @ x + 5.0 * np.eye(x.shape[1]))
    weights = -inverse / np.diag(inverse)
    recipe = Ease(regularization=5.0, half_life_days=20.0, neighbours=ALL)
    trained = recipe.train(history).item_similarity.toarray()
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(trained, weights, rtol=1e-4, atol=1e-7)
    few = recipe.model_copy(update={"neighbours": 9}).train(history).item_similarity.toarray()
    np.testing.assert_array_equal(few, kept(trained.T, 9).T)  # the strongest of each item


def test_ease_leaves_out_unpopular_items_and_reports_it():
    history = random_history(n_users=300, n_items=80)
    history = replace(history, weight=np.ones_like(history.weight))
    lines = []
    recipe = Ease(item_limit=30, half_life_days=None)
    similarity = recipe.train(history, progress=lines.append).item_similarity
    popular = np.sort(np.argsort(-dense(history, None).sum(axis=0), kind="stable")[:30])
    assert np.flatnonzero(np.diff(similarity.indptr)).tolist() == popular.tolist()
    assert np.unique(similarity.indices).tolist() == popular.tolist()
    assert any("30 most popular of 80 items" in line for line in lines)
    lines.clear()
    Ease(item_limit=80).train(history, progress=lines.append)
    assert lines and not any("popular" in line for line in lines)
    only = history.reindex_items(history.item_ids[popular])
    alone = Ease(half_life_days=None).train(only).item_similarity
    np.testing.assert_allclose(
        similarity[popular][:, popular].toarray(), alone.toarray(), rtol=1e-5, atol=1e-7
    )


def test_the_inverse_is_the_same_for_any_number_of_threads():
    x = np.random.default_rng(0).standard_normal((1500, 1200))
    gram = np.asfortranarray(x.T @ x + np.eye(1200))
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            results.append(np.tril(invert(gram.copy(order="F"), "ease", 1.0)))
    assert results[0].tobytes() == results[1].tobytes()
    np.testing.assert_allclose(results[0], np.tril(np.linalg.inv(gram)), rtol=1e-6, atol=1e-12)


def test_a_singular_matrix_is_one_sentence():
    with raises("model.singular"):
        invert(np.asfortranarray([[1.0, 2.0], [2.0, 1.0]]), "ease", 0.5)


def test_progress_names_how_far_it_is():
    lines = []
    Rp3Beta().train(random_history(), progress=lines.append)
    assert lines == ["links of items 1 to 80 of 80"]
    Rp3Beta().train(random_history(), progress=silent)
