from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import ValidationError

from pipeline import columns as c
from pipeline.base import plain
from pipeline.data.clean.policies import CleanConfig, ColumnTreatment
from pipeline.data.clean.treat import CleanReport, apply, learn
from tests.raising import raises

NAN, INF = float("nan"), float("inf")


def values(*given: float | None) -> pl.DataFrame:
    return pl.DataFrame({c.VALUE: given}, schema={c.VALUE: pl.Float64})


def clean(
    frame: pl.DataFrame, policies: Mapping[str, ColumnTreatment]
) -> tuple[pl.DataFrame, CleanReport]:
    return apply(frame, learn(frame, policies))


def cleaned(frame: pl.DataFrame, column: str = c.VALUE, **policy: Any) -> list[Any]:
    return clean(frame, {column: ColumnTreatment(**policy)})[0][column].to_list()


# --- missing values


@pytest.mark.parametrize(
    ("policy", "fill"),
    [
        ({"missing": "mean"}, 4.0),
        ({"missing": "median"}, 2.0),
        ({"missing": "mode"}, 1.0),
        ({"missing": "constant", "constant": 7}, 7.0),
        ({"missing": "indicator", "constant": 7}, 7.0),
        ({"missing": "indicator"}, None),
    ],
)
def test_missing_and_infinite_values_are_filled(policy: dict[str, Any], fill: float) -> None:
    frame = values(1.0, None, 1.0, NAN, 3.0, INF, 11.0, -INF)
    assert cleaned(frame, **policy) == [1.0, fill, 1.0, fill, 3.0, fill, 11.0, fill]


def test_the_fill_is_counted() -> None:
    _, total = clean(values(1.0, None, NAN, 4.0), {c.VALUE: ColumnTreatment(missing="mean")})
    (report,) = total.columns
    assert (report.column, report.missing_policy) == (c.VALUE, "mean")
    assert (report.missing, report.filled, report.fill) == (2, 2, 2.5)


def test_the_mode_of_equals_is_the_smallest_and_texts_have_one_too() -> None:
    assert cleaned(values(5.0, 3.0, None), missing="mode") == [5.0, 3.0, 3.0]
    texts = pl.DataFrame({"colour": ["red", None, "blue", "blue"]})
    assert cleaned(texts, "colour", missing="mode") == ["red", "blue", "blue", "blue"]
    flags = pl.DataFrame({"new": [True, None, True, False]})
    assert cleaned(flags, "new", missing="mode") == [True, True, True, False]


def test_an_indicator_marks_missing_values() -> None:
    policy = ColumnTreatment(missing="indicator", constant=0.0)
    result, _ = clean(values(1.0, None, NAN), {c.VALUE: policy})
    assert result.columns == [c.VALUE, f"{c.VALUE}_missing"]
    assert result[f"{c.VALUE}_missing"].to_list() == [False, True, True]


def test_integers_become_floats() -> None:
    frame = pl.DataFrame({"age": [1, 2, None]})
    assert cleaned(frame, "age", missing="mean") == [1.0, 2.0, 1.5]


# --- outliers

TEN = values(*range(1, 11))


@pytest.mark.parametrize(
    ("policy", "expected", "below", "above"),
    [
        ({"outliers": "clip", "maximum": 8}, [1, 2, 3, 4, 5, 6, 7, 8, 8, 8], 0, 2),
        ({"outliers": "clip", "minimum": 2.5}, [2.5, 2.5, 3, 4, 5, 6, 7, 8, 9, 10], 2, 0),
        (
            {"outliers": "clip", "minimum": 2, "maximum": 9},
            [2, 2, 3, 4, 5, 6, 7, 8, 9, 9], 1, 1,
        ),
        ({"outliers": "winsorise", "upper": 0.9}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 9], 0, 1),
        (
            {"outliers": "winsorise", "lower": 0.1, "upper": 0.9},
            [2, 2, 3, 4, 5, 6, 7, 8, 9, 9], 1, 1,
        ),
        ({"outliers": "winsorise", "lower": 0, "upper": 1}, list(range(1, 11)), 0, 0),
    ],
)  # fmt: skip
def test_outliers_are_cut_and_counted(
    policy: dict[str, Any], expected: list[float], below: int, above: int
) -> None:
    frame, total = clean(TEN, {c.VALUE: ColumnTreatment(**policy)})
    assert frame[c.VALUE].to_list() == expected
    (report,) = total.columns
    assert (report.below, report.above, report.quarantined) == (below, above, 0)
    assert total.quarantined == 0


def test_quarantine_takes_rows_out_and_counts_them_by_column() -> None:
    frame = pl.DataFrame(
        {
            "a": [1, 2, 30, 40, None, None],
            "b": [1.0, -5.0, 1.0, -5.0, None, -5.0],
            "row": [0, 1, 2, 3, 4, 5],
        }
    )
    policies = {
        "a": ColumnTreatment(outliers="quarantine", maximum=10, missing="constant", constant=7),
        "b": ColumnTreatment(outliers="quarantine", minimum=0, missing="constant", constant=9),
    }
    rows, report = clean(frame, policies)
    assert rows["row"].to_list() == [0, 4]
    assert rows["a"].to_list() == [1.0, 7.0]
    assert rows["b"].to_list() == [1.0, 9.0]
    assert (report.rows_in, report.rows_out, report.quarantined) == (6, 2, 4)
    assert [column.quarantined for column in report.columns] == [2, 3]
    assert [(column.missing, column.filled) for column in report.columns] == [(2, 1), (1, 1)]


def test_a_quantile_may_quarantine_and_a_missing_value_is_no_outlier() -> None:
    frame = values(*range(1, 11), None, INF)
    rows, report = clean(frame, {c.VALUE: ColumnTreatment(outliers="quarantine", upper=0.9)})
    assert rows[c.VALUE].to_list() == [*range(1, 10), None, None]
    assert report.quarantined == 1


@pytest.mark.parametrize(
    ("outliers", "mean"),
    [("clip", (1 + 2 + 3 + 3) / 4), ("quarantine", 2.0), ("none", 252.0)],
)
def test_an_outlier_does_not_change_filled_values(outliers: str, mean: float) -> None:
    bound = {"maximum": 3} if outliers != "none" else {}
    policy = ColumnTreatment(missing="mean", outliers=outliers, **bound)  # type: ignore[arg-type]
    (figures,) = learn(values(1.0, 2.0, 3.0, 1002.0, None), {c.VALUE: policy})
    assert figures.fill == pytest.approx(mean)


def test_filled_values_are_not_cut() -> None:
    filled = cleaned(values(1.0, None), missing="constant", constant=99, outliers="clip", maximum=5)
    assert filled == [1.0, 99.0]


# --- learnt on the training window alone


def test_the_holdout_is_cleaned_with_the_figures_of_the_training_window() -> None:
    policy = ColumnTreatment(missing="mean", outliers="winsorise", lower=0.1, upper=0.9)
    learnt = learn(TEN, {c.VALUE: policy})
    holdout = values(-1000.0, None, 1000.0, 5.0)
    rows, total = apply(holdout, learnt)
    assert rows[c.VALUE].to_list() == [2.0, 5.5, 9.0, 5.0]
    other, _ = apply(values(1000.0, None, None), learnt)
    assert other[c.VALUE].to_list() == [9.0, 5.5, 5.5]
    (report,) = total.columns
    assert (report.fill, report.low, report.high) == (5.5, 2.0, 9.0)


# --- nothing without a policy


def test_without_a_policy_nothing_is_touched() -> None:
    frame = pl.DataFrame({c.VALUE: [1.0, None, NAN, INF], "n": [1, 2, None, 4]})
    assert CleanConfig() == CleanConfig(events={}, items={}, users={})
    for policies in (CleanConfig().events, {c.VALUE: ColumnTreatment()}):
        rows, report = clean(frame, policies)
        assert_frame_equal(rows, frame)
        assert plain(report) == {
            "rows_in": 4, "rows_out": 4, "quarantined": 0, "columns": [],
        }  # fmt: skip


def test_the_report_is_json() -> None:
    policies = {c.VALUE: ColumnTreatment(missing="median", outliers="winsorise", upper=0.5)}
    record = json.loads(json.dumps(plain(clean(TEN, policies)[1]), allow_nan=False))
    assert record["rows_in"] == record["rows_out"] == 10
    assert record["columns"][0]["above"] > 0


finite = st.floats(-1e6, 1e6)
anything = st.one_of(st.none(), st.floats())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(finite, min_size=1, max_size=30),
    st.lists(anything, max_size=30),
    st.sampled_from(["mean", "median", "mode", "constant"]),
    st.sampled_from(["none", "clip", "winsorise", "quarantine"]),
)
def test_rows_add_up_and_all_that_stays_is_finite_and_inside(
    train: list[float], later: list[float | None], missing: Any, outliers: Any
) -> None:
    bounds: dict[str, Any] = {
        "none": {},
        "clip": {"minimum": -1e5, "maximum": 1e5},
        "winsorise": {"lower": 0.05, "upper": 0.95},
        "quarantine": {"lower": 0.05, "upper": 0.95},
    }[outliers]
    constant = {"constant": 0} if missing == "constant" else {}
    policy = ColumnTreatment(missing=missing, outliers=outliers, **constant, **bounds)
    learnt = learn(values(*train), {c.VALUE: policy})
    rows, report = apply(values(*later), learnt)
    (column,) = report.columns
    assert report.rows_in == len(later) == report.rows_out + report.quarantined
    assert rows.height == report.rows_out
    assert report.quarantined == column.quarantined
    left = rows[c.VALUE]
    assert left.null_count() == 0
    assert left.is_finite().all()
    low = -INF if column.low is None else column.low
    high = INF if column.high is None else column.high
    assert ((left >= low) & (left <= high) | (left == column.fill)).all()
    assert column.filled == column.missing


# --- errors name the field, the value and what is allowed

FRAME = pl.DataFrame(
    {
        c.USER_ID: ["u"],
        c.TIMESTAMP: [None],
        "title": ["t"],
        "price": [1.0],
        "tags": [["a"]],
        "new": [True],
        "new_missing": [False],
        "born": pl.Series([None], dtype=pl.Date),
    }
)


@pytest.mark.parametrize(
    ("column", "policy", "problem", "values"),
    [
        ("prize", {"missing": "mean"}, "unknown_column", ["price"]),
        (c.USER_ID, {"missing": "mode"}, "unknown_column", []),
        (c.TIMESTAMP, {"missing": "mode"}, "unknown_column", []),
        (
            "title", {"missing": "median"}, "missing_needs_numbers",
            [".missing = 'median'", "String", "mode", "constant"],
        ),
        (
            "title", {"outliers": "clip", "maximum": 1}, "outliers_need_numbers",
            [".outliers = 'clip'", "String", "none"],
        ),
        ("tags", {"missing": "mode"}, "fill_dtype", [".missing = 'mode'", "List", "none"]),
        (
            "price", {"missing": "constant", "constant": "x"}, "constant_dtype",
            [".constant = 'x'", "Float64", "number"],
        ),
        (
            "price", {"missing": "constant", "constant": True}, "constant_dtype",
            [".constant = True", "number"],
        ),
        (
            "title", {"missing": "constant", "constant": 1}, "constant_dtype",
            [".constant = 1.0", "String", "text"],
        ),
        (
            "born", {"missing": "constant", "constant": "1990"}, "constant_dtype",
            [".constant = '1990'", "Date"],
        ),
        ("new", {"missing": "indicator"}, "indicator_exists", ["new_missing"]),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_fit_its_column(
    column: str, policy: dict[str, Any], problem: str, values: list[str]
) -> None:
    with raises(f"clean.{problem}") as caught:
        learn(FRAME, {column: ColumnTreatment(**policy)}, where="clean.items")
    sentence = caught.value.sentence
    assert sentence.startswith(f"clean.items.{column}")
    assert all(value in sentence for value in values)


def test_a_frame_without_the_learnt_column() -> None:
    learnt = learn(FRAME, {"price": ColumnTreatment(missing="mean")}, where="clean.items")
    with raises("clean.unknown_column"):
        apply(FRAME.drop("price"), learnt)


@pytest.mark.parametrize(
    "policy",
    [
        {"missing": "mean"},
        {"missing": "mode"},
        {"outliers": "winsorise", "upper": 0.9},
        {"outliers": "quarantine", "lower": 0.1},
    ],
)
def test_nothing_can_be_learnt_from_no_values(policy: dict[str, Any]) -> None:
    for frame in (values(), values(None, NAN, INF)):
        with raises("clean.no_values"):
            learn(frame, {c.VALUE: ColumnTreatment(**policy)})


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"missing": "zero"}, "'none', 'mean', 'median', 'mode', 'constant' or 'indicator'"),
        ({"outliers": "trim"}, "'none', 'clip', 'winsorise' or 'quarantine'"),
        ({"missing": "constant"}, "needs constant"),
        ({"missing": "constant", "constant": INF}, "should be a finite number"),
        ({"missing": "mean", "constant": 1}, 'left out with missing = "mean"'),
        ({"outliers": "clip"}, '"clip" takes minimum, maximum or both'),
        ({"outliers": "clip", "upper": 0.5}, '"clip" takes minimum, maximum or both'),
        ({"outliers": "winsorise", "maximum": 1}, '"winsorise" takes lower, upper or both'),
        ({"outliers": "quarantine"}, '"quarantine" takes bounds'),
        ({"outliers": "quarantine", "upper": 0.5, "maximum": 1}, '"quarantine" takes bounds'),
        ({"upper": 0.5}, '"none" takes no minimum'),
        ({"outliers": "winsorise", "upper": 99}, "less than or equal to 1"),
        ({"outliers": "clip", "minimum": 2, "maximum": 1}, "minimum = 2.0 must be less"),
        ({"outliers": "winsorise", "lower": 0.5, "upper": 0.5}, "lower = 0.5 must be less"),
        ({"outlier": "clip"}, "Extra inputs are not permitted"),
    ],
)
def test_a_policy_that_makes_no_sense(policy: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ColumnTreatment(**policy)


def test_the_config_reads_as_it_is_written_in_toml() -> None:
    text = """
    [clean.events.value]
    missing = "constant"
    constant = 1
    outliers = "winsorise"
    upper = 0.99
    """
    config = CleanConfig.model_validate(tomllib.loads(text)["clean"])
    assert config.events[c.VALUE] == ColumnTreatment(
        missing="constant", constant=1.0, outliers="winsorise", upper=0.99
    )
    assert CleanConfig.model_validate_json(config.model_dump_json()) == config
