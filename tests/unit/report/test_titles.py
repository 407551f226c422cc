from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.report import titles, wording
from pipeline.report.night import LiftRow, PastRun, SliceRow
from tests.pages import churn, status

DAY = datetime(2017, 12, 1, 9, tzinfo=UTC)
ALS = status("als", 12.4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.00001, "under 0.01 %"),
        (0.0023, "0.23 %"),
        (0.0157, "1.6 %"),
        (0.93, "93.0 %"),
        (0.9951, "99.5 %"),
        (0.9999, "over 99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_never_looks_like_none_or_all(value: float, text: str) -> None:
    assert wording.share(value) == text


def test_e_processes_name_the_highest_e_value() -> None:
    title = "No candidate has enough evidence for a switch; the highest e-value is 12 (500 needed)"
    assert titles.e_processes_title([ALS]) == title
    assert titles.e_processes_title([status("other", 3.0), ALS]) == title


def test_the_metric_is_compared_with_an_equally_long_block_only() -> None:
    first = PastRun(DAY, "first", "als", 28, 0.04)
    second = PastRun(DAY + timedelta(days=7), "refresh", "als", 7, 0.02)
    third = replace(second, as_of=DAY + timedelta(days=14), mean=0.022)
    assert titles.metric_title([first, second], "ndcg_at_20") == "als reaches 0.0200 NDCG@20"
    title = titles.metric_title([first, second, third], "ndcg_at_20")
    assert title == "als reaches 0.0220 NDCG@20, +10.0 % since 8 Dec"
    gone = replace(third, mean=None)
    title = titles.metric_title([first, gone], "ndcg_at_20")
    assert title == "NDCG@20 of the champion by nightly run"


def test_the_lift_counts_the_verdicts_of_its_intervals() -> None:
    ahead = PastRun(DAY, "refresh", "als", 7, None, None, None, 0.171, 0.1, 0.242)
    level = replace(ahead, lift=0.05, lift_lo=-0.015, lift_hi=0.115)
    wide = replace(ahead, lift=0.05, lift_lo=-0.03, lift_hi=0.13)
    behind = replace(ahead, lift=-0.05, lift_lo=-0.07, lift_hi=-0.03)

    def title(*past: PastRun) -> str:
        return titles.lift_title(past, "over_baseline", 0.02)

    assert title(ahead) == "als: +17.1 % over the best baseline; nights: 1 better"
    mixed = "als: +5.0 % over the best baseline; nights: 2 better, 1 about as good"
    assert title(ahead, ahead, level) == mixed
    other = "als: −5.0 % over the best baseline; nights: 1 unclear, 1 worse"
    assert title(wide, behind) == other
    assert titles.lift_title([ahead], "over_before", 0.02).startswith(
        "als: +17.1 % over the version before"
    )


def test_a_forest_counts_clear_differences() -> None:
    better = SliceRow("cold", 200, 0.2, 0.1, 1.0, 0.5, 1.5)
    unclear = SliceRow("warm", 200, 0.1, 0.1, 0.0, -0.1, 0.1)
    worse = SliceRow("hot", 200, 0.1, 0.2, -0.5, -0.7, -0.3)
    thin = replace(worse, underpowered="too few users")

    def title(*rows: SliceRow) -> str:
        return titles.forest_title(rows, "als", "pop", 0.02)

    assert title(better, thin) == "als against pop, groups: 1 better, 1 worse (hot)"
    assert title(better, unclear) == "als against pop, groups: 1 better, 1 unclear"
    assert title(better, worse) == "als against pop, groups: 1 better, 1 worse (hot)"
    other = replace(worse, name="old")
    assert title(worse, other, unclear) == "als against pop, groups: 1 unclear, 2 worse"
    none = replace(worse, lift=None, lo=None, hi=None)
    assert title(none) == "als cannot be compared with pop in any group"


def test_reach_names_the_winner_and_the_widest() -> None:
    rows = {"als": 0.0157}
    wide = {**rows, "wide": 0.062}
    assert titles.reach_title(rows, "als") == "als recommends 1.6 % of the catalogue"
    text = "als recommends 1.6 % of the catalogue; the most: wide, 6.2 %"
    assert titles.reach_title(wide, "als") == text
    text = "wide recommends 6.2 % of the catalogue"
    assert titles.reach_title(wide, "mad") == text


def test_recipes_title_names_the_best_and_its_lead() -> None:
    def title(**means: float) -> str:
        return titles.recipes_title(means, "ndcg_at_20")

    assert title(popularity=0.08, als=0.12) == "als reaches 0.1200 NDCG@20, +50.0 % over popularity"
    assert title(popularity=0.08) == "popularity reaches 0.0800 NDCG@20"
    assert title(popularity=0.0, als=0.12) == "als reaches 0.1200 NDCG@20"
    assert title(a=0.12, b=0.12001) == "b reaches 0.1200 NDCG@20, level with a"
    assert title() == "No recipe was evaluated"


def test_lifts_title_names_a_proved_recipe_else_counts_all_verdicts() -> None:
    clear = LiftRow("als", 0.4, 0.3, 0.5)
    thin = LiftRow("als", 0.4, 0.3, 0.5, underpowered="too few users")
    assert titles.lifts_title([clear, thin], "pop", 0.02) == (
        "No recipe replaces pop; on this holdout: 2 better"
    )
    proved = [LiftRow("a", 0.1, 0.05, 0.15, True), LiftRow("b", 0.2, 0.1, 0.3, True), clear]
    assert titles.lifts_title(proved, "pop", 0.02) == "b is better than pop (+20.0 %)"


def test_churn_names_the_largest_cause() -> None:
    row = (DAY, churn(0.93, 9, {"stock": 0.01, "data": 0.06}))
    later = DAY + timedelta(days=7)
    text = (
        "93.0 % of the entries stayed for users without new events; main cause of the changes: data"
    )
    assert titles.churn_title([row, (DAY, churn(None, 0))], DAY) == text
    # Before a night's lists are made, or without a comparison, the title is of an earlier night.
    before = f"1 Dec: {text}"
    for rows in ([row], [row, (later, churn(None, 0))]):
        assert titles.churn_title(rows, later) == before
    none = "No list could be compared with the one before"
    assert titles.churn_title([(DAY, churn(None, 0))], DAY) == none


def test_reasons_say_how_many_rows() -> None:
    rows = {"user_id_missing": 3, "kind_unknown": 40}
    assert (
        titles.reasons_title(rows, 42)
        == "Rows in quarantine: 42; most frequent reason: kind unknown"
    )
    assert (
        titles.reasons_title({"user_id_missing": 3}, 1)
        == "Rows in quarantine: 1; most frequent reason: user id missing"
    )
