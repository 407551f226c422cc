from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from typing import Any

from pipeline.report.night import (
    CheckRow,
    ColumnRow,
    CostRow,
    LiftRow,
    NightPage,
    ReasonRow,
    RecipeRow,
    RuleRow,
    SliceRow,
    TableRow,
    from_json,
    to_json,
)
from pipeline.report.page import night_figures, night_page
from pipeline.report.past import AccountRow, ChurnRow, LiveRow, PastRow, StandRow
from pipeline.report.watched import AnswerRow, AnswersTold, DriftRow

AS_OF = datetime(2017, 12, 1, 9, tzinfo=UTC)
BEFORE = AS_OF - timedelta(days=7)
EARLIER = BEFORE - timedelta(days=7)
NIGHT = NightPage(
    run_id="20171201T090000Z-1a2b3c4d",
    as_of=AS_OF,
    kind="switch",
    sentence="switch: als replaces popularity: +40 %",
    metric="ndcg_at_20",
    recipes=(
        RecipeRow("popularity", "champion", 0.0866, 0.081, 0.0922, 0.012, None, 0.9, 4.5),
        RecipeRow("als", "candidate", 0.1212, 0.115, 0.1274, 0.31, None, 0.6, 9.25, 0.8),
        RecipeRow("broken", "candidate", failure="no GPU is there"),
    ),
    winner="als",
    challenger="als",
    against="popularity",
    needed_lift=0.01,
    chosen=(("als", "alpha 3 <b>"),),
    costs=(
        CostRow("popularity", 0.01, 0.01, 0.4, 7_000, 5_000_000.0, "cpu"),
        CostRow("als", 12.345, 23.4, 1_135.04, 2_000_000, 52_123.4, "cuda", 0.4),
        CostRow("mad", 1.0, 1.0, 1.0, 9, 9.0, "cpu", -0.1),
    ),
    lifts=(LiftRow("als", 0.4, 0.35, 0.45, True),),
    slices=(
        SliceRow("cold", 301, 0.09, 0.085, 0.059, -0.02, 0.14),
        SliceRow("new_items", 12, 0.0, 0.0, None, None, None, "too few users"),
    ),
    rules=(
        RuleRow("switch.lift", "als", 0.4, 0.01, "passed", "als is better"),
        RuleRow("switch.slice.lapsed", "als", -0.06, None, "underpowered", "32 people"),
        RuleRow("switch.lift", "other", -0.4, 0.01, "failed", "other loses"),
        RuleRow("check.schema", "", None, None, "passed", "as last night, too"),
        RuleRow("check.volume", "", 0.4, 0.5, "failed", "too few events"),
    ),
    checks=(
        CheckRow("schema", "passed", None, None, "as last night"),
        CheckRow("volume", "no_history", None, None, "5 days; 7 are needed"),
    ),
    tables=(TableRow("events", 14, 1_352_210),),
    facts=(("people judged", "1,212"),),
    accounts=(
        AccountRow(
            "als", 512.0, 500.0, 0.04, 0.02, 0.06, 3, 0.05, 0, None,
            (StandRow(BEFORE, 2.0), StandRow(AS_OF, 6.24)),
        ),
        AccountRow(
            "mad", 0.01, 500.0, -0.4, -0.5, -0.3, 1, 0.05, 31, "waiting, day 3 of 7",
            (StandRow(AS_OF, -4.6),),
        ),
        AccountRow("new", 1.0, 500.0),
    ),
    past=(
        PastRow(EARLIER, "first", "popularity", 28, 0.3, 0.2, 0.4, 0.0, 0.0, 0.0),
        PastRow(BEFORE, "refresh", "popularity", 7),
        PastRow(AS_OF, "switch", "als", 7, 0.1212, 0.115, 0.1274, 0.4, 0.35, 0.45),
    ),
    churn=(
        ChurnRow(BEFORE, None, 0, note="nobody was there before"),
        ChurnRow(AS_OF, 0.93, 655, (("stock", 0.01), ("data", 0.06)), 0.019),
    ),
    live=(
        LiveRow(BEFORE, "1", "all", 900, 3_000, 0.2, 0.025, 0.02, 0.03, 0.024),
        LiveRow(AS_OF, "2", "all", 950, 3_100, 0.21, 0.026, 0.021, 0.031, 0.025),
        LiveRow(AS_OF, "2", "cold", 3, 4),
    ),
    answers=AnswersTold(
        (
            AnswerRow("all", "all", 950, 61_000, 0.031, 0.02, 0.018, 0.022, 0.011, 0.01, 0.012,
                      1234.5, 0.02, 0.015, 0.03, 0.04, 0.0, 0.09),
            AnswerRow("segment", "new", 4),
            AnswerRow("position", "1", 950, 3_000, 0.05),
        ),
        ("1,900 of 3,100 events answer a list", "of the lists that events claim 3 were not shown"),
    ),
    drift=(
        DriftRow("data.volume", "calm", 0.4, 4.0, "as many as ever"),
        DriftRow("taste.items", "drift", 9.25, 4.0, "people want other things"),
        DriftRow("quality.ndcg", "too_short", None, 4.0, "2 nights"),
    ),
    policy="retrain wanted: people want other things",
    quarantined=451,
    reasons=(ReasonRow("user_id_missing", 39), ReasonRow("kind_unknown", 412)),
    cleaned=(ColumnRow("items", "price", 92_331, 512, 500, 83, 1),),
    origin=(("code", "abc1234"),),
)  # fmt: skip
BARE = NightPage("run", AS_OF, "keep", "keep: nothing is there", "ndcg_at_20", ())
DRAWN = {
    "accounts.svg", "churn.svg", "lift.svg", "lifts.svg", "live.svg", "metric.svg", "reach.svg",
    "reasons.svg", "recipes.svg", "slices.svg",
}  # fmt: skip
SECTIONS = [
    "What the gate asked",
    "Points on the way to a switch",
    "How good the recipes are",
    "Groups of people",
    "What gets recommended",
    "What changed for people who did nothing",
    "What people did with the live lists",
    "What people did with what they were shown",
    "Whether something has moved",
    "Data",
    "Cost",
]


class Page(HTMLParser):
    """Checks that the page is well formed, and gathers its texts and what it would load."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.used: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            text = value or ""
            self.used += re.findall(r"url\(#([^)]+)\)", text)
            if name == "id":
                self.ids.append(text)
            if name in ("src", "href"):
                (self.used.append(text[1:]) if text.startswith("#") else self.loads.append(text))
        if tag == "svg":
            self.pictures.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data)
            if self.open[-1] in ("td", "th"):
                self.rows[-1].append(data)


@cache
def pictures() -> dict[str, bytes]:
    return night_figures(NIGHT)


def written(night: NightPage) -> tuple[str, Page]:
    """A page of rows; its figures are those of `NIGHT`, for drawing takes its time."""
    html = night_page(night, pictures())
    return html, Page(html)


def drawn(night: NightPage) -> tuple[str, Page]:
    html = night_page(night, night_figures(night))
    return html, Page(html)


def test_the_sentence_stands_above_the_evidence() -> None:
    html, page = written(NIGHT)
    order = ["A new recipe goes live", NIGHT.sentence, *SECTIONS]
    assert [text for text in page.texts if text in order] == order
    assert ["als (live now)", "candidate", "0.1212", "0.1150 to 0.1274"] in page.rows
    assert ["broken", "candidate", "no GPU is there"] in page.rows
    assert ["events", "14", "1,352,210"] in page.rows
    assert ["cold", "301", "0.0900", "0.0850", "+5.9 %", "−2.0 % to +14 %"] in page.rows
    assert ["new items", "12", "0.0000", "0.0000", "n/a", "–", "○ too few users"] in page.rows
    assert ["als", "31 %", "0.6", "9.25", "80 %"] in page.rows
    assert NIGHT.run_id in page.texts
    assert "Friday, 1 December 2017" in html
    assert html == written(NIGHT)[0]


def test_each_candidate_has_a_line_about_its_points() -> None:
    _, page = written(NIGHT)
    lines = [text.replace("\xa0", " ") for text in page.texts]
    told = "als: 512 of 500 points; +4.0 % (+2.0 % to +6.0 %) over 3 blocks; a block like tonight's"
    assert f"{told} can show +5.0 %." in lines
    told = "mad: under 0.1 of 500 points; −40 % (−50 % to −30 %) over 1 block; a block like"
    told += " tonight's can show +5.0 %; a true +2 % needs about 31 more; waiting, day 3 of 7."
    assert told in lines
    assert "new: 1.0 of 500 points." in lines


def test_churn_and_live_scores_are_told_newest_first() -> None:
    _, page = written(NIGHT)
    new = ["1 Dec 2017", "655", "93 %", "data 6.0 %, stock 1.0 %", "1.9 %"]
    old = ["24 Nov 2017", "0", "–", "–", "–", "nobody was there before"]
    at = page.rows.index(new)
    assert page.rows[at + 1] == old
    row = ["all", "2", "950", "3,100", "21 %", "0.0260", "0.0210 to 0.0310", "0.0250"]
    assert row in page.rows
    assert ["cold", "2", "3", "4", "–", "–", "–", "–"] in page.rows
    assert not [row for row in page.rows if row[:2] == ["all", "1"]]  # of last night


def test_the_quality_of_the_data_is_told() -> None:
    _, page = written(NIGHT)
    at = page.rows.index(["kind unknown", "412"])
    assert page.rows[at + 1] == ["user id missing", "39"]
    assert ["price", "items", "92,331", "512", "500", "83", "1"] in page.rows
    clean = written(replace(NIGHT, quarantined=0, reasons=()))[1]
    assert "✓ No row is in quarantine." in clean.texts
    assert "Quarantine" not in written(replace(NIGHT, quarantined=None, reasons=()))[1].texts


def test_what_training_took_is_told_longest_first() -> None:
    _, page = written(NIGHT)
    head = ["What training took", "Seconds", "CPU seconds", "Memory, MB", "Parameters"]
    head += ["Events a second", "On", "CPU seconds for each +1 %"]
    at = page.rows.index(head)
    assert page.rows[at + 1 : at + 4] == [
        ["als", "12.35", "23.40", "1,135.0", "2,000,000", "52,123", "cuda", "0.58"],
        ["mad", "1.00", "1.00", "1.0", "9", "9", "cpu", "no gain"],
        ["popularity", "0.01", "0.01", "0.4", "7,000", "5,000,000", "cpu", "–"],
    ]
    assert "What training took" not in written(replace(NIGHT, costs=()))[0]


def test_what_the_data_chose_is_told() -> None:
    assert "als: alpha 3 <b>" in written(NIGHT)[1].texts
    assert "What earlier weeks chose" not in written(replace(NIGHT, chosen=()))[0]


def test_every_rule_has_figure_bound_verdict_and_words() -> None:
    _, page = written(NIGHT)
    assert ["✓ passed", "switch lift", "als", "0.4", "0.01", "als is better"] in page.rows
    thin = ["○ underpowered", "switch slice lapsed", "als", "−0.06", "–", "32 people"]
    assert thin in page.rows
    assert ["○ not met", "switch lift", "other", "−0.4", "0.01", "other loses"] in page.rows
    assert "as last night, too" not in page.texts  # it stands below, among the checks
    assert ["○ no history", "volume", "–", "–", "5 days; 7 are needed"] in page.rows
    assert "1 of 2 checks of the data passed" in page.texts
    assert "On recipes that stay as they were: 1 not met" in page.texts
    assert "On groups of people: 1 not judged" in page.texts


def test_the_page_needs_nothing_but_itself() -> None:
    html, page = written(NIGHT)
    assert page.loads == []
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert not re.search(r"https?:|url\((?!#)|@import|xmlns", html)
    assert "default-src 'none'" in html
    assert 30_000 < len(html) < 300_000


def test_every_figure_says_what_it_shows_and_shares_no_id() -> None:
    _, page = written(NIGHT)
    assert len(page.pictures) == len(DRAWN)
    told = {str(picture["aria-label"]) for picture in page.pictures}
    assert len(told) == len(DRAWN)
    assert all(picture["role"] == "img" for picture in page.pictures)
    assert "als has 512 of 500 points: enough for a switch" in told
    assert (
        "93 % of what idle people see stayed as it was; what changed did so most for data" in told
    )
    assert len(page.ids) == len(set(page.ids)) > 10
    assert set(page.used) == set(page.ids)


def test_everything_is_escaped() -> None:
    evil = "<script>alert('x')</script>&\"'$\\nope{$]]>\x07"
    rows: dict[str, Any] = {
        "recipes": (
            RecipeRow(evil, evil, 0.1, 0.05, 0.15, 0.1),
            RecipeRow("b" + evil, evil, failure=evil),
        ),
        "costs": (CostRow(evil, 1.0, 1.0, 1.0, 1, 1.0, evil),),
        "lifts": (LiftRow(evil, 0.4, 0.35, 0.45, True, evil),),
        "slices": (SliceRow(evil, 3, 0.1, 0.1, 0.0, -0.1, 0.1, evil),),
        "rules": (RuleRow(evil, evil, None, None, evil, evil),),
        "checks": (CheckRow(evil, evil, None, None, evil), CheckRow(evil, "passed", 1, 1, evil)),
        "tables": (TableRow(evil, 1, 1),),
        "facts": ((evil, evil),),
        "advice": (evil,),
        "origin": ((evil, evil),),
        "accounts": (AccountRow(evil, 1.0, 9.0, waiting=evil, path=(StandRow(AS_OF, 0.0),)),),
        "past": (PastRow(AS_OF, "switch", evil, 7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),),
        "churn": (ChurnRow(AS_OF, 0.9, 1, ((evil, 0.1),), None, evil),),
        "live": (LiveRow(AS_OF, evil, "all", 1, 1, 0.1, 0.1), LiveRow(AS_OF, evil, evil, 1, 1)),
        "answers": AnswersTold((AnswerRow(evil, evil, 1), AnswerRow("all", evil, 1)), (evil,)),
        "drift": (DriftRow(evil, evil, None, 1.0, evil), DriftRow(evil, "calm", 1.0, 1.0, evil)),
        "policy": evil,
        "reasons": (ReasonRow(evil, 1),),
        "cleaned": (ColumnRow(evil, evil, 1, 1, 1, 1, 1),),
    }
    texts = {
        "sentence": evil,
        "run_id": evil,
        "kind": evil,
        "winner": evil,
        "challenger": evil,
        "against": evil,
        "metric": evil,
    }
    night = replace(NIGHT, **rows, **texts)
    html, page = drawn(night)
    assert "<script" not in html
    assert page.tags["script"] == 0
    assert page.tags["svg"] == len(DRAWN)
    assert evil in page.texts
    assert from_json(to_json(night)) == night


def test_what_came_back_and_what_has_moved() -> None:
    _, page = written(NIGHT)
    rates = ["3.1 %", "2.0 % (1.8 % to 2.2 %)", "1.1 % (1.0 % to 1.2 %)"]
    money = ["1,234.50", "0.02 (0.01 to 0.03)", "4.0 % (0 % to 9.0 %)"]
    told = [[cell.replace("\xa0", " ") for cell in row] for row in page.rows]
    assert ["all", "all", "950", "61,000", *rates, *money] in told
    assert ["segment", "new", "4", *["–"] * 7] in told
    texts = " ".join(page.texts)
    assert "of the lists that events claim 3 were not shown" in texts
    assert "retrain wanted: people want other things." in texts
    rows = [row for row in page.rows if row and row[0][:1] in "▲○✓" and len(row) == 5]
    mine = [row[:3] for row in rows if row[-1] in [x.sentence for x in NIGHT.drift]]
    assert mine == [
        ["▲ drift", "taste items", "9.2"],
        ["○ too short", "quality ndcg", "–"],
        ["✓ calm", "data volume", "0.4"],
    ]
    assert "1 of 3 signals are calm" in texts


def test_a_blocked_night_says_first_what_can_be_done() -> None:
    blocked = replace(NIGHT, kind="block", sentence="block: volume", winner="popularity", lifts=())
    html, page = written(blocked)
    order = ["What you can do", "What the gate asked", "How good the recipes are"]
    assert [text for text in page.texts if text in order] == order
    assert any(text.startswith("Look first at: check volume.") for text in page.texts)
    verdicts = [row[0] for row in page.rows if row and row[0][0] in "✓✗○"]
    assert verdicts[:4] == ["✗ failed", "✓ passed", "○ not met", "○ underpowered"]
    assert ["✗ failed", "check volume", "0.4", "0.5", "too few events"] in page.rows
    assert "what stopped the night stands first" in html


def test_only_figures_with_rows_are_drawn() -> None:
    assert set(pictures()) == DRAWN
    unjudged = replace(BARE, recipes=(NIGHT.recipes[2],))
    assert night_figures(unjudged) == {}
    assert "no GPU is there" in drawn(unjudged)[0]


def test_a_page_of_nothing_has_the_sentence_alone() -> None:
    _, page = drawn(BARE)
    assert BARE.sentence in page.texts
    assert not set(SECTIONS) & set(page.texts)
    assert page.tags["svg"] == page.tags["table"] == 0


def test_one_row_of_each_kind_stands_alone() -> None:
    alone: dict[str, Any] = {
        "accounts": (AccountRow("a", 0.0, 500.0),),
        "past": (PastRow(AS_OF, "block", "a", 7, 0.0),),
        "churn": (ChurnRow(AS_OF, 1.0, 3),),
        "live": (LiveRow(AS_OF, "1", "all", 1, 1, 0.0, 0.0),),
        "reasons": (ReasonRow("kind_unknown", 1),),
        "recipes": (RecipeRow("a", "candidate", 0.0, 0.0, 0.0, 0.0),),
    }
    _, page = drawn(replace(BARE, quarantined=1, **alone))
    told = {str(picture["aria-label"]) for picture in page.pictures}
    assert told == {
        "No candidate has gathered evidence that it is better",
        "a reaches 0.0000 NDCG@20",
        "100 % of what idle people see stayed as it was",
        "Live, version 1 reached 0.0000 NDCG@20 with 1 people",
        "1 row is in quarantine: kind unknown",
        "a reaches 0.000 NDCG@20",
        "a recommends 0 % of the catalogue",
    }


def test_the_rows_come_back_from_json() -> None:
    text = to_json(NIGHT)
    assert text == to_json(NIGHT)
    assert from_json(text) == NIGHT
    told = json.loads(text)
    assert told["as_of"] == "2017-12-01T09:00:00Z"
    assert told["accounts"][0]["path"][1] == {"as_of": "2017-12-01T09:00:00Z", "log_points": 6.24}
    assert told["recipes"][2]["mean"] is None
    assert from_json(to_json(BARE)) == BARE


def test_the_page_says_how_far_the_gate_can_be_trusted() -> None:
    measured = replace(NIGHT, trust="The gate itself, measured on <b>: 0.2 % of cases.")
    page = night_page(measured, {})
    assert "The gate itself, measured on &lt;b&gt;: 0.2 % of cases." in page
    assert "was not measured yet" not in page
    assert "was not measured yet: `nightjar gate calibrate` does that" in night_page(NIGHT, {})
