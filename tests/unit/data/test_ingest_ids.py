import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.ids import doubtful, one_form, read_ids

MISSING = IngestConfig().missing_ids


def judge(*ids: str | None, missing=MISSING):
    """Return the ids, the reason of each id that cannot be used, and the changes."""
    text = pl.DataFrame({c.ITEM_ID: ids}, schema={c.ITEM_ID: pl.String})
    frame, flags, changed = read_ids(text, (c.ITEM_ID,), missing)
    names = [[name for name, flag in row.items() if flag] for row in flags.iter_rows(named=True)]
    prefix = f"{c.ITEM_ID}_"
    return (
        frame[c.ITEM_ID].to_list(),
        [reason.removeprefix(prefix) for reasons in names for reason in reasons],
        {change.removeprefix(prefix): rows for change, rows in changed.items()},
    )


@pytest.mark.parametrize(
    ("raw", "form", "change"),
    [
        ("12345.0", "12345", "float"),
        ("12345.00", "12345", "float"),
        ("0.0", "0", "float"),
        ("-7.0", "-7", "float"),
        ("9007199254740991.0", "9007199254740991", "float"),
        (" 5", "5", "white_space"),
        ("5\t", "5", "white_space"),
        ("\u30005\r\n", "5", "white_space"),
        ("a\u00a0b", "a b", "no_break_space"),
        ("a\u202fb", "a b", "no_break_space"),
        ("a\u2007b", "a b", "no_break_space"),
    ],
)
def test_a_form_of_an_id_that_means_another_one_becomes_it(raw, form, change):
    assert judge(raw, "x") == ([form, "x"], [], {change: 1})
    assert one_form(raw) == form


@pytest.mark.parametrize(
    "raw",
    ["007", "007.0", "1e3", "12E5", "8.71E12", "8.71E-12", "1.5", "1.0.0", ".0", "a.0", "x+12",
     "1E+2a", "10E+12", "true", "[1a]", "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", "nana", "a b",
     "**", "9007199254740993"],
)  # fmt: skip
def test_other_ids_are_unchanged(raw):
    assert judge(raw) == ([raw], [], {})
    assert one_form(raw) == raw


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("8.71E+12", "lost_digits"),
        ("8.71200e+12", "lost_digits"),
        ("-8E+15", "lost_digits"),
        ("1e+22", "lost_digits"),
        ("9007199254740992.0", "lost_digits"),
        ("-9007199254740994.0", "lost_digits"),
        ("9" * 400 + ".0", "lost_digits"),
        (" 8.71E+12 ", "lost_digits"),
        ("*", "reserved"),
        (" * ", "reserved"),
        ('["a", "b"]', "list"),
        ("[]", "list"),
        ('{"id": "a"}', "list"),
    ],
)
def test_an_id_that_cannot_be_used_has_a_reason(raw, reason):
    assert judge("x", raw)[1] == [reason]


@pytest.mark.parametrize("raw", [*MISSING, "", " ", "\u00a0", " nan ", "NaN\t", None])
def test_a_word_for_a_missing_id_is_none(raw):
    assert judge(raw)[0] == [None]


def test_the_words_for_a_missing_id_are_a_setting():
    assert judge("-1.0", "0", "nan", "", missing=("-1",))[0] == [None, "0", "nan", None]


def test_an_id_that_is_often_zero_or_minus_one_is_doubtful():
    ids = ["0"] * 2 + ["-1"] + ["x"] * 97
    rows = pl.DataFrame({c.ITEM_ID: ids, c.USER_ID: ["x"] * 100})
    assert doubtful(rows) == {"item_id 0": 2}
