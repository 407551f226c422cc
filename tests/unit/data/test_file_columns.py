import polars as pl
import pytest

from pipeline.data.sources.file_columns import FileColumns


@pytest.mark.parametrize(
    "names",
    [
        ("alice", "item", "4711"),
        ("alice", "item", "-4.5"),
        ("alice", "item", "2024-03-01"),
        ("alice", "item", "Mar 1 10:00"),
        ("alice@example.org", "item"),
        ("alice", "item", "Purchase "),
        ("alice", " 1709287200"),
    ],
)
def test_a_header_that_looks_like_data_names_nothing(names):
    columns = FileColumns.of_header(names)
    assert columns.like_data
    assert columns.named == frozenset()
    assert columns.label(names[1]) == "#2"
    assert "alice" not in str(columns)


def test_a_header_names_the_columns_that_look_like_names():
    names = ("userId", "movieId", "rating", "", "a=b", "List Price.EUR", "n" * 42, "名前")
    columns = FileColumns.of_header(names)
    assert not columns.like_data
    assert columns.named == {"userId", "movieId", "rating", "List Price.EUR"}
    assert [columns.label(name) for name in names[3:6]] == ["#4", "#5", "List Price.EUR"]
    assert str(columns) == "userId, movieId, rating, List Price.EUR, 4 more"


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"user": 1, "alice": 1}, {"user": 1, "bert": 1}], {"user"}),
        ([{"alice": 1, "bert": 1}], set()),
        ([{"user": 1, "x": 1}] * 51 + [{"user": 1}] * 49 + [{"late": 1}] * 300, {"user", "x"}),
        ([{"user": 1, "x": 1}] * 50 + [{"user": 1}] * 50, {"user"}),
        ([{"a@b": 1}] * 3, set()),
    ],
)
def test_keys_are_named_that_most_of_the_first_rows_have(rows, named):
    columns = FileColumns.of_keys(pl.DataFrame(rows, infer_schema_length=None))
    assert columns.named == named
    assert not columns.like_data
