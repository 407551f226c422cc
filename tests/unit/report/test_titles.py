from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.report import titles
from pipeline.report.night import ReasonRow, RecipeRow, SliceRow
from pipeline.report.past import AccountRow, ChurnRow, PastRow

DAY = datetime(2017, 12, 1, 9, tzinfo=UTC)
ALS = AccountRow("als", 12.4, 500.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.0001, "under 0.1 %"),
        (0.0157, "1.6 %"),
        (0.93, "93 %"),
        (0.9951, "99.5 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_never_looks_like_none_or_all(value: float, text: str) -> None:
    assert titles.share(value) == text


def test_accounts_name_the_nearest() -> None:
    other = AccountRow("other", 3.0, 500.0)
    assert titles.accounts_title([ALS]) == "als has 12 of 500 points"
    near = "als has 12 of 500 points: the nearest to a switch"
    assert titles.accounts_title([other, ALS]) == near
    there = replace(ALS, points=512.0)
    told = "als has 512 of 500 points: enough for a switch"
    assert titles.accounts_title([other, there]) == told
    none = "No candidate has gathered evidence that it is better"
    assert titles.accounts_title([replace(ALS, points=1.0)]) == none


def test_the_metric_is_compared_with_an_equally_long_block_only() -> None:
    first = PastRow(DAY, "first", "als", 28, 0.04)
    second = PastRow(DAY + timedelta(days=7), "refresh", "als", 7, 0.02)
    third = replace(second, as_of=DAY + timedelta(days=14), mean=0.022)
    assert titles.metric_title([first, second], "ndcg_at_20") == "als reaches 0.0200 NDCG@20"
    told = titles.metric_title([first, second, third], "ndcg_at_20")
    assert told == "als reaches 0.0220 NDCG@20, +10 % on 8 Dec"
    gone = replace(third, mean=None)
    told = titles.metric_title([first, gone], "ndcg_at_20")
    assert told == "NDCG@20 of the champion, night by night"


def test_the_lift_counts_the_nights_ahead() -> None:
    ahead = PastRow(DAY, "refresh", "als", 7, lift=0.171)
    behind = replace(ahead, lift=-0.05)
    level = replace(ahead, lift=0.0)
    assert titles.lift_title([ahead]) == "als is 17 % ahead of the best baseline"
    told = "als is 17 % ahead of the best baseline; ahead on all 2 nights"
    assert titles.lift_title([ahead, ahead]) == told
    told = "als is 5.0 % behind the best baseline; ahead on 1 of 2 nights"
    assert titles.lift_title([ahead, behind]) == told
    assert titles.lift_title([level]) == "als is the best baseline, or level with it"


def test_a_forest_counts_what_is_clear() -> None:
    better = SliceRow("cold", 200, 0.2, 0.1, 1.0, 0.5, 1.5)
    unclear = SliceRow("warm", 200, 0.1, 0.1, 0.0, -0.1, 0.1)
    worse = SliceRow("hot", 200, 0.1, 0.2, -0.5, -0.7, -0.3)
    thin = replace(worse, underpowered="too few users")

    def told(*rows: SliceRow) -> str:
        return titles.forest_title(rows, "als", "pop")

    assert told(better, thin) == "als is better than pop in every group"
    assert told(better, unclear) == "als is better than pop in 1 of 2 groups, worse in none"
    assert told(better, worse) == "als is worse than pop in hot, better in 1"
    assert told(worse, worse, unclear) == "als is worse than pop in 2 of 3 groups"
    assert told(worse, worse, thin) == "als is worse than pop in every group"
    assert told(thin) == "No group is large enough to tell als from pop"


def test_reach_names_the_winner_and_the_widest() -> None:
    rows = [RecipeRow("als", "candidate", 0.1, coverage=0.0157), RecipeRow("mad", "", 0.1)]
    wide = RecipeRow("wide", "candidate", 0.1, coverage=0.062)
    assert titles.reach_title(rows, "als") == "als recommends 1.6 % of the catalogue"
    told = "als recommends 1.6 % of the catalogue; wide the most, 6.2 %"
    assert titles.reach_title([*rows, wide], "als") == told
    told = "wide recommends 6.2 % of the catalogue, as much as any"
    assert titles.reach_title([*rows, wide], "mad") == told


def test_churn_names_the_largest_cause() -> None:
    row = ChurnRow(DAY, 0.93, 9, (("stock", 0.01), ("data", 0.06)))
    told = "93 % of what idle people see stayed as it was; what changed did so most for data"
    assert titles.churn_title([row, ChurnRow(DAY, None, 0)], DAY) == told
    # Before a night's lists are made, or where nobody can be compared, the title is not tonight's.
    before = f"When lists changed on 1 Dec, {told}"
    for rows in ([row], [row, ChurnRow(DAY + timedelta(days=7), None, 0)]):
        assert titles.churn_title(rows, DAY + timedelta(days=7)) == before
    none = "Nobody's lists could be compared with the ones before"
    assert titles.churn_title([ChurnRow(DAY, None, 0)], DAY) == none


def test_reasons_say_how_many_rows() -> None:
    rows = [ReasonRow("user_id_missing", 3), ReasonRow("kind_unknown", 40)]
    assert titles.reasons_title(rows, 42) == "42 rows are in quarantine, most for kind unknown"
    assert titles.reasons_title(rows[:1], 1) == "1 row is in quarantine: user id missing"
