from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

from pipeline.report.night import (
    CheckRow,
    CostRow,
    LiftRow,
    NightPage,
    RecipeRow,
    RuleRow,
    SliceRow,
    TableRow,
)
from pipeline.report.page import LIFTS, RECIPES, SLICES, night_figures, night_page

NIGHT = NightPage(
    run_id="20171201T090000Z-1a2b3c4d",
    as_of=datetime(2017, 12, 1, 9, tzinfo=UTC),
    kind="switch",
    sentence="switch: als replaces popularity: +40 %",
    metric="ndcg_at_20",
    recipes=(
        RecipeRow("popularity", "champion", 0.0866, 0.081, 0.0922, 0.012),
        RecipeRow("als", "candidate", 0.1212, 0.115, 0.1274, 0.31),
        RecipeRow("broken", "candidate", failure="no GPU is there"),
    ),
    winner="als",
    challenger="als",
    against="popularity",
    needed_lift=0.01,
    chosen=(("als", "alpha 3 <b>"),),
    costs=(
        CostRow("popularity", 0.01, 0.01, 0.4, 7_000, 5_000_000.0, "cpu"),
        CostRow("als", 12.345, 23.4, 1_135.04, 2_000_000, 52_123.4, "cuda"),
    ),
    lifts=(LiftRow("als", 0.4, 0.35, 0.45, True),),
    slices=(SliceRow("cold", 301, (0.09, 0.07, 0.11), (0.085, 0.065, 0.105)),),
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
    origin=(("code", "abc1234"),),
)


class Page(HTMLParser):
    """Checks that the page is well formed, and gathers its texts and what it would load."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data)
            if self.open[-1] in ("td", "th"):
                self.rows[-1].append(data)


def drawn(night: NightPage) -> tuple[str, Page]:
    html = night_page(night, night_figures(night))
    return html, Page(html)


def test_the_sentence_stands_above_the_evidence() -> None:
    html, page = drawn(NIGHT)
    order = ["A new recipe goes live", NIGHT.sentence, "Recipes", "What the gate asked", "Data"]
    assert [text for text in page.texts if text in order] == order
    assert ["als (live now)", "candidate", "0.1212", "0.1150 to 0.1274", "31.0 %"] in page.rows
    assert ["broken", "candidate", "no GPU is there"] in page.rows
    assert ["events", "14", "1,352,210"] in page.rows
    assert ["cold", "301", "0.0900", "0.0850", "+5.9 %"] in page.rows
    assert NIGHT.run_id in page.texts
    assert "Friday, 1 December 2017" in html
    assert html == drawn(NIGHT)[0]


def test_what_training_took_is_told_longest_first() -> None:
    _, page = drawn(NIGHT)
    head = ["What training took", "Seconds", "CPU seconds", "Memory, MB", "Parameters"]
    at = page.rows.index([*head, "Events a second", "On"])
    assert page.rows[at + 1 : at + 3] == [
        ["als", "12.35", "23.40", "1,135.0", "2,000,000", "52,123", "cuda"],
        ["popularity", "0.01", "0.01", "0.4", "7,000", "5,000,000", "cpu"],
    ]
    assert "What training took" not in drawn(replace(NIGHT, costs=()))[0]


def test_what_the_data_chose_is_told() -> None:
    assert "als: alpha 3 <b>" in drawn(NIGHT)[1].texts
    assert "What earlier weeks chose" not in drawn(replace(NIGHT, chosen=()))[0]


def test_every_rule_has_figure_bound_verdict_and_words() -> None:
    _, page = drawn(NIGHT)
    assert ["✓ passed", "switch lift", "als", "0.4", "0.01", "als is better"] in page.rows
    thin = ["○ underpowered", "switch slice lapsed", "als", "−0.06", "–", "32 people"]
    assert thin in page.rows
    assert ["○ not met", "switch lift", "other", "−0.4", "0.01", "other loses"] in page.rows
    assert "as last night, too" not in page.texts  # it stands below, among the checks
    assert ["○ no history", "volume", "–", "–", "5 days; 7 are needed"] in page.rows
    assert "1 of 2 checks of the data passed" in page.texts


def test_the_page_needs_nothing_but_itself() -> None:
    html, page = drawn(NIGHT)
    assert len(page.loads) == 3
    assert all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert not re.search(r"https?://|url\(|@import", html)
    assert "default-src 'none'" in html


def test_everything_is_escaped() -> None:
    evil = "<script>alert('x')</script>&\"'"
    rows = {
        "recipes": (
            RecipeRow(evil, evil, 0.1, 0.05, 0.15),
            RecipeRow("b" + evil, evil, failure=evil),
        ),
        "costs": (CostRow(evil, 1.0, 1.0, 1.0, 1, 1.0, evil),),
        "lifts": (LiftRow(evil, 0.4, 0.35, 0.45, True, evil),),
        "slices": (SliceRow(evil, 3, (0.1, 0.1, 0.1), (0.1, 0.1, 0.1)),),
        "rules": (RuleRow(evil, evil, None, None, evil, evil),),
        "checks": (CheckRow(evil, evil, None, None, evil), CheckRow(evil, "passed", 1, 1, evil)),
        "tables": (TableRow(evil, 1, 1),),
        "facts": ((evil, evil),),
        "advice": (evil,),
        "origin": ((evil, evil),),
    }
    texts = {
        "sentence": evil,
        "run_id": evil,
        "kind": evil,
        "winner": evil,
        "challenger": evil,
        "against": evil,
    }
    html, page = drawn(replace(NIGHT, **rows, **texts))
    assert "<script" not in html
    assert page.tags["script"] == 0
    assert evil in page.texts


def test_a_blocked_night_says_first_what_can_be_done() -> None:
    blocked = replace(NIGHT, kind="block", sentence="block: volume", winner="popularity", lifts=())
    html, page = drawn(blocked)
    order = ["What you can do", "Recipes", "What the gate asked"]
    assert [text for text in page.texts if text in order] == order
    assert any(text.startswith("Look first at: check volume.") for text in page.texts)
    verdicts = [row[0] for row in page.rows if row and row[0][0] in "✓✗○"]
    assert verdicts[:4] == ["✗ failed", "✓ passed", "○ underpowered", "○ not met"]
    assert ["✗ failed", "check volume", "0.4", "0.5", "too few events"] in page.rows
    assert "what stopped the night stands first" in html


def test_only_figures_with_rows_are_drawn() -> None:
    assert set(night_figures(NIGHT)) == {RECIPES, LIFTS, SLICES}
    bare = replace(NIGHT, recipes=(NIGHT.recipes[2],), lifts=(), slices=(), rules=(), checks=())
    assert night_figures(bare) == {}
    html, page = drawn(replace(bare, against=None, tables=(), facts=()))
    assert page.loads == []
    assert "no GPU is there" in html
