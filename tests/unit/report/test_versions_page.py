from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from pipeline.report.pair import (
    Entry,
    Estimate,
    MetricRow,
    Pair,
    PairedComparison,
    PairedRow,
    Sample,
    VersionRow,
    VersionsPage,
)
from pipeline.report.versions import (
    comparison_figure,
    comparison_sentence,
    comparison_title,
    versions_page,
)

METRIC = "ndcg_at_20"
ALL = PairedRow(METRIC, 1211, 0.0229, 0.0309, 0.35, 0.22, 0.48, None)
COMPARISON = PairedComparison(
    "holdout",
    "On the days that judged version 3",
    "The recipe is the same.",
    (
        ALL,
        PairedRow("recall_at_20", 1211, 0.026, 0.031, 0.19, 0.01, 0.37, None),
        PairedRow(f"slice.cold.{METRIC}", 62, 0.02, 0.03, 0.41, -0.06, 0.88, "too few users"),
        PairedRow(f"slice.new_items.{METRIC}", 231, 0.0, 0.0043, None, None, None, "it is at 0"),
    ),
)


def row(number: int) -> VersionRow:
    return VersionRow(
        number, "blend", datetime(2017, 12, number, tzinfo=UTC), "first",
        f"first: <b>{number}</b>", "cpu", number == 1, "never", "2017-11-03 to 2017-12-01",
        f"run-{number}", "abc",
    )  # fmt: skip


PAGE = VersionsPage(
    left=row(1),
    right=row(3),
    metric=METRIC,
    margin=0.02,
    sentence="Found <this>.",
    weeks="Of different days.",
    paired_comparisons=(COMPARISON,),
    metrics=(
        MetricRow(METRIC, Estimate(0.0441, 0.0411, 0.0473), Estimate(0.0301, 0.0266, 0.0339)),
        MetricRow("users", Estimate(1990.0), None),
        MetricRow(f"slice.cold.{METRIC}", Estimate(0.03, 0.02, 0.04, 300), None),
    ),
    settings=(Pair("alpha", "3", "<i>4</i>"), Pair("factors", "64", "64")),
    night_settings=(),
    data=(Pair("events: rows", "10", "12"),),
    cost=(Pair("trained for people, seconds", "1.0", "1.0"),),
    lists="Half is alike.",
    samples=(
        Sample(
            "Person A",
            "least alike",
            (Entry("Milk & Co", True), Entry("Bread", False)),
            (Entry("Milk & Co", True),),
        ),
    ),
)


class Rows(HTMLParser):
    """Gathers the texts of cells by row, and checks that the page is well formed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        data = data.replace("\xa0", " ")
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_the_page_is_well_formed_escaped_and_loads_nothing() -> None:
    text = versions_page(PAGE)
    Rows(text)
    assert "<b>1" not in text and "<i>4" not in text and "Found &lt;this&gt;." in text
    assert not re.search(r"(?:src|href)=[\"']?http", text)
    assert text.index("Found") < text.index("<h2>Versions") < text.index("On the days")
    assert versions_page(PAGE) == text
    evil = "<script>1</script><svg onload=alert(1)></title></style>-->"
    sample = Sample(evil, evil, (Entry(evil, True),), (Entry(evil, False),))
    text = versions_page(
        replace(PAGE, sentence=evil, lists=evil, samples=(sample,), settings=(Pair(*[evil] * 3),))
    )
    Rows(text)
    assert "<script" not in text and "<svg onload" not in text
    assert text.count("</title>") == text.count("</style>") == 1


def test_both_sides_stand_beside_each_other() -> None:
    rows = Rows(versions_page(PAGE)).rows
    assert ["NDCG@20", "0.0441 (0.0411 to 0.0473)", "0.0301 (0.0266 to 0.0339)"] in rows
    assert ["users", "1,990", "–"] in rows
    assert ["cold: NDCG@20", "0.0300 (0.0200 to 0.0400)", "300", "–", "–"] in rows
    assert ["NDCG@20", "1,211", "0.0229", "0.0309", "+35.0 %", "+22.0 % to +48.0 %"] in rows
    assert ["1", "Milk & Co ●", "Milk & Co ●"] in rows and ["2", "Bread"] in rows


def test_differences_stand_first_and_everything_below() -> None:
    text = versions_page(PAGE)
    rows = Rows(text).rows
    assert rows.count(["alpha ≠", "3", "<i>4</i>"]) == 2
    assert rows.count(["factors", "64", "64"]) == 1
    assert "Settings that differ." in text and "All 2 settings" in text
    same = replace(PAGE, settings=PAGE.settings[1:])
    assert "Both have the same recipe." in versions_page(same)


def test_a_lift_is_stated_with_its_figures() -> None:
    assert comparison_sentence(PAGE, COMPARISON) == (
        "On the days that judged version 3, NDCG@20 of version 3 is 0.0309, of version 1 0.0229, "
        "on the same 1,211 users (+35.0 %, +22.0 to +48.0: better)"
    )


@pytest.mark.parametrize(
    ("changed", "title"),
    [
        ({}, "version 3: better than version 1 (+35.0 %)"),
        ({"lift": -0.2, "lo": -0.3, "hi": -0.1}, "version 3: worse than version 1 (−20.0 %)"),
        ({"lo": -0.01}, "version 3: about as good as version 1 (+35.0 %)"),
        ({"lo": -0.03}, "version 3: unclear whether better than version 1 (+35.0 %)"),
        ({"underpowered": "too few users"}, "version 3: better than version 1 (+35.0 %)"),
        ({"lift": None, "lo": None, "hi": None}, "version 3 cannot be compared with version 1"),
    ],
)
def test_the_title_claims_no_more_than_the_interval(
    changed: dict[str, float | None], title: str
) -> None:
    comparison = replace(COMPARISON, rows=(replace(ALL, **changed),))
    assert comparison_title(PAGE, comparison) == title


def test_a_comparison_without_rows_has_a_reason_and_no_figure() -> None:
    none = PairedComparison("holdout", "On the days that judged version 3", "It would leak.")
    assert comparison_sentence(PAGE, none) is None and comparison_figure(PAGE, none) is None
    text = versions_page(replace(PAGE, paired_comparisons=(none,)))
    assert "It would leak." in text and "<svg" not in text


def test_the_figure_shows_all_users_and_groups_of_the_primary_metric() -> None:
    drawn = comparison_figure(PAGE, COMPARISON)
    assert drawn is not None and drawn == comparison_figure(PAGE, COMPARISON)
    text = drawn.decode()
    assert "all users (1,211)" in text and "cold (62)" in text
    assert "recall" not in text and "new items" not in text
    assert 'aria-label="version 3: better than version 1 (+35.0 %)"' in text
    assert "too little evidence" in text


def test_without_a_person_the_lists_say_so() -> None:
    text = versions_page(replace(PAGE, samples=(), lists="No user has a list of both versions."))
    assert "Lists of the same users" in text and "No user has a list of both versions." in text
