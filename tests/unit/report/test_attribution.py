"""Attribution and drift as tables for a terminal."""

import re
from dataclasses import replace

from pipeline.monitoring.rates import AttributionRow, Claims, ShownEffect
from pipeline.monitoring.verdicts import DriftStatus, Signal
from pipeline.report.attribution import attribution_table, attribution_tables
from pipeline.report.drift import drift_table
from tests.pages import ATTRIBUTION, DRIFT

ATTRIBUTION = replace(
    ATTRIBUTION,
    rows=(
        AttributionRow(
            "all",
            "all",
            1_200,
            24_000,
            response_rate=0.012,
            response_rate_lo=0.01,
            ctr=0.0042,
            ctr_lo=0.003,
            ctr_hi=0.0054,
            visitor_hit_rate=0,
            visitor_hit_rate_lo=0,
            visitor_hit_rate_hi=0.003,
            revenue=10.0,
            revenue_per_exposure=0.25,
            revenue_per_exposure_lo=0.1,
            revenue_per_exposure_hi=1.4,
        ),
        AttributionRow("segment", "few", 3),
    ),
)


def test_responses_are_a_line_a_group_and_notes_below():
    lines = attribution_table(ATTRIBUTION).splitlines()
    assert " ".join(lines[0].split()) == (
        "by group users exposures response rate ctr visitor hit rate revenue revenue per exposure "
        "return rate"
    )
    assert " ".join(lines[2].split()) == (
        "all all 1,200 24,000 1.2 % 0.42 % (0.30 % to 0.54 %) 0.00 % (0.00 % to 0.30 %) 10.00 0.25 "
        "(0.10 to 1.40) –"
    )
    assert lines[3].split() == ["segment", "few", "3", *["–"] * 7]
    assert lines[4:] == [
        "",
        "1,900 of 3,100 events of 950 users from 2017-11-24T09:00:00Z to 2017-12-01T09:00:00Z "
        "responded to a list that was live within 7 days",
        "Showing an item adds 1.20 (0.41 to 1.99) percentage points to its response rate: 4.1 % in "
        "the last 2 shown positions, 2.9 % in the first 2 spare ones, 900 users",
        "Showing an item adds 0.05 (−0.34 to 0.44) percentage points to its visitor hit rate: "
        "1.1 % in the last 2 shown positions, 1.1 % in the first 2 spare ones, 900 users",
        "Lists that events claim: 1 equal the joined list, 2 are other lists, 3 without a joined "
        "list",
    ]
    assert attribution_table(replace(ATTRIBUTION, rows=())).startswith("No list was live")


def test_notes_name_only_events_that_exist():
    notes = attribution_table(
        replace(ATTRIBUTION, late=4, unshown=5, claims=Claims(0, 0, 0))
    ).splitlines()
    assert notes[6:8] == [
        "4 of these responded to a list that was replaced on an earlier day; they count in no rate",
        "5 events are of users without a live list",
    ]


def test_without_spare_entries_the_effect_of_showing_is_named_once():
    notes = attribution_table(replace(ATTRIBUTION, shown_effects=())).splitlines()
    assert len([note for note in notes if note.startswith("No list has spare entries")]) == 1
    few = (ShownEffect("response_rate", 9, 36),)
    notes = attribution_table(replace(ATTRIBUTION, shown_effects=few)).splitlines()
    assert any("50 effective users; 9 users" in note for note in notes)


def test_without_rates_only_counts_are_shown():
    row = AttributionRow("all", "all", 60, 1_200)
    cells = attribution_table(replace(ATTRIBUTION, rows=(row,))).splitlines()[2].split()
    assert cells == ["all", "all", "60", "1,200", *["–"] * 6]


def test_on_a_page_intervals_stand_behind_their_figures():
    first, few = attribution_tables(ATTRIBUTION)[0].rows
    assert first == (
        "all",
        "all",
        "1,200",
        "24,000",
        "1.2 %",
        "0.42 % (0.30 % to 0.54 %)",
        "0.00 % (0.00 % to 0.30 %)",
        "10.00",
        "0.25 (0.10 to 1.40)",
        "–",
    )
    assert few == ("segment", "few", "3", *["–"] * 7)


def test_drifting_signals_are_first_and_stable_ones_last():
    signals = (
        Signal("data.volume", -0.4, 4.0, DriftStatus.STABLE, "fine"),
        Signal("quality.ndcg", None, 4.0, DriftStatus.TOO_SHORT, "2 nights"),
        Signal("taste.items", 7.0, 4.0, DriftStatus.DRIFT, "far"),
        Signal("taste.categories", 9.0, 4.0, DriftStatus.DRIFT, "further"),
    )
    drift = replace(DRIFT, signals=signals)
    lines = [re.split(r" {2,}", line) for line in drift_table(drift).splitlines()[2:]]
    assert [line[1] for line in lines] == [
        "taste: categories",
        "taste: items",
        "quality: NDCG",
        "data: volume",
    ]
    assert lines[2][2] == "–" and lines[3][2] == "−0.4"
