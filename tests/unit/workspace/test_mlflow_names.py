import pytest
from mlflow.utils.validation import _validate_metric_name

from pipeline.workspace import mlflow_names as names

FIGURES = {
    "recall_at_20": 0.1,
    "recall_at_20_lo": 0.05,
    "recall_at_20_hi": 0.15,
    "slice.cold.ndcg_at_20": 0.2,
    "slice.cold.users": 40.0,
    "drift.taste.items": 1.5,
    "live.ndcg_at_20": 0.3,
    "live.ndcg_at_20_lo": 0.2,
    "live.ndcg_at_20_hi": 0.4,
    "answers.share": 0.5,
    "clean.events.rows_in": 10.0,
    "foldin.overlap_at_10": 0.9,
    "refresh.lift_without_answers": 0.1,
}


def test_all_other_metrics_are_in_folders_without_bounds():
    placed = names.in_folders(FIGURES, "slice/all.")
    assert placed == {
        "slice/all.recall_at_20": 0.1,
        "slice/cold.ndcg_at_20": 0.2,
        "slice/cold.users": 40.0,
        "drift/taste.items": 1.5,
        "attribution/live.ndcg_at_20": 0.3,
        "attribution/answers.share": 0.5,
        "drift/clean.events.rows_in": 10.0,
        "churn/foldin.overlap_at_10": 0.9,
        "attribution/refresh.lift_without_answers": 0.1,
    }
    assert names.bounds(FIGURES, "slice/all.") == {
        "slice/all.recall_at_20": (0.05, 0.15),
        "attribution/live.ndcg_at_20": (0.2, 0.4),
    }


def test_headline_metrics_sort_before_all_folders_and_mlflow_accepts_them():
    lifts = [names.OVER_FIRST, names.OVER_BEFORE, names.OVER_BASELINE]
    columns = names.columns_of_runs(20)
    assert [name for name in columns if name in lifts] == lifts
    first = f"{names.OVER_FIRST} low", f"{names.OVER_FIRST} high"
    assert columns[:3] == (names.OVER_FIRST, *first)
    levels = [name for name in columns if name >= "4"]
    headline = [*(f"{lift}{end}" for lift in lifts for end in sorted(names.ENDS)), *levels]
    assert headline[-4:] == ["4 ndcg_at_20", "5 users", "6 days", "7 minutes"]
    placed = [*names.in_folders(FIGURES, "slice/all."), "cost/fit_seconds"]
    assert sorted([*placed, *headline])[: len(headline)] == headline
    for name in [*placed, *headline]:
        _validate_metric_name(name)
    with pytest.raises(Exception, match="Names may only contain"):
        _validate_metric_name("1 lift %")


def test_a_lift_is_in_percent_with_one_decimal():
    assert names.lift_metrics(names.OVER_BEFORE, (0.12345, -0.0049, 0.25)) == {
        "2 lift over version before pct": 12.3,
        "2 lift over version before pct low": -0.5,
        "2 lift over version before pct high": 25.0,
    }
