from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from pipeline.report.backtest import summary, text, title
from pipeline.report.backtest_figure import figure
from pipeline.workspace.experiment_artifacts import DayFile

START = datetime(2024, 1, 1, tzinfo=UTC)
PLANT = START + timedelta(days=4.5)


def scored_days(ndcg, nights, seconds=2.0):
    """Ten days: the first is a night, then those of `nights`."""
    return tuple(
        DayFile(
            as_of=START + timedelta(days=n),
            retrained=n == 0 or n in nights,
            reason="because",
            decision="refresh" if n in nights else None,
            cause="drift" if n in nights else None,
            promoted=n == 0 or n in nights,
            user_days=0 if n == 0 else 10 + n,
            ndcg=None if n == 0 else ndcg + 0.001 * n,
            base_ndcg=None if n == 0 else ndcg,
            training_seconds=seconds if n == 0 or n in nights else 0.0,
            foldin_seconds=0.0 if n in nights else 0.5,
        )
        for n in range(10)
    )


@pytest.fixture
def days():
    return {
        "nightly": scored_days(0.3, set(range(10))),
        "adaptive": scored_days(0.297, {5, 8}),
        "never": scored_days(0.2, set()),
    }


def test_a_row_holds_the_result_of_a_policy(days):
    nightly, adaptive, never = summary(days, PLANT)
    assert (nightly.nights, adaptive.nights, never.nights) == (9, 2, 0)
    assert nightly.training_seconds == 18.0
    assert adaptive.training_share == pytest.approx(4 / 18)
    mean = sum((10 + n) * (0.297 + 0.001 * n) for n in range(1, 10)) / sum(range(11, 20))
    assert adaptive.ndcg == pytest.approx(mean)
    assert adaptive.of_nightly == pytest.approx(mean / (mean + 0.003))
    assert adaptive.ndcg_per_training_minute == pytest.approx(60 * mean / 4)
    assert adaptive.base_ndcg == pytest.approx(0.297)
    assert adaptive.foldin_seconds == 3.5
    assert never.ndcg_per_training_minute is None


def test_a_shift_is_answered_by_the_first_night_after_it(days):
    nightly, adaptive, never = summary(days, PLANT)
    assert nightly.reaction_days == 0.5
    assert adaptive.reaction_days == 0.5
    assert never.reaction_days is None
    late = {"adaptive": scored_days(0.3, {3, 8})}
    assert summary(late, PLANT)[0].reaction_days == 3.5
    assert [row.reaction_cause for row in (nightly, never)] == ["drift", None]
    lines = text(days, PLANT).splitlines()
    (row,) = [line for line in lines if line.startswith("never")]
    assert row.endswith("never")


def test_a_night_that_put_nothing_live_is_run_and_answers_nothing(days):
    first, *others = days["adaptive"]
    kept = [
        first,
        *(day.model_copy(update={"decision": "keep", "promoted": False}) for day in others),
    ]
    (row,) = summary({"adaptive": kept}, PLANT)
    assert (row.nights, row.promoted, row.training_seconds) == (2, 0, 4.0)
    assert (row.reaction_days, row.reaction_cause) == (None, None)


def test_the_time_until_something_is_live_counts_against_no_policy(days):
    vain = days["never"][0].model_copy(update={"decision": "block", "promoted": False})
    late = days["never"][1].model_copy(
        update={"retrained": True, "promoted": True, "training_seconds": 9.0}
    )
    (row,) = summary({"never": (vain, late, *days["never"][2:])}, START)
    assert (row.nights, row.promoted, row.training_seconds) == (0, 0, 0.0)
    assert row.reaction_days is None


def test_every_day_is_printed_with_a_star_for_a_night(days):
    table, _, nights = text(days, None).rpartition("\n\n")
    lines = table.splitlines()
    assert lines[-1] == "* a nightly run followed   – no user-day was scored"
    assert "adaptive, 2024-01-06 00:00: because" in nights
    assert lines[-11].split() == ["2024-01-01", "00:00", "–*", "–*", "–*"]
    assert lines[-6].split() == ["2024-01-06", "00:00", "0.3050*", "0.3020*", "0.2050"]


def test_nights_that_came_to_nothing_are_printed_with_the_first_reason(days):
    blocked = days["nightly"][4].model_copy(
        update={"promoted": False, "decision": "block", "sentence": "too few"}
    )
    again = days["nightly"][6].model_copy(
        update={"promoted": False, "decision": "block", "sentence": "too many"}
    )
    nightly = [*days["nightly"][:4], blocked, days["nightly"][5], again, *days["nightly"][7:]]
    printed = text(days | {"nightly": tuple(nightly)}, None)
    assert "nightly: 2 nightly runs ended as block, first on 2024-01-05 00:00: too few" in printed


def test_the_title_states_the_value_of_the_policy(days):
    assert title(days) == (
        "adaptive reaches 99.0 % of the NDCG of nightly retraining, "
        "with 22.2 % of its training time"
    )
    assert title({"never": days["never"]}) == "never reaches an NDCG of 0.2054"


def test_days_without_users_count_for_nothing(days):
    empty = {
        "adaptive": tuple(
            DayFile(as_of=START + timedelta(days=n), retrained=n == 0, reason="because")
            for n in range(3)
        )
    }
    (row,) = summary(empty, None)
    assert row.ndcg is None
    assert "–" in text(empty, None)
    ElementTree.fromstring(figure(empty, None))


def test_a_figure_is_the_same_again_and_names_every_policy(days):
    drawn = figure(days, PLANT)
    assert drawn == figure(days, PLANT)
    words = "".join(ElementTree.fromstring(drawn).itertext())
    cost = "4.0 s in 2 nightly runs, 4.54 per minute"
    for name in (*days, "planted shift", "1 Jan", "10 Jan", cost, "0.0 s in 0 nightly runs"):
        assert name in words


def test_a_day_comes_back_as_it_was_written(days):
    for day in days["adaptive"]:
        assert DayFile.parse(day.to_bytes(), "") == day
