"""The gate of a night: decisions, their rules and the page that shows them."""

import json

from pipeline.steps.nightly.gate import gate
from pipeline.steps.reporting.comparison_rows import lift_rows
from pipeline.steps.reporting.night_page import build_page
from pipeline.workspace.artifacts import ValidationFile
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import page_of


def test_the_first_night_promotes_als_and_rejects_an_overregularised_recipe(shop):
    _, first, _ = shop
    assert (first.status, first.decision, first.recipe) == ("done", "first", "als")
    assert first.exit_code == 0
    assert first.model_version == "1"
    ndcg = first.metrics["ndcg_at_20"]
    assert ndcg.candidate > 1.2 * ndcg.baseline > 0
    assert "mad" in first.sentence
    # The first decision names the task that it pins.
    assert "target purchase: the strongest kind" in first.sentence
    assert "lists for discovery" in first.sentence


def test_the_page_marks_the_lift_that_the_gate_proved(shop):
    home, first, _ = shop
    night = open_night(Workspace.open(home), first.run_id)
    rows = {row.name: row for row in lift_rows(night, "decayed_popularity", ())}
    rules = [
        rule
        for rule in night.run.read(DecisionFile).root.rules
        if rule.subject == "als" and rule.name == "first.lift.decayed_popularity"
    ]
    assert [rule.figure for rule in rules] == [rows["als"].lift]
    assert {name for name, row in rows.items() if row.proved} == {"als"}


def test_the_second_night_refreshes_on_newer_data(shop):
    _, first, second = shop
    assert (second.decision, second.recipe, second.model_version) == ("refresh", "als", "2")
    assert second.publication_id != first.publication_id


def test_data_checks_are_rules_with_figures(shop):
    run = Workspace.open(shop[0]).run(shop[2].run_id)
    checks = run.read(ValidationFile).checks
    known = {f"check.{x.name}": (x.figure, x.bound) for x in checks}
    rules = run.read(DecisionFile).root.rules
    checked = {x.name: (x.figure, x.bound) for x in rules if x.name in known}
    assert checked == known
    assert sum(None not in pair for pair in checked.values()) > 3
    rows = page_of(run).decision.rules
    assert {x.name: (x.figure, x.bound) for x in rows if x.name in known} == known


def test_the_page_of_an_earlier_night_can_be_drawn_again(copy, shop):
    night = open_night(copy, shop[1].run_id)
    page = build_page(night, night.run.read(DecisionFile).root).plain()
    del page["costs"]["als (refit)"]  # of a training after the gate
    assert page == json.loads(night.run.bytes("gate", "page.json"))


def test_a_page_that_is_gone_or_old_is_drawn_as_it_was(copy, shop):
    run = copy.run(shop[2].run_id)
    names = ("page.html", "page.json")
    was = {name: (run.folder / name).read_bytes() for name in names}
    assert was["page.json"] == run.bytes("cold_check", "page.json")
    assert was["page.json"] != run.bytes("gate", "page.json")
    (run.folder / "page.html").unlink()
    (run.folder / "page.json").write_text("old")
    gate(copy, run.run_id)  # as a retry does it
    assert {name: (run.folder / name).read_bytes() for name in names} == was
    assert not list(run.folder.glob(".page*"))
