import polars as pl
import pytest

from pipeline import columns as c
from pipeline.serving.withdrawal import (
    refuse_short,
    withdrawal_id,
    withdrawn_lists,
    without_withdrawals,
)
from tests.raising import raises


def lists(**of):
    rows = [(user, n, item) for user, items in of.items() for n, item in enumerate(items, 1)]
    schema = {c.USER_ID: pl.String, c.POSITION: pl.Int32, c.ITEM_ID: pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def refused(shown, possible, length=10, most=0.25):
    """Check lists of these lengths, of users who could have so many entries."""
    rows = lists(**{f"u{n}": "abcdefghijkl"[:count] for n, count in enumerate(shown)})
    frame = pl.DataFrame(
        {c.USER_ID: [f"u{n}" for n in range(len(shown))], "possible": list(possible)}
    )
    refuse_short(rows, frame, length, most, len(shown))


def test_entries_move_up_and_an_empty_list_becomes_the_fallback():
    made, fallback = lists(u="abcd", v="ab"), lists(**{"*": "bef"})
    rows = withdrawn_lists(made, fallback, ["a", "b"], 2)
    assert rows.rows() == [("u", 1, "c"), ("u", 2, "d"), ("v", 1, "e"), ("v", 2, "f")]


@pytest.mark.parametrize(
    ("shown", "possible"),
    [
        ((10, 10, 10, 4), (40, 40, 40, 40)),  # one in four is not more than a quarter
        ((5, 5, 5, 5), (40, 40, 40, 40)),  # half of a list is enough
        ((3, 3, 3, 3), (6, 6, 6, 6)),  # the catalogue has no more
        ((2, 2, 2, 2), (2, 2, 2, 2)),
    ],
)
def test_lists_that_are_long_enough_are_not_refused(shown, possible):
    refused(shown, possible)


@pytest.mark.parametrize(
    ("shown", "possible"),
    [((0, 0, 10, 10), (40,) * 4), ((4, 4, 10, 10), (40,) * 4), ((2, 2, 2, 2), (6,) * 4)],
)
def test_too_many_short_lists_are_refused_with_their_number(shown, possible):
    with raises("lists.too_short") as error:
        refused(shown, possible)
    short = sum(2 * a < min(b, 10) for a, b in zip(shown, possible, strict=True))
    assert f"{short} of 4 users" in error.value.sentence


def test_the_id_follows_from_the_chain_and_the_items_and_is_no_fold_in():
    first = withdrawal_id("p-1", "p-1", ["b", "a"])
    assert first == withdrawal_id("p-1", "p-1", ["a", "b"]) != withdrawal_id("p-1", first, ["a"])
    rows = pl.DataFrame({c.PUBLICATION_ID: ["p-1", "p-1-f0123abcd", first]})
    assert without_withdrawals(rows)[c.PUBLICATION_ID].to_list() == ["p-1", "p-1-f0123abcd"]
