from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from benchmarks import lists
from pipeline.models.contract import Scores
from pipeline.models.topk import Lists

USERS, ITEMS = 50, 600


@pytest.fixture
def seen() -> sp.csr_matrix:
    return sp.random(USERS, ITEMS, density=0.05, format="csr", dtype=np.float32, random_state=0)


@pytest.fixture
def scores() -> Scores:
    return lists.drawn(USERS, ITEMS, 16)


def by_float64(scores: Scores, seen: sp.csr_matrix) -> np.ndarray:
    everything = scores.users.astype(np.float64) @ scores.items.T
    everything[seen.nonzero()] = -np.inf
    return np.argsort(-everything, axis=1)[:, : lists.K]


def test_the_plain_lists_are_alike(scores: Scores, seen: sp.csr_matrix) -> None:
    expected = by_float64(scores, seen)
    assert lists.alike(lists.exact_lists(scores, seen), expected, scores, seen) == 1
    assert lists.alike(lists.exact_lists(scores, seen), expected[:, ::-1], scores, seen) == 1


def test_a_planted_difference_is_caught(scores: Scores, seen: sp.csr_matrix) -> None:
    result, expected = lists.exact_lists(scores, seen), by_float64(scores, seen)
    product = scores.users.astype(np.float64) @ scores.items.T
    product[seen.nonzero()] = -np.inf
    next_best = np.argsort(-product, axis=1)[:, lists.K]

    def planted(user: int, place: int, item: int) -> np.ndarray:
        changed = expected.copy()
        changed[user, place] = item
        return changed

    for user in range(USERS):
        with pytest.raises(lists.DifferentError, match=rf"user {user}: .* apart"):
            lists.alike(result, planted(user, lists.K - 1, next_best[user]), scores, seen)
    with pytest.raises(lists.DifferentError, match=r"user 3: .* the user had it"):
        had = seen.indices[seen.indptr[3]]
        lists.alike(result, planted(3, 0, had), scores, seen)
    with pytest.raises(lists.DifferentError, match=f"user 9: item {expected[9, 1]} is twice"):
        lists.alike(result, planted(9, 0, expected[9, 1]), scores, seen)
    worse = result.item.copy()
    worse[5 * lists.K] = next_best[5]
    with pytest.raises(lists.DifferentError, match=r"user 5: .* apart"):
        lists.alike(Lists(result.indptr, worse, result.score), expected, scores, seen)
    short = Lists(np.minimum(result.indptr, len(worse) - 1), worse[:-1], result.score[:-1])
    with pytest.raises(lists.DifferentError, match="shorter"):
        lists.alike(short, expected, scores, seen)


def test_a_difference_that_rounding_explains_is_reported_and_no_error(seen: sp.csr_matrix) -> None:
    rng = np.random.default_rng(0)
    users = rng.uniform(1, 2, (USERS, 16)).astype(np.float32)
    # All items alike but for the last bit of one factor, which a float32 product may not see.
    items = np.ones((ITEMS, 16), np.float32)
    items[:, 3] += np.float32(2**-23) * rng.integers(0, 2, ITEMS)
    scores = Scores(users, items)
    some = np.stack([np.setdiff1d(np.arange(ITEMS), row.indices)[-lists.K :] for row in seen])
    share = lists.alike(lists.exact_lists(scores, seen), some, scores, seen)
    assert share < 0.5


def test_rows_of_each_way(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seen: sp.csr_matrix,
) -> None:
    (tmp_path / "gowalla").mkdir()
    user, item = seen.nonzero()
    pl.DataFrame({"user": user, "item": item}).write_parquet(tmp_path / "gowalla/train.parquet")
    monkeypatch.setattr(lists, "WIDTHS", {8: 1, 40: 2})
    monkeypatch.setattr(lists, "CATALOGUES", (3000,))
    monkeypatch.setattr(lists, "LINKS", 5)
    monkeypatch.setattr("sys.argv", ["lists.py", "--data", str(tmp_path), "--json"])
    lists.main()
    rows = json.loads(capsys.readouterr().out)["rows"]
    names = ("Nightjar", "implicit", "torch")
    beside = ("5 links an item", "factors and 5 links", "factors and own counts", "own counts")
    assert [row["what"] for row in rows] == [
        *(f"{what}: {name}" for what in ("8 learnt", "8 drawn", "40 drawn") for name in names),
        *(f"{what}: {name}" for what in beside for name in ("Nightjar", "scipy")),
        "Nightjar: 2,000 users, 3,000 items, 128 factors",
    ]
    peer = rows[1]
    assert (peer["alike"] == 1, peer["ratio"] > 0, peer["seconds"] > 0) == (True, True, True)
    assert peer["note"].startswith("threads: ")
    assert rows[0]["users_per_second"] == pytest.approx(USERS / rows[0]["seconds"])
    assert rows[2]["note"]
    assert rows[0]["note"].endswith("% of the products")
    scipy = [row for row in rows if row["what"].endswith(": scipy")]
    assert len(scipy) == 4
    assert all(row["alike"] > 0.8 for row in scipy)  # of equal scores at the cut, any is taken
    assert rows[-1]["peak_mb"] > 0


def test_without_data_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["lists.py", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"train\.parquet does not exist; .* --data"):
        lists.main()
