"""Answers and drift as tables for a terminal."""

import re

from pipeline.report.attribution import answers_section, answers_table
from pipeline.report.drift import drift_table
from pipeline.report.watched import AnswerRow, AnswersTold, DriftRow

ROWS = (
    AnswerRow(
        "all",
        "all",
        1_200,
        24_000,
        0.012,
        0.0042,
        0.003,
        0.0054,
        0,
        0,
        0.003,
        10.0,
        0.25,
        0.1,
        1.4,
    ),
    AnswerRow("segment", "few", 3),
)


def test_answers_are_a_line_a_group_and_notes_below():
    lines = answers_table(AnswersTold(ROWS, ("a note", "another"))).splitlines()
    assert " ".join(lines[0].split()) == (
        "by group people exposures answered ctr 95 % interval conversion 95 % interval revenue "
        "an exposure 95 % interval returned 95 % interval"
    )
    assert " ".join(lines[2].split()) == (
        "all all 1,200 24,000 1.2 % 0.42 % 0.3 % to 0.54 % 0 % 0 % to 0.3 % 10.00 0.25 "
        "0.10 to 1.40 – –"
    )
    assert lines[3].split() == ["segment", "few", "3", *["–"] * 11]
    assert lines[-2:] == ["a note", "another"]
    assert answers_table(AnswersTold(())).startswith("nothing was shown to anybody")


def test_on_a_page_intervals_stand_behind_their_figures():
    told = answers_section(AnswersTold(ROWS)).replace("\xa0", " ")
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
    rows = (
        DriftRow("data.volume", "calm", -0.4, 4.0, "fine"),
        DriftRow("quality.ndcg", "too_short", None, 4.0, "2 nights"),
        DriftRow("taste.items", "drift", 7.0, 4.0, "far"),
        DriftRow("taste.categories", "drift", 9.0, 4.0, "further"),
    )
    lines = [line.split() for line in drift_table(rows).splitlines()[2:]]
    assert [line[1] for line in lines] == [
        "taste.categories",
        "taste.items",
        "quality.ndcg",
        "data.volume",
    ]
    assert lines[2][2] == "–" and lines[3][2] == "−0.4"
