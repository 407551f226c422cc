import polars as pl
import pytest

from pipeline.data.sources.file_columns import FileColumns


@pytest.mark.parametrize(
    "field",
    [
        *(
            "4711",
            "-4.5",
            ".5",
            "+.5",
            "1e3",
            "1,5",
            "€5",
            "5 %",
            "１２",
            "½",
            "NaN",
            "-inf",
            "null",
        ),
        *("2024-03-01", "01.03.2026", "20260301T100000Z", " 1709287200", "10h30", "T10:00"),
        *("March 1 2026", "1 March", "first of march", "Mar-2026", "01MAR2026", "mar2026"),
        *("Sun, 1 Mar 2026 10:00", "Monday", "1. März 2026", "Sept.", "Mar 1 10:00"),
        *("alice@example.org", "alice＠example.org", "user-17", "tel 0170"),
        *("view", "click", "add_to_cart", "Purchase ", "return", "ＶＩＥＷ", "rating", "Rating"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_first_line_with_one_field_of_data_names_nothing(field, place):
    names = ["alice", "item1", "first"]
    names[place] = field
    columns = FileColumns.of_header(names)
    assert columns.like_data
    assert columns.named == frozenset()
    assert columns.label(names[1]) == "#2"
    assert str(columns) == "3 columns, and its first line looks like data"


@pytest.mark.parametrize(
    "names",
    [
        ("userId", "movieId", "rating", "timestamp"),
        ("user_id", "item_id", "rating"),
        ("user", "item", "rating"),
        ("USER ID", "ITEM ID", "RATING"),
    ],
)
def test_rating_is_a_name_beside_names_of_ids(names):
    assert FileColumns.of_header(names).named == set(names)


@pytest.mark.parametrize("names", [("alice", "item1", "rating", "5"), ("david", "lucid", "rating")])
def test_rating_is_no_name_beside_words(names):
    assert FileColumns.of_header(names).like_data


@pytest.mark.parametrize(
    "name", ["item1", "marketing", "second", "february_sales", "dec_value", "x2"]
)
def test_names_that_contain_parts_of_dates_and_digits_are_names(name):
    assert FileColumns.of_header(["user_id", name]).named == {"user_id", name}


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
