"""Metrics compared with those of ranx and RecTools (written by `make.py`), and all differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.evaluation.beyond_accuracy import coverage, diversity, novelty, self_information
from pipeline.evaluation.metrics import Truth, measure
from pipeline.models.topk import Lists
from pipeline.serving.churn import churn

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("metrics.json").read_text("utf-8"))
USERS: list[dict[str, list[int]]] = GOLDEN["users"]
DEPTHS: list[int] = GOLDEN["depths"]
N_ITEMS: int = GOLDEN["n_items"]
SIZE = np.array([len(user["truth"]) for user in USERS])

EQUAL = [
    ("ranx", "ndcg", "ndcg"),
    ("ranx", "recall", "recall"),
    ("ranx", "precision", "precision"),
    ("ranx", "mrr", "mrr"),
    ("ranx", "hit_rate", "hit_rate"),
    ("rectools", "NDCG(divide_by_achievable=True)", "ndcg"),
    ("rectools", "Recall", "recall"),
    ("rectools", "Precision(r_precision=True)", "recall_capped"),
    ("rectools", "Precision", "precision"),
    ("rectools", "MRR", "mrr"),
    ("rectools", "HitRate", "hit_rate"),
]


def golden(library: str, name: str, k: int) -> NDArray[np.float64]:
    """Return the value of a library for each user, NaN where it has none."""
    values = np.array(GOLDEN[library][f"{name}@{k}"], np.float64)
    assert len(values) == len(USERS) and np.nanmax(values) > 0
    return values


def cells(name: str) -> sp.csr_matrix:
    pairs = [(u, i) for u, user in enumerate(USERS) for i in user[name] if i < N_ITEMS]
    row, column = np.array(pairs).T
    return sp.csr_matrix((np.ones(len(row)), (row, column)), (len(USERS), N_ITEMS))


def lists(name: str = "list") -> Lists:
    item = np.array([i for user in USERS for i in user[name]], np.int32)
    indptr = np.cumsum([0, *(len(user[name]) for user in USERS)]).astype(np.int64)
    return Lists(indptr, item, np.zeros(len(item), np.float32))


def measured(k: int) -> dict[str, NDArray[np.float64]]:
    metrics = measure(lists(), Truth(cells("truth"), SIZE), k)
    return {name: values for (name, _), values in metrics.items()}


def same(mine: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-9)


def test_the_users_at_the_edges_are_among_them() -> None:
    assert (SIZE == 0).any() and (SIZE == 1).any() and max(SIZE) > 20
    listed = [user["list"] for user in USERS]
    assert [] in listed and any(len(one) == 1 for one in listed)
    assert any(min(user["truth"], default=0) >= N_ITEMS for user in USERS)


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize(("library", "expected", "mine"), EQUAL)
def test_we_say_the_same(library: str, expected: str, mine: str, k: int) -> None:
    same(measured(k)[mine], golden(library, expected, k))


@pytest.mark.parametrize("k", DEPTHS)
@pytest.mark.parametrize(("library", "expected"), [("ranx", "map"), ("rectools", "MAP")])
def test_map_of_the_libraries_divides_by_the_size_and_map_here_by_the_reachable_items(
    library: str, expected: str, k: int
) -> None:
    size = np.where(SIZE > 0, SIZE, np.nan)
    same(measured(k)["map"] * np.minimum(size, k) / size, golden(library, expected, k))
    assert (
        np.nan_to_num(measured(k)["map"]) > np.nan_to_num(golden(library, expected, k)) + 0.05
    ).any()


@pytest.mark.parametrize("k", DEPTHS)
def test_the_ndcg_of_rectools_divides_by_k_right_ones_unless_asked(k: int) -> None:
    ideal = np.concatenate([[np.nan], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    same(measured(k)["ndcg"] * ideal[np.minimum(SIZE, k)] / ideal[k], golden("rectools", "NDCG", k))


@pytest.mark.parametrize("k", DEPTHS)
def test_novelty_and_coverage_are_those_of_rectools(k: int) -> None:
    mine = novelty(lists(), self_information(cells("had")), k)
    same(mine, golden("rectools", "MeanInvUserFreq", k))
    covered = GOLDEN["rectools"][f"CatalogCoverage(normalize=True)@{k}"]
    assert coverage(lists(), N_ITEMS, k) == pytest.approx(covered, abs=1e-9)


@pytest.mark.parametrize("k", DEPTHS[1:])
def test_diversity_is_half_of_a_hamming_distance_of_one_category_each(k: int) -> None:
    item = np.arange(N_ITEMS)
    kinds = sp.csr_matrix((np.ones(N_ITEMS, np.int8), (item, item % GOLDEN["kinds"])))
    mine = diversity(lists(), kinds, k)
    alone = np.array([len(user["list"]) == 1 for user in USERS])
    expected = golden("rectools", "IntraListDiversity(Hamming)", k)
    assert alone.any() and np.isnan(mine[alone]).all() and (expected[alone] == 0).all()
    same(mine[~alone], expected[~alone] / 2)


@pytest.mark.parametrize("k", DEPTHS)
def test_overlap_of_publications_is_the_intersection_of_rectools(k: int) -> None:
    mine = np.minimum(lists().counts, k)  # the overlap is a mean weighted by entries
    expected = np.nan_to_num(golden("rectools", "Intersection", k))  # an empty list has no value
    users = [str(user) for user in range(len(USERS))]
    loss = churn(published("list"), published("other"), users, k=k).overlap
    assert loss == pytest.approx((expected * mine).sum() / mine.sum(), abs=1e-9)


def published(name: str) -> pl.DataFrame:
    rows = [
        (str(user), place, str(item))
        for user, listed in enumerate(USERS)
        for place, item in enumerate(listed[name], start=1)
    ]
    return pl.DataFrame(rows, [c.USER_ID, c.POSITION, c.ITEM_ID], orient="row")
