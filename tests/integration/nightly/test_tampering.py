"""Files of a workspace that were changed between two steps or two nights."""

import io
import json
import shutil

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.steps.feedback.foldin import foldin
from pipeline.steps.nightly.cold_check import cold_check
from pipeline.steps.nightly.gate import gate
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.publish import publish
from pipeline.steps.nightly.recommend import recommend
from pipeline.steps.nightly.refit import refit
from pipeline.steps.nightly.register import register
from pipeline.stores.ledger import Ledger
from pipeline.workspace.release_artifacts import ColdCheckFile
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.tampered import replace_file
from tests.worlds import NIGHTS, copy_of


@pytest.fixture(scope="module")
def third_lists(third_decided, tmp_path_factory):
    """The third night just before it publishes."""
    home, run_id, _ = third_decided
    copied = copy_of(home, tmp_path_factory.mktemp("lists") / "home")
    for step in (refit, cold_check, register, recommend):
        step(Workspace.open(copied), run_id)
    return copied, run_id


@pytest.fixture
def unpublished(third_lists, tmp_path):
    return Workspace.open(copy_of(third_lists[0], tmp_path / "home")), third_lists[1]


def flip(path):
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def reversed_factors(run):
    with np.load(run.folder / "refit" / "scorer.npz") as file:
        arrays = dict(file)
    arrays["item_factors"] = arrays["item_factors"][::-1].copy()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    replace_file(run, "refit", "scorer.npz", buffer.getvalue())


def another_item(run):
    lists = run.frame("recommend", "lists").with_columns(
        pl.when(pl.col(c.POSITION) == 1).then(pl.lit("EVIL")).otherwise(c.ITEM_ID).alias(c.ITEM_ID)
    )
    buffer = io.BytesIO()
    lists.write_parquet(buffer)
    replace_file(run, "recommend", "lists.parquet", buffer.getvalue())


def another_recipe(run):
    decision = json.loads(run.bytes("gate", "decision.json"))
    decision["recipe"] = "popularity"
    replace_file(run, "gate", "decision.json", json.dumps(decision).encode())


def another_check(run):
    check = run.read(ColdCheckFile)
    changed = check.model_copy(update={"canaries": check.canaries + 1})
    replace_file(run, "cold_check", f"{ColdCheckFile.FILE}.json", changed.to_bytes())


def shorter_lists(run):
    snapshot = json.loads(run.bytes("snapshot", "snapshot.json"))
    snapshot["config"]["recommend"]["length"] = 3
    replace_file(run, "snapshot", "snapshot.json", json.dumps(snapshot).encode())


@pytest.mark.parametrize(
    "change",
    [reversed_factors, another_item, another_recipe, another_check, shorter_lists],
    ids=lambda f: f.__name__,
)
def test_a_step_that_differs_from_the_ledger_is_not_published(unpublished, change):
    ws, run_id = unpublished
    before = ws.lake.read("publications")
    change(ws.run(run_id))
    with raises("ledger.step_differs"):
        publish(ws, run_id)
    assert ws.lake.read("publications").equals(before)


@pytest.mark.parametrize(
    ("step", "name", "reader"),
    [("refit", "scorer.npz", recommend), ("recommend", "lists.parquet", publish)],
)
def test_a_changed_file_of_a_run_is_not_read(unpublished, step, name, reader):
    ws, run_id = unpublished
    run = ws.run(run_id)
    if reader is recommend:
        shutil.rmtree(run.folder / "recommend")
    flip(run.folder / step / name)
    with raises("run.checksum"):
        reader(ws, run_id)


def test_a_changed_byte_of_the_ledger_stops_a_night(third):
    path = third.home / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"NDCG", b"NDCH", 1))
    before = sorted((third.home / "runs").iterdir())
    with raises("ledger.chain_broken"):
        nightly(third, NIGHTS[2])
    assert sorted((third.home / "runs").iterdir()) == before


def test_an_emptied_ledger_stops_the_next_night(decided):
    ws, run_id = decided
    (ws.home / "ledger.jsonl").write_bytes(b"")
    shutil.rmtree(ws.run(run_id).folder / "gate")
    with raises("ledger.behind"):
        gate(Workspace.open(ws.home), run_id)


def test_a_change_of_the_config_between_two_steps_does_not_count(decided):
    ws, run_id = decided
    toml = ws.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace("factors = 8", "factors = 3"))
    changed = Workspace.open(ws.home)
    assert changed.config.recipes["als"].factors == 3
    refit(changed, run_id)
    assert ws.run(run_id).arrays("refit", "scorer")["item_factors"].shape[1] == 8


def test_a_ledger_without_the_step_is_an_error(unpublished):
    ws, run_id = unpublished
    path = ws.home / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with raises("ledger.step_missing"):
        publish(ws, run_id)


def test_items_outside_the_run_are_not_published(unpublished):
    """Lists and ledger were both written anew, with a chain that holds."""
    ws, run_id = unpublished
    before, run, path = ws.lake.read("publications"), ws.run(run_id), ws.home / "ledger.jsonl"
    another_item(run)
    entries = ws.ledger.entries()
    path.unlink()
    for entry in entries:
        if entry["key"] == f"step:{run_id}:recommend":
            entry["output_sha256"] = run.ref("recommend").sha256
        fields = {
            name: entry[name] for name in entry.keys() - {"key", "type", "previous", "sha256"}
        }
        Ledger(path).append(entry["key"], entry["type"], fields)
    with raises("publish.unknown_items"):
        publish(ws, run_id)
    assert ws.lake.read("publications").equals(before)


def test_a_patch_is_not_made_by_an_altered_scorer(third_landed, tmp_path):
    ws = Workspace.open(copy_of(third_landed, tmp_path / "home"))
    live = ws.lake.read("publications").sort(c.GENERATION).row(-1, named=True)
    before = ws.lake.read("publications")
    reversed_factors(ws.run(live[c.RUN_ID]))
    with raises("ledger.step_differs"):
        foldin(ws, NIGHTS[2])
    assert ws.lake.read("publications").equals(before)
