"""Tests of the page of all nights."""

import re
from dataclasses import replace
from datetime import timedelta

from pipeline.report.headline import Headline
from pipeline.report.night import PastRun
from pipeline.report.nights import NightRow, UserList, nights_page
from tests import pages
from tests.pages import AS_OF
from tests.unit.report.test_page import Page

EVIL = "<script>alert(1)</script>&\"'"
PAST = PastRun(AS_OF, "refresh", EVIL, 7, None, None, None, 0.227, 0.119, 0.335)
BEFORE = replace(PAST, lift=0.02, lift_lo=-0.01, lift_hi=0.05)
NIGHTS = (
    NightRow(AS_OF - timedelta(days=7), Headline("act", f"Nothing went live: {EVIL}.", "Look.")),
    NightRow(
        AS_OF,
        Headline("good", "New lists are live."),
        lifts={"over_baseline": PAST, "over_before": BEFORE},
        live=pages.live("2", "all", 950, 3_100, 0.21, 0.026, 0.021, 0.031),
        drift="no event",
        seconds=61.4,
        size=405_000_000,
        address="../runs/r/page.html",
    ),
)
LISTS = (UserList("User A", "most events: 12", (EVIL, "milk")),)


def test_the_newest_night_comes_first_with_its_figures() -> None:
    page = Page(nights_page(NIGHTS, LISTS, "ndcg_at_20", 1_800_000_000, 0.02))
    new, old = page.rows[1:]
    lifts = ["+2.0 % (−1.0 to +5.0)", "+22.7 % (+11.9 to +33.5)"]
    assert new == ["✓ Good", "New lists are live.", *lifts, "21.0 %", "no event",
                   "61 s", "405 MB"]  # fmt: skip
    assert old[:3] == ["2017-11-24 09:00", "✗ Act", f"Nothing went live: {EVIL}."]
    assert "2017-12-01 09:00" in page.texts  # a link
    assert old[3:] == ["–"] * 6
    assert page.loads == ["../runs/r/page.html"]
    assert len(page.pictures) == 3


def test_the_first_figure_is_the_lift_over_version_1_where_it_exists() -> None:
    first = replace(PAST, kind="first", lift=0.0, lift_lo=None, lift_hi=None)
    alone = (replace(NIGHTS[0], over_first=first), NIGHTS[1])
    chained = (alone[0], replace(NIGHTS[1], over_first=PAST))
    for nights, zero in ((NIGHTS, "that version"), (alone, "that version"), (chained, "version 1")):
        html = nights_page(nights, (), "ndcg_at_20", 0, 0.02)
        texts = " ".join(Page(html).texts)
        assert re.findall("0 %: as good as (that version|version 1)", texts) == [zero]
        assert html.count("<svg") == 3


def test_on_a_phone_no_cell_is_wider_than_the_page() -> None:
    html = nights_page(NIGHTS, (), "ndcg_at_20", 0, 0.02)
    wide, phone = html.partition("@media(max-width:600px)")[::2]
    assert "td.w{white-space:nowrap}" in wide
    cells = next(rule for rule in phone.split("}") if "td.w{" in rule)
    assert "white-space:normal" in cells


def test_titles_and_texts_are_escaped() -> None:
    html = nights_page(NIGHTS, LISTS, "ndcg_at_20", 0, 0.02)
    page = Page(html)
    assert "<script" not in html and EVIL in page.texts and "milk" in page.texts
    assert "most events: 12" in page.texts


def test_a_workspace_without_a_night_names_the_next_step() -> None:
    page = Page(nights_page((), (), "ndcg_at_20", 12, 0.02))
    assert "nightjar nightly" in page.texts
    assert page.tags["table"] == page.tags["svg"] == 0


def test_nights_that_are_left_out_are_counted() -> None:
    page = Page(nights_page(NIGHTS, (), "ndcg_at_20", 0, 0.02, earlier=1_200))
    assert "the last 2 of 1,202 nights" in " ".join(page.texts)
    assert "· 2 nights" in " ".join(Page(nights_page(NIGHTS, (), "ndcg_at_20", 0, 0.02)).texts)
