from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data import feature_encoding
from pipeline.data.clean.policies import ColumnTreatment
from pipeline.data.feature_encoding import add_features, described_users
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.data.windows import cleaned
from tests.raising import raises

END = datetime(2024, 3, 1, tzinfo=UTC)
ITEMS = tuple(f"i{n}" for n in range(8))


def window(items=ITEMS, users=("ann", "bob", "eve")) -> History:
    """All users have all items, one day before the end."""
    rows = [(u, i, END - timedelta(days=1), 1.0) for u in users for i in items]
    schema = {
        c.USER_ID: pl.String(),
        c.ITEM_ID: pl.String(),
        c.TIMESTAMP: c.INSTANT,
        WEIGHT: pl.Float32(),
    }
    return build_history(pl.DataFrame(rows, schema=schema, orient="row"), END)


def items(ids=ITEMS, **columns) -> pl.DataFrame:
    """A table of items: the columns given, the others empty, further ones as text."""
    frame = pl.DataFrame({c.ITEM_ID: pl.Series(list(ids), dtype=pl.String), **columns})
    lacking = {name: dtype for name, dtype in c.ITEMS.items() if name not in frame.columns}
    frame = frame.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in lacking.items())
    return frame.cast({name: dtype for name, dtype in c.ITEMS.items() if name in columns})


def features(**columns) -> dict[str, list[float]]:
    """Feature -> its cell in each item's row."""
    matrix = add_features(window(), items(**columns)).item_features
    if matrix is None:
        return {}
    cells = matrix.cells.toarray().astype(float)
    return {name: cells[:, at].tolist() for at, name in enumerate(matrix.names.tolist())}


# --- what a column becomes ----------------------------------------------------------------------


def test_a_category_is_a_feature_unless_it_is_rare_or_nearly_everybodys():
    lists = [["all", "a"], ["all", "a", "b"], ["all", "b", " b "], ["all", "one"], *[["all"]] * 4]
    assert features(categories=lists) == {
        "categories=a": [1, 1, 0, 0, 0, 0, 0, 0],
        "categories=b": [0, 1, 1, 0, 0, 0, 0, 0],
    }


def test_words_of_a_title_are_weighed_by_how_few_rows_have_them():
    titles = ["Grüner TEE!", "grüner tee, tee", "schwarzer Tee", None, "x", "schwarzer", "", "solo"]
    encoded = features(title=titles)
    assert list(encoded) == ["title=grüner", "title=schwarzer", "title=tee"]
    rare, common = np.log(8 / 2), np.log(8 / 3)
    length = np.hypot(rare, 2 * common)
    assert encoded["title=grüner"][1] == pytest.approx(rare / length)
    assert encoded["title=tee"][1] == pytest.approx(2 * common / length)
    assert encoded["title=tee"][4:] == [0, 0, 0, 0]
    assert encoded["title=schwarzer"][5] == 1
    decomposed = [title and title.replace("ü", "u\u0308") for title in titles]
    assert features(title=decomposed) == encoded


def test_numbers_become_bins_that_an_outlier_cannot_stretch():
    prices = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1e9, None]
    encoded = features(price=prices)
    assert [sum(cells[n] for cells in encoded.values()) for n in range(8)] == [1] * 6 + [0, 0]
    bin_of = [next((name for name, cells in encoded.items() if cells[n]), None) for n in range(6)]
    assert bin_of[0] == bin_of[1] != bin_of[2] == bin_of[3] != bin_of[4] == bin_of[5]


def test_a_vector_is_itself_standardised():
    rng = np.random.default_rng(0)
    vectors = rng.normal(3.0, 2.0, (8, 4))
    vectors[:, 1] = 0.5
    encoded = features(embedding=[str(v) for v in vectors.tolist()])
    assert list(encoded) == ["embedding=0", "embedding=2", "embedding=3"]
    expected = (vectors[:, 2] - vectors[:, 2].mean()) / vectors[:, 2].std() / 2
    np.testing.assert_allclose(encoded["embedding=2"], expected, rtol=1e-6)
    plain = features(embedding=pl.Series(vectors.tolist(), dtype=pl.List(pl.Float64)))
    arrays = features(embedding=pl.Series(vectors.tolist(), dtype=pl.Array(pl.Float32, 4)))
    assert plain == encoded
    assert arrays.keys() == encoded.keys()


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["red", "blue"] * 4, ["f=blue", "f=red"]),
        ([" red", "red ", *["blue"] * 6], ["f=blue", "f=red"]),
        (["2", "1"] * 4, ["f=1", "f=2"]),  # whole numbers that repeat are names
        (["1.5", "1.5", "2.5", "2.5", *["9.5"] * 4], ["f=1.5..2.5", "f=2.5..9.5", "f=9.5.."]),
        (['["x", "y"]', '["y"]', '["x"]', *["[]"] * 5], ["f=x", "f=y"]),
        (["[4, 7]", "[7, 9]", "[4, 9]", *["[]"] * 5], ["f=4", "f=7", "f=9"]),
        ([f"red no{n}" if n % 2 else f"blue no{n}" for n in range(8)], ["f=blue", "f=red"]),
        ([True, False] * 4, ["f=false", "f=true"]),
        (["[1", "[1", *["x"] * 6], ["f=[1", "f=x"]),
        ([None] * 8, []),
        (["same"] * 8, []),  # a constant distinguishes no rows
        (["7"] * 8, []),
        (["7.5"] * 8, []),
        (["[0.5, 1.5]"] * 8, []),
        ([END, END - timedelta(days=1)] * 4, []),
    ],
)
def test_the_kind_of_a_further_column_is_read_off_its_values(values, names):
    assert list(features(f=values)) == names


def test_columns_without_information_on_taste_are_not_features():
    days = [END - timedelta(days=n % 2) for n in range(8)]
    assert features(available=[True, False] * 4, created_at=days) == {}
    assert add_features(window()).item_features is None
    assert add_features(window(), items()).item_features is None
    assert add_features(window(), items([])).item_features is None


def test_only_the_most_common_values_are_kept(monkeypatch):
    monkeypatch.setattr(feature_encoding, "MAX_VALUES", 2)
    lists = [["a", "b"], ["a", "b"], ["a", "c"], ["c"], ["b"], [], ["a"], []]
    assert list(features(categories=lists)) == ["categories=a", "categories=b"]


def test_a_persons_name_is_no_feature_but_a_segment_is():
    users = pl.DataFrame(
        {
            c.USER_ID: ["eve", "ann", "bob", "zoe", "xi"],
            c.SEGMENT: ["new", "new", "old", "older", "old"],
            "name": ["Eve Ax", "Ann Ax", "Bob Bo", "Zoe Zu", "Xi Zu"],
            "age": ["20-29", "30-39", "20-29", "30-39", "30-39"],
        }
    )
    matrix = add_features(window(users=("ann", "bob", "eve", "zoe")), users=users).user_features
    assert matrix.names.tolist() == ["age=20-29", "age=30-39", "segment=new"]
    assert matrix.cells.toarray().tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0]]


# --- who is described ---------------------------------------------------------------------------


def test_users_without_events_are_described_by_the_values_of_the_windows_users():
    users = pl.DataFrame(
        {
            c.USER_ID: ["ann", "bob", "eve", "sam", "xi", "zoe"],
            c.SEGMENT: ["new", "new", "old", "new", "unseen", "old"],
            "age": ["20-29", "30-39", "20-29", None, "unseen", "30-39"],
        }
    )
    known = add_features(window(users=("ann", "bob", "eve", "zoe")), users=users)
    described = described_users(known, users)
    assert described.user_ids.tolist() == ["sam"]  # xi has unseen values only
    assert described.indptr.tolist() == [0, 0]
    names = described.user_features.names.tolist()
    assert names == known.user_features.names.tolist()
    assert dict(zip(names, described.user_features.cells.toarray()[0], strict=True)) == {
        name: float(name == "segment=new") for name in names
    }
    assert described_users(window(), users).n_users == 0


def test_an_item_without_a_row_has_no_features():
    matrix = add_features(
        window(), items(ITEMS[:4], categories=[["a"], ["a"], ["b"], ["b"]])
    ).item_features
    assert matrix.cells.shape == (8, 2)
    assert np.diff(matrix.cells.indptr).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_rows_in_another_order_give_the_same_bytes():
    rng = np.random.default_rng(1)
    table = items(
        title=[f"{'red' if n % 2 else 'blue'} {'cup' if n % 3 else 'mug'}" for n in range(8)],
        price=[float(n) for n in range(8)],
        embedding=[str(v) for v in rng.normal(size=(8, 3)).tolist()],
    )
    one, other = (add_features(window(), t).arrays() for t in (table, table[rng.permutation(8)]))
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_items_without_an_event_join_once_they_were_created():
    ids = [*ITEMS, "new", "later", "undated", "bare"]
    created = [None] * 8 + [END - timedelta(days=1), END, None, END - timedelta(days=1)]
    lists = [["a"], ["b"]] * 4 + [["a", "only new"], ["a"], ["a"], ["unheard of"]]
    history = add_features(window(), items(ids, categories=lists, created_at=created))
    assert history.item_ids.tolist() == list(ITEMS)
    assert history.cold_items.ids.tolist() == ["new"]
    assert history.cold_items.features.names.tolist() == history.item_features.names.tolist()
    assert history.item_features.names.tolist() == ["categories=a", "categories=b"]
    assert history.cold_items.features.cells.toarray().tolist() == [[1, 0]]


def test_what_a_table_holds_beside_the_window_teaches_nothing():
    rng = np.random.default_rng(2)
    ids = [*ITEMS, *(f"x{n}" for n in range(20))]
    vectors = [*rng.normal(size=(8, 2)).tolist(), *rng.normal(50, 9, size=(20, 2)).tolist()]
    table = items(
        ids,
        categories=[["a"], ["b"]] * 4 + [["a", "c"]] * 20,
        title=["red cup", "blue cup", "red mug", "blue mug"] * 2 + ["red plate"] * 20,
        price=[1.0, 2.0, 3.0, 4.0] * 2 + [1000.0] * 20,
        embedding=[str(vector) for vector in vectors],
        created_at=[None] * 8 + [END - timedelta(days=1)] * 20,
    )
    alone, crowded = add_features(window(), table[:8]), add_features(window(), table)
    assert len(crowded.cold_items.ids) == 20
    one, other = (history.item_features.arrays("") for history in (alone, crowded))
    assert len(one["names"]) == 2 + 4 + 4 + 2
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    # The others are encoded with the features of the window's items.
    matrix = crowded.cold_items.features
    cells = dict(zip(matrix.names.tolist(), matrix.cells.toarray()[0].tolist(), strict=True))
    assert cells["title=red"] == cells["categories=a"] == cells["price=4.0.."] == 1
    assert cells["embedding=0"] > 10


def test_a_window_with_features_survives_its_arrays_and_a_longer_catalogue():
    ids = [*ITEMS, "h", "new"]
    created = [None] * 8 + [END - timedelta(days=1)] * 2
    lists = [["a"], ["b"]] * 4 + [["b"], ["a"]]
    users = pl.DataFrame({c.USER_ID: ["ann", "bob"], c.SEGMENT: ["x", "x"]})
    history = add_features(window(), items(ids, categories=lists, created_at=created), users)
    again = History.from_arrays(history.arrays())
    assert all(np.array_equal(a, again.arrays()[name]) for name, a in history.arrays().items())
    longer = again.reindex_items(np.sort(np.concatenate([history.item_ids, again.cold_items.ids])))
    assert longer.item_ids.tolist() == ["h", *ITEMS, "new"]
    assert longer.cold_items is None
    assert longer.item_features.cells.toarray()[[0, 9]].tolist() == [[0, 1], [1, 0]]
    assert (longer.seen[:, 1:9] != history.seen).nnz == 0
    assert longer.seen[:, [0, 9]].nnz == 0
    back = longer.reindex_items(history.item_ids)
    assert (back.seen != history.seen).nnz == 0
    assert (back.item_features.cells != history.item_features.cells).nnz == 0
    some = longer.reindex_items(np.array(["a", "h", "i1", "i3"]))
    assert some.confidence(None).toarray().tolist() == [[0, 0, 1, 1]] * 3
    assert some.item_features.cells.toarray().tolist() == [[0, 0], [0, 1], [0, 1], [0, 1]]
    assert (np.diff(some.indptr), len(some.timestamp_us)) == (pytest.approx([2, 2, 2]), 6)
    assert some.take(np.array([1])).user_features.cells.toarray().tolist() == [[1]]
    assert history.reindex_items(history.item_ids) is history


# --- bad input ----------------------------------------------------------------------------------


def test_an_id_twice_is_refused():
    with raises("features.repeated_id"):
        add_features(window(), items([*ITEMS, ITEMS[1]]))
    users = pl.DataFrame({c.USER_ID: ["ann", "ann"], c.SEGMENT: ["x", "y"]})
    with raises("features.repeated_id"):
        add_features(window(), users=users)


@pytest.mark.parametrize("bad", ["inf", "-Infinity", "1e101"])
def test_an_infinite_number_is_named(bad):
    table = items(weight=["1.5", "2.5", bad, "3.5", *["1.5"] * 4])
    with raises("features.not_finite"):
        add_features(window(), table)
    with raises("features.not_finite"):
        add_features(window(), items(price=[np.inf, *[1.0] * 7]))
    with raises("features.not_finite"):
        add_features(window(), items(f=["[0.5, 1]", "[Infinity, 2]", *["[0.5, 2]"] * 6]))


def test_nan_is_missing_and_a_policy_fills_it():
    prices = [np.nan, 1.5, 1.5, 2.5, 2.5, 1.5, 2.5, None]
    encoded = features(price=prices)
    assert [sum(cells[n] for cells in encoded.values()) for n in (0, 7)] == [0, 0]
    assert features(weight=[str(p) for p in prices[:7]] + [None]).keys() == {
        name.replace("price", "weight") for name in encoded
    }
    policy = {c.PRICE: ColumnTreatment(missing="median")}
    rows, _ = cleaned("items", items(price=prices), policy)
    filled = add_features(window(), rows).item_features
    assert np.diff(filled.cells.indptr).tolist() == [1] * 8
    vectors = features(f=["[NaN, 1]", "[0.5, 2]", "[0.25, 3]", "[1.0, 4]", *["[0.5, 1]"] * 4])
    assert vectors["f=0"][0] == vectors["f=1"][0] == 0
    assert np.isfinite(list(vectors.values())).all()


def test_vectors_of_different_lengths_are_named():
    with raises("features.vector_length"):
        add_features(window(), items(f=[*["[0.5, 2]"] * 3, "[0.5]", *["[1.5, 2]"] * 4]))
