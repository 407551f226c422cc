"""Attribution and drift as tables for a terminal."""

import re
from dataclasses import replace

from pipeline.monitoring.rates import AttributionRow, Claims
from pipeline.monitoring.verdicts import DriftStatus, Signal
from pipeline.report.attribution import attribution_section, attribution_table
from pipeline.report.drift import drift_table
from tests.pages import ATTRIBUTION, DRIFT

FOUND = replace(
    ATTRIBUTION,
    rows=(
        AttributionRow(
            "all",
            "all",
            1_200,
            24_000,
            answer_rate=0.012,
            ctr=0.0042,
            ctr_lo=0.003,
            ctr_hi=0.0054,
            conversion=0,
            conversion_lo=0,
            conversion_hi=0.003,
            revenue=10.0,
            revenue_per_exposure=0.25,
            revenue_per_exposure_lo=0.1,
            revenue_per_exposure_hi=1.4,
        ),
        AttributionRow("segment", "few", 3),
    ),
)


def test_answers_are_a_line_a_group_and_notes_below():
    lines = attribution_table(FOUND).splitlines()
    assert " ".join(lines[0].split()) == (
        "by group people exposures answered ctr 95 % interval conversion 95 % interval revenue "
        "an exposure 95 % interval returned 95 % interval"
    )
    assert " ".join(lines[2].split()) == (
        "all all 1,200 24,000 1.2 % 0.42 % 0.3 % to 0.54 % 0 % 0 % to 0.3 % 10.00 0.25 "
        "0.10 to 1.40 – –"
    )
    assert lines[3].split() == ["segment", "few", "3", *["–"] * 11]
    assert lines[4:] == [
        "",
        "1,900 of 3,100 events of 950 people from 2017-11-24T09:00:00Z to 2017-12-01T09:00:00Z "
        "answer a list shown within 7 days",
        "of the lists that events claim to answer, 1 are those we joined, 2 are others, 3 were not "
        "shown",
    ]
    assert attribution_table(replace(FOUND, rows=())).startswith("nothing was shown to anybody")


def test_notes_name_only_what_there_was():
    notes = attribution_table(
        replace(FOUND, late=4, unshown=5, claims=Claims(0, 0, 0))
    ).splitlines()
    assert notes[6:] == [
        "4 of these answer a list shown on an earlier day and replaced since; they are in no rate",
        "5 events are of people to whom nothing was shown then",
    ]


def test_on_a_page_intervals_stand_behind_their_figures():
    told = attribution_section(FOUND).replace("\xa0", " ")
    first, few = (re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in told.split("<tr")[2:])
    assert first == [
        "all",
        "all",
        "1,200",
        "24,000",
        "1.2 %",
        "0.42 % (0.3 % to 0.54 %)",
        "0 % (0 % to 0.3 %)",
        "10.00",
        "0.25 (0.10 to 1.40)",
        "–",
    ]
    assert few == ["segment", "few", "3", *["–"] * 7]
    assert len(re.findall(r"<th[ >]", told)) == len(first)


def test_what_drifts_stands_first_and_what_is_calm_last():
    signals = (
        Signal("data.volume", -0.4, 4.0, DriftStatus.STABLE, "fine"),
        Signal("quality.ndcg", None, 4.0, DriftStatus.TOO_SHORT, "2 nights"),
        Signal("taste.items", 7.0, 4.0, DriftStatus.DRIFT, "far"),
        Signal("taste.categories", 9.0, 4.0, DriftStatus.DRIFT, "further"),
    )
    found = replace(DRIFT, signals=signals)
    lines = [line.split() for line in drift_table(found).splitlines()[2:]]
    assert [line[1] for line in lines] == [
        "taste.categories",
        "taste.items",
        "quality.ndcg",
        "data.volume",
    ]
    assert lines[2][2] == "–" and lines[3][2] == "−0.4"
