from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import cache
from html.parser import HTMLParser
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.data.validate.checks import DataCheck, Status
from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decide import _blocked
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import Evidence
from pipeline.evaluation.gate.slice_rules import refresh_slice_rules
from pipeline.evaluation.slices import COLD, NEW_ITEMS, SLICES
from pipeline.monitoring.rates import AttributionRow
from pipeline.monitoring.verdicts import DriftStatus, Signal
from pipeline.report.headline import Lift, NightFacts
from pipeline.report.markup import picture
from pipeline.report.night import LiftRow, NightPage, PastRun, SliceRow
from pipeline.report.page import night_figures, night_page, refused_page
from pipeline.report.wording import advice, sentence
from pipeline.workspace.artifacts import AnsweredTargets, CleanFile
from tests import pages
from tests.pages import AS_OF, ATTRIBUTION, BARE, CLEAN, DRIFT, HOLDOUT, RULES
from tests.pages import FULL as NIGHT

DRAWN = {
    "e_processes.svg", "churn.svg", "lift.svg", "lifts.svg", "live.svg", "metric.svg", "reach.svg",
    "reasons.svg", "recipes.svg", "slices.svg",
}  # fmt: skip
SECTIONS = [
    "Rules of the gate",
    "Evidence for a switch",
    "Quality of the recipes",
    "Lifts without events that answer a shown list",
    "Quality by user group",
    "Coverage and diversity",
    "List stability",
    "Fold-in compared with retraining",
    "Live quality",
    "Attribution of events to lists",
    "Drift",
    "Data",
    "Training cost",
]


class Page(HTMLParser):
    """Checks that the page is well formed, and gathers its texts and resources."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: Counter[str] = Counter()
        self.loads: list[str] = []
        self.attributes: set[str] = set()
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
            self.attributes.add(name)
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
        data = data.replace("\xa0", " ")
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(data)
            if self.open[-1] in ("td", "th"):
                self.rows[-1].append(data)


@cache
def pictures() -> dict[str, bytes]:
    return night_figures(NIGHT)


def written(night: NightPage) -> tuple[str, Page]:
    """Write a page with the figures of `NIGHT`, since drawing takes its time."""
    html = night_page(night, pictures(), facts_of(night))
    return html, Page(html)


def facts_of(night: NightPage, **fields: Any) -> NightFacts:
    given = {"decision": night.decision, "published": True}
    return NightFacts(night.run_id, night.as_of, None, publishes=True, **given | fields)


def changed(page: NightPage, **changes: Any) -> NightPage:
    return page.model_copy(update=changes)


def decided(page: NightPage, **changes: Any) -> NightPage:
    return changed(page, decision=replace(page.decision, **changes))


def drawn(night: NightPage) -> tuple[str, Page]:
    html = night_page(night, night_figures(night), facts_of(night))
    return html, Page(html)


def test_the_sentence_stands_above_the_evidence() -> None:
    html, page = written(NIGHT)
    reasons = NIGHT.decision.sentence.removeprefix("switch: ")
    order = ["✓ Good", "Nothing to do.", "Contents", sentence(reasons, "als"), *SECTIONS]
    assert [text for text in page.texts if text in order] == order
    assert ["als", "candidate, goes live", "0.1212", "0.1150 to 0.1274"] in page.rows
    assert ["broken", "candidate", "No GPU is there"] in page.rows
    assert ["events", "14", "1,352,210"] in page.rows
    assert ["cold", "301", "0.0900", "0.0850", "+5.9 %", "−2.0 % to +14.0 %"] in page.rows
    assert ["new items", "12", "0.0000", "0.0000", "n/a", "–", "○ Too few users"] in page.rows
    assert ["als", "31.0 %", "0.6", "9.25", "80.0 %", "2.0 %"] in page.rows
    assert NIGHT.run_id in page.texts
    assert "Friday, 1 December 2017" in html
    assert html == written(NIGHT)[0]


def test_a_reader_sees_first_how_much_better_the_live_model_is_and_how_sure() -> None:
    lifts = {
        "over_baseline": Lift("the best baseline trend", 0.227, 0.119, 0.335, 0.02, 1223),
        "over_before": Lift("the version before", 0.02, -0.06, 0.1, 0.02, 1213, "2017-11-24"),
        "over_month": Lift("<model>", -0.3, -0.4, -0.2, 0.02),
    }
    page = Page(night_page(NIGHT, pictures(), facts_of(NIGHT, **lifts)))
    before = "The version before, of 2017-11-24"
    rows = [[before, "+2.0 %", "−6.0 % to +10.0 %", "1,213", "○ unclear"]]
    rows += [["<model>", "−30.0 %", "−40.0 % to −20.0 %", "–", "✗ worse"]]
    rows += [["The best baseline trend", "+22.7 %", "+11.9 % to +33.5 %", "1,223", "✓ better"]]
    assert page.rows[1:4] == rows
    direct = "The model of a month ago is compared directly"
    assert any(text.startswith(direct) for text in page.texts)
    assert not any(text.startswith(direct) for text in written(NIGHT)[1].texts)
    places = ("The best baseline trend", "Contents", "Rules of the gate")
    assert [text for text in page.texts if text in places] == list(places)


def test_a_stopped_night_names_the_version_that_stays_live_above_the_next_steps() -> None:
    stays = "Version 3 (recipe als) stays live, since the night of 2017-11-24 09:00 UTC."
    blocked = decided(NIGHT, kind="block", reasons=("volume",))
    blocked = changed(blocked, advice=advice("block", RULES, "RUN", ("als",)))
    texts = Page(night_page(blocked, {}, facts_of(blocked, live=stays))).texts
    order = [stays, "Next steps", "nightjar nightly --as-of T"]
    order.append("nightjar gate accept RUN --by NAME --reason TEXT")
    assert [text for text in texts if text in order] == order
    assert stays not in Page(night_page(NIGHT, {}, facts_of(NIGHT, live=stays))).texts


def test_a_night_of_unusable_data_has_plain_numbers_and_the_way_to_start_again() -> None:
    checks = (
        DataCheck("volume", Status.FAILED, 0.0003, 0.4, "1 event in the last day, 3,473 usual"),
        DataCheck("quarantine_budget", Status.FAILED, 0.25, 0.01, "too many rows"),
        DataCheck("event_id_missing", Status.FAILED, 12_345, 0, "some rows break the rule"),
        DataCheck("catalogue", Status.PASSED, -0.02, 0.2, "more items are available"),
    )
    stays = "No lists are live yet."
    facts = facts_of(NIGHT, decision=None, failed_checks=checks[:3], live=stays)
    page = Page(refused_page(checks, facts, (), ()))
    values = {row[1]: row[2:4] for row in page.rows if len(row) > 3}
    assert values["volume of the last day"] == ["0.03 % of usual", "40.0 % of usual"]
    assert values["quarantine budget"] == ["25.0 %", "1.0 %"]
    assert values["event id missing"] == ["12,345", "0"]
    assert values["catalogue"] == ["0 %", "20.0 %"]
    assert {stays, "nightjar feedback", "nightjar nightly --as-of T"} <= set(page.texts)
    assert any("nightly_retrain" in text for text in page.texts)


def test_the_page_shows_no_more_than_the_result_before_a_click() -> None:
    html, page = written(NIGHT)
    opened = html[: html.index("<h2>Contents")]
    assert opened.count("<svg") == 1 and "How the lifts are measured" in opened
    assert "<details class=part open" not in html
    assert page.tags["svg"] == len(DRAWN)


def test_links_lead_to_other_pages_and_load_nothing() -> None:
    links = (("MLflow run", "http://127.0.0.1:5000/#/runs/a&b"), ("All nights", "../index.html"))
    page = Page(night_page(NIGHT, {}, facts_of(NIGHT), links))
    assert page.loads == [address for _, address in links]
    assert page.tags["a"] == 2
    assert " before you open: MLflow run." in page.texts
    served = Page(night_page(NIGHT, {}, facts_of(NIGHT), (("MLflow run", "https://mlflow.x/"),)))
    assert "make ui" not in served.texts


def test_figures_follow_the_colours_of_the_page() -> None:
    html, _ = written(NIGHT)
    assert "fill: var(--ink)" in html and "prefers-color-scheme:dark" in html
    assert not re.search(r"#(222222|0072b2|6b6b6b|d55e00|ffffff)", html.partition("<svg")[2])
    text = '<svg><text style="fill: #222222">style #222222</text></svg>'
    assert "style #222222<" in picture(text.encode())


def test_each_candidate_has_a_line_about_its_points() -> None:
    _, page = written(NIGHT)
    for status in NIGHT.decision.e_processes:
        assert f"{status.sentence}." in page.texts


def test_churn_and_live_scores_are_shown_newest_first() -> None:
    _, page = written(NIGHT)
    new = ["1 Dec 2017", "655", "93.0 %", "data 6.0 %, stock 1.0 %", "1.9 %"]
    old = ["24 Nov 2017", "0", "–", "–", "–", "No user before"]
    at = page.rows.index(new)
    assert page.rows[at + 1] == old
    row = ["all", "2", "950", "3,100", "21.0 %", "0.0260", "0.0210 to 0.0310", "0.0250"]
    assert row in page.rows
    assert ["cold", "2", "3", "4", "–", "–", "–", "–"] in page.rows
    assert not [row for row in page.rows if row[:2] == ["all", "1"]]  # of last night


def test_the_quality_of_the_data_is_shown() -> None:
    _, page = written(NIGHT)
    at = page.rows.index(["kind unknown", "412"])
    assert page.rows[at + 1] == ["user id missing", "39"]
    assert ["price", "items", "92,331", "512", "500", "83", "1"] in page.rows
    clean = written(changed(NIGHT, quarantined=0, quarantine_reasons={}))[1]
    assert "✓ No rows in quarantine." in clean.texts
    unknown = changed(NIGHT, quarantined=None, quarantine_reasons={})
    assert "Quarantine" not in written(unknown)[1].texts


UNUSED = "cpu; GPU not used: device.hidden: unset it"


def test_costs_of_training_are_shown_longest_first() -> None:
    mad, slow = pages.evaluation(0.07), pages.cost(1.0, 1.0, 1.0, 9, 9.0)
    slow = slow.model_copy(update={"gpu_cause": "device.hidden: unset it"})
    night = changed(
        NIGHT,
        evaluations={**NIGHT.evaluations, "mad": mad},
        costs={**NIGHT.costs, "mad": slow},
    )
    _, page = written(night)
    head = ["Recipe", "Seconds", "CPU seconds", "Memory, MB", "Parameters"]
    head += ["Events per second", "Device", "CPU seconds per +1 %"]
    at = page.rows.index(head)
    assert page.rows[at + 1 : at + 4] == [
        ["als", "12.35", "23.40", "1,135.0", "2,000,000", "52,123", "cuda", "0.59"],
        ["mad", "1.00", "1.00", "1.0", "9", "9", UNUSED, "no gain"],
        ["popularity", "0.01", "0.01", "0.4", "7,000", "5,000,000", "cpu", "–"],
    ]
    assert "Training cost" not in written(changed(NIGHT, costs={}))[0]


def test_selected_hyperparameters_are_shown() -> None:
    assert "als: alpha 3 <b>" in written(NIGHT)[1].texts
    assert "Hyperparameters selected" not in written(changed(NIGHT, selected={}))[0]


def test_every_rule_has_figure_bound_verdict_and_words() -> None:
    _, page = written(NIGHT)
    assert ["✓ passed", "switch: lift", "als", "+40.0 %", "+1.0 %", "als is better"] in page.rows
    thin = ["○ underpowered", "switch: group lapsed", "als", "−0.06", "–", "32 people"]
    assert thin in page.rows
    assert ["○ not met", "switch: lift", "other", "−40.0 %", "+1.0 %", "Other loses"] in page.rows
    assert "as last night, too" not in page.texts  # it stands below, among the checks
    volume = ["○ not met", "data check: volume of the last day", "40.0 % of usual",
              "50.0 % of usual", "Too few events"]  # fmt: skip
    assert volume in page.rows
    assert "1 of 2 checks of the data passed" in page.texts
    assert "Other recipes: 1 not met" in page.texts
    assert "User groups: 1 not evaluated" in page.texts


def test_the_page_needs_nothing_but_itself() -> None:
    html, page = written(NIGHT)
    assert page.loads == []
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    assert not re.search(r"https?:|url\((?!#)|@import|xmlns", html)
    assert "default-src 'none'" in html
    assert 30_000 < len(html) < 300_000


def test_every_figure_has_a_description_and_shares_no_id() -> None:
    _, page = written(NIGHT)
    assert len(page.pictures) == len(DRAWN)
    labels = {str(picture["aria-label"]) for picture in page.pictures}
    assert len(labels) == len(DRAWN)
    assert all(picture["role"] == "img" for picture in page.pictures)
    assert "als has the highest e-value: 512 (500 needed)" in labels
    assert (
        "93.0 % of the entries stayed for users without new events; main cause of the changes: data"
        in labels
    )
    assert len(page.ids) == len(set(page.ids)) > 10
    assert set(page.used) < set(page.ids)
    # The others are the addresses of the sections.
    assert len(set(page.ids) - set(page.used)) == len(SECTIONS) + 1


def test_everything_is_escaped() -> None:
    evil = (
        "<script>alert('x')</script><svg onload=alert(1)></title></style>-->=HYPERLINK(1)"
        "&\"'$\\nope{$]]>\x07"
    )
    rules = (RuleResult(evil, evil, None, None, "waiting", evil),)
    night = changed(
        NIGHT,
        run_id=evil,
        commit=evil,
        settings=evil,
        decision=replace(
            NIGHT.decision,
            sentence=evil,
            recipe=evil,
            rules=rules,
            e_processes=(pages.status(evil, 1.0, waiting=evil),),
        ),
        evaluations={evil: pages.evaluation(0.1, 0.05, 0.15, coverage=0.1)},
        failures={"b" + evil: evil},
        selected={evil: evil},
        challenger=evil,
        against=evil,
        costs={evil: pages.cost(1.0, 1.0, 1.0, 1, 1.0, evil)},
        lifts=(LiftRow(evil, 0.4, 0.35, 0.45, True, evil),),
        slices=(SliceRow(evil, 3, 0.1, 0.1, 0.0, -0.1, 0.1, evil),),
        checks=(
            DataCheck(evil, Status.FAILED, None, None, evil),
            DataCheck(evil, Status.PASSED, 1, 1, evil),
        ),
        cleaning=CleanFile(
            train=CLEAN, full=CLEAN, items=pages.clean_report(1, (evil, 1, 1, 1, 0, 1)), users=CLEAN
        ),
        advice=(evil,),
        e_process_paths={evil: ((AS_OF, 0.0),)},
        past=(PastRun(AS_OF, "switch", evil, 7, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),),
        churn=((AS_OF, pages.churn(0.9, 1, {evil: 0.1}, reason=evil)),),
        live=(
            (AS_OF, pages.live(evil, "all", 1, 1, 0.1, 0.1)),
            (AS_OF, pages.live(evil, evil, 1, 1)),
        ),
        attribution=replace(
            ATTRIBUTION, rows=(AttributionRow(evil, evil, 1), AttributionRow("all", evil, 1))
        ),
        drift=replace(
            DRIFT,
            signals=(
                Signal(evil, None, 1.0, DriftStatus.NO_EVENT, evil),
                Signal(evil, 1.0, 1.0, DriftStatus.STABLE, evil),
            ),
        ),
        policy=replace(NIGHT.policy, reason=evil),
        calibration=pages.calibration(AS_OF, evil),
        quarantine_reasons={evil: 1},
    )
    html, page = drawn(night)
    assert "<script" not in html
    assert page.tags["script"] == 0
    assert page.tags["svg"] == len(DRAWN)
    assert page.tags["title"] == page.tags["style"] == 1
    assert page.loads == [] and not any(name.startswith("on") for name in page.attributes)
    assert evil in page.texts
    assert NightPage.parse(stored(night), "page.json") == night


def stored(page: NightPage) -> bytes:
    return json.dumps(page.plain(), sort_keys=True, allow_nan=False).encode()


def test_responses_and_drift_are_shown() -> None:
    _, page = written(NIGHT)
    rates = ["3.1 %", "2.00 % (1.80 % to 2.20 %)", "1.10 % (1.00 % to 1.20 %)"]
    money = ["1,234.50", "0.0200 (0.0150 to 0.0300)", "4.0 % (0.0 % to 9.0 %)"]
    assert ["all", "all", "950", "61,000", *rates, *money] in page.rows
    assert ["segment", "new", "4", *["–"] * 7] in page.rows
    texts = " ".join(page.texts)
    assert "1 equal the joined list, 2 are other lists, 3 without a joined list" in texts
    assert "Retrain wanted: people want other things." in texts
    rows = [row for row in page.rows if row and row[0][:1] in "▲○✓" and len(row) == 5]
    mine = [row[:3] for row in rows if row[-1] in [sentence(x.sentence) for x in DRIFT.signals]]
    assert mine == [
        ["▲ drift", "taste: items", "9.2"],
        ["○ too short", "quality: NDCG", "–"],
        ["✓ stable", "data: volume", "0.4"],
    ]
    assert "1 of 3 signals are stable" in texts


def test_lifts_without_answers_stand_beside_those_of_all_targets() -> None:
    title = "Lifts without events that answer a shown list"
    html, page = written(NIGHT)
    assert title in html and "640 of 3,100 target items" in html
    for cell in ("+62.0 %", "1,150", "+55.0 % to +69.0 %", "scorer of 2017-11-24"):
        assert cell in page.texts, cell
    none = AnsweredTargets(targets=3_100, answered=0)
    html, _ = written(decided(changed(NIGHT, answers=none), without_answers=()))
    assert title in html and "Lift without" not in html
    assert title not in written(changed(NIGHT, answers=None))[0]


def test_a_blocked_night_names_the_next_step_first() -> None:
    blocked = changed(
        decided(NIGHT, kind="block", sentence="block: volume", recipe="popularity"),
        lifts=(),
        advice=advice("block", RULES),
    )
    html, page = written(blocked)
    order = ["Next steps", "Rules of the gate", "Quality of the recipes"]
    assert [text for text in page.texts if text in order] == order
    assert {"nightjar feedback", "nightjar nightly --as-of T"} <= set(page.texts)
    verdicts = [row[0] for row in page.rows if row and row[0][0] in "✓✗○"]
    assert verdicts[:4] == ["✗ failed", "✓ passed", "○ not met", "○ underpowered"]
    assert [
        "✗ failed",
        "data check: volume of the last day",
        "40.0 % of usual",
        "50.0 % of usual",
        "Too few events",
    ] in page.rows
    assert "the causes of the block come first" in html


def test_a_check_after_the_gate_blocks_a_promotion() -> None:
    fault = RuleResult("cold_check", "", 0.2, 0.5, "fail", "other lists")
    blocked = NIGHT.blocked(fault)
    assert blocked.decision.kind == "block"
    assert blocked.decision.recipe == "als"
    assert (
        blocked.decision.sentence
        == "the gate passed the recipe, the cold check stopped it: other lists"
    )
    assert blocked.decision.rules == (*RULES, fault)
    assert blocked.advice == advice("block", (fault,))
    assert NIGHT.decision.kind == "switch"


def test_only_figures_with_rows_are_drawn() -> None:
    assert set(pictures()) == DRAWN
    unjudged = changed(BARE, failures=NIGHT.failures)
    assert night_figures(unjudged) == {}
    assert "No GPU is there" in drawn(unjudged)[0]


def test_a_page_without_evidence_has_the_sentence_and_the_data() -> None:
    _, page = drawn(BARE)
    assert sentence(BARE.decision.sentence.removeprefix("keep: ")) in page.texts
    assert set(SECTIONS) & set(page.texts) == {"Data"}
    assert page.tags["svg"] == page.tags["table"] == 0
    about = ["2017-11-17T09:00:00Z to 2017-11-24T09:00:00Z"]
    about += ["7 days from 2017-11-24T09:00:00Z", "discovery", "purchase"]
    assert [text for text in page.texts if text in about] == about
    assert page.texts.count("1,212") == 2  # at the top, and among the facts about the data
    assert {"run", "abc1234", "0123456789ab"} <= set(page.texts)


def test_one_row_of_each_kind_stands_alone() -> None:
    alone = changed(
        decided(BARE, e_processes=(pages.status("a", 0.0),)),
        past=(PastRun(AS_OF, "block", "a", 7, 0.0),),
        churn=((AS_OF, pages.churn(1.0, 3)),),
        live=((AS_OF, pages.live("1", "all", 1, 1, 0.0, 0.0)),),
        quarantined=1,
        quarantine_reasons={"kind_unknown": 1},
        evaluations={"a": pages.evaluation(0.0, 0.0, 0.0, coverage=0.0)},
    )
    _, page = drawn(alone)
    labels = {str(picture["aria-label"]) for picture in page.pictures}
    assert labels == {
        "No candidate has enough evidence for a switch; "
        "the highest e-value is under 0.1 (500 needed)",
        "a reaches 0.0000 NDCG@20",
        "100 % of the entries stayed for users without new events",
        "Version 1 reached 0.0000 NDCG@20 live with 1 users",
        "Rows in quarantine: 1; most frequent reason: kind unknown",
        "a recommends 0 % of the catalogue",
    }


def test_a_page_comes_back_from_json() -> None:
    text = stored(NIGHT)
    assert NightPage.parse(text, "page.json") == NIGHT
    assert NightPage.parse(stored(BARE), "page.json") == BARE
    written = json.loads(text)
    assert written["as_of"] == "2017-12-01T09:00:00Z"
    assert written["e_process_paths"]["als"][1] == ["2017-12-01T09:00:00Z", 6.24]
    assert written["calibration"] is None


def test_the_page_states_how_far_the_gate_can_be_trusted() -> None:
    for days, age in ((0, "today"), (1, "1 day before"), (14, "14 days before")):
        measured = pages.calibration(AS_OF - timedelta(days=days), "<b>: 0.2 % of cases")
        page = night_page(changed(NIGHT, calibration=measured), {}, facts_of(NIGHT))
        day = f"{measured.as_of:%Y-%m-%d}"
        assert f"Calibration of the gate on {day} ({age}): &lt;b&gt;: 0.2\xa0% of cases." in page
        assert "has not been measured" not in page
    page = night_page(NIGHT, {}, facts_of(NIGHT))
    assert "has not been measured; run <code>nightjar gate calibrate</code>." in page


def test_fold_in_is_shown_beside_the_refit() -> None:
    row = ["1 Dec 2017", "12", "40.0 %", "–", "–"]
    assert row in written(NIGHT)[1].rows
    assert "Fold-in compared" not in written(changed(NIGHT, parity=()))[0]


def test_a_reader_sees_neither_rule_ids_nor_backticks() -> None:
    fault = RuleResult("check.kind", "", 1, 0, "fail", "1 event breaks the rule kind")
    night = decided(NIGHT, rules=(*RULES, fault), sentence="block: run `nightjar doctor`")
    html, page = written(changed(night, advice=("run `nightjar gate accept RUN`",)))
    assert "<code>nightjar doctor</code>" in html
    shown = " ".join(page.texts)
    assert "`" not in shown and "breaks this rule" in shown
    assert not [rule.name for rule in night.decision.rules if rule.name in shown]


def test_the_sentence_of_a_block_has_no_rule_ids() -> None:
    users = pl.DataFrame(
        {c.USER_ID: [f"u{n}" for n in range(60)]}
        | {SLICE + name: [0.5 + n % 7 / 100 for n in range(60)] for name in SLICES}
    )
    worse = users.with_columns(pl.col(SLICE + COLD, SLICE + NEW_ITEMS) * 0.9)
    config = GateConfig(slice_users=30, min_nonzero=10)
    rules = refresh_slice_rules("als", (worse, users), 0.0, (), config)
    blocked = _blocked(Evidence(20, "repeat", HOLDOUT, (), ("als",), "als", ()), rules)
    assert blocked.sentence.startswith("block: group cold: −10.0 % (test for harm: p ")
    assert "; group new items: −10.0 % (test for harm: p " in blocked.sentence
    _, page = written(changed(NIGHT, decision=blocked))
    shown = " ".join(page.texts)
    assert "Group cold: " in shown
    assert "Block: " not in shown
    assert not re.findall(r"refresh\.|slices\.|new_items", shown)
    row = next(row for row in page.rows if row[1] == "refresh: group cold")
    assert row[-1].startswith("−10.0")
