"""The publication of a night: lists, ledger, and runs that must not publish."""

import json
import shutil

import polars as pl

from pipeline import columns as c
from pipeline.base import format_instant, plain
from pipeline.steps.diagnostics.live_quality import live_history
from pipeline.steps.doctor import examine
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import REFIT, LiveFile
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import outcome
from tests.raising import raises
from tests.worlds import NIGHTS, land, purchases


def test_lists_are_complete_without_sold_out_items_and_in_raw_ids(shop):
    ws = Workspace.open(shop[0])
    rows = lists(ws, None)
    own = rows.filter(pl.col(c.USER_ID) != c.FALLBACK_USER)
    assert own[c.USER_ID].n_unique() == 320
    assert own.group_by(c.USER_ID).len()["len"].unique().to_list() == [20]
    assert own[c.USER_ID].str.starts_with("u").all()
    sold_out = {f"i{n}" for n in range(9, 160, 10)}
    assert not set(rows[c.ITEM_ID]) & sold_out
    bought = purchases().filter(pl.col("timestamp") < format_instant(NIGHTS[1]))
    had = set(bought.select("user_id", "item_id").rows())
    assert not had & set(own.select(c.USER_ID, c.ITEM_ID).rows())


def test_an_unknown_user_is_an_error_and_a_star_is_the_fallback_list(shop):
    ws = Workspace.open(shop[0])
    rows = lists(ws, ["u1", "*"])
    slots = dict(rows.select(c.USER_ID, c.SLOT).unique().rows())
    assert slots == {"u1": "model", "*": "fallback"}
    with raises("lists.unknown_user") as caught:
        lists(ws, ["u1", *(f"never-seen-{n}" for n in range(7))])
    assert "never-seen-4 and 2 more" in caught.value.sentence


def test_the_ledger_has_both_nights(shop):
    entries = history(Workspace.open(shop[0]))
    assert [(e.type, getattr(e, "kind", None)) for e in entries] == [
        ("decision", "first"),
        *[("step", None)] * 3,  # refit, cold check and lists
        ("publication", None),
        ("patch", None),  # what was done since was folded in before the second night
        ("decision", "refresh"),
        *[("step", None)] * 3,
        ("publication", None),
    ]
    text = json.dumps(plain(entries))
    vault = Workspace.open(shop[0]).vault.lookup(["u1", "u2"])
    assert not any(pseudonym in text for pseudonym in vault.values())


def test_a_replay_moves_nothing(copy, shop):
    before, scored = outcome(copy), live_history(copy)
    replayed = nightly(copy, NIGHTS[1], recipes=["als"])
    assert (replayed.status, replayed.decision) == ("replay", "refresh")
    publications, shown, entries, _ = outcome(copy)
    assert publications.equals(before[0])
    assert shown.equals(before[1])
    assert entries == before[2]
    assert registry(copy).aliases() == {"champion": 2, "previous": 1}
    assert copy.run(replayed.run_id).read(LiveFile).events == scored[0].events
    assert live_history(copy) == scored


def test_new_events_are_those_after_the_last_night(copy):
    result = feedback(copy, NIGHTS[1])
    assert result.reason.startswith("no retrain: 0 new events")
    land(copy.home, purchases(), NIGHTS[2], NIGHTS[1])
    result = feedback(copy, NIGHTS[2])
    assert f"{result.events:,} new events" in result.reason
    assert result.events > 1000


def test_doctor_reports_a_live_model_that_cannot_be_read(copy, shop):
    def live_model():
        (check,) = (check for check in examine(copy.home) if check.name == "live model")
        return check.ok

    assert live_model()
    name = next(iter(copy.run(shop[2].run_id).manifest(REFIT)["files"]))
    path = copy.run(shop[2].run_id).folder / REFIT / name
    path.write_bytes(b"x" + path.read_bytes())
    assert not live_model()
    shutil.rmtree(copy.run(shop[2].run_id).folder)
    assert not live_model()
