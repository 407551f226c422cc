"""The features of a night: cleaning, and the task that is inferred."""

import os

from pipeline import columns as c
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.nightly.validate import validate
from pipeline.workspace.artifacts import CleanFile, SplitFile
from pipeline.workspace.release_artifacts import MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import mlflow_metrics
from tests.worlds import CONFIG, NIGHTS, land, purchases


def test_cleaning_is_done_and_counted(workspace, tmp_path):
    home = tmp_path / "cleaned"
    policies = (
        '[clean.items.price]\nmissing = "median"\noutliers = "clip"\nmaximum = 100.0\n'
        '[clean.users.segment]\nmissing = "constant"\nconstant = "unknown"\n'
    )
    ws = workspace(home, CONFIG + policies)
    land(home, purchases(), NIGHTS[0])
    items = home / "landing" / "items" / "items.csv"
    items.write_text("item_id,price\ni1,10\ni2,\ni3,5000\n")
    users = home / "landing" / "users" / "users.csv"
    users.write_text("user_id,segment\nu1,student\nu2,\n")
    for path in (items, users):
        os.utime(path, (NIGHTS[0].timestamp() - 9, NIGHTS[0].timestamp() - 9))
    assert not feedback(ws, NIGHTS[0]).failed
    run = ws.run(snapshot(ws, NIGHTS[0]).run_id)
    validate(ws, run.run_id)
    features(ws, run.run_id)
    prices = run.frame("features", "items").sort(c.ITEM_ID)[c.PRICE].to_list()
    assert prices == [10.0, 55.0, 100.0]
    cleaning = run.read(CleanFile)
    assert cleaning.items.columns[0].filled == cleaning.items.columns[0].above == 1
    assert cleaning.users.columns[0].filled == 1


def test_cleaning_of_every_table_is_in_mlflow(shop):
    home, first, _ = shop
    ws = Workspace.open(home)
    run = ws.run(first.run_id)
    logged = mlflow_metrics(ws, run.read(MlflowFile).run)
    assert logged["drift/clean.events.rows_in"] > 5000
    assert logged["drift/clean.items.rows_out"] == run.read(CleanFile).items.rows_out == 160


def test_the_task_is_inferred_once(third):
    """`auto` keeps the task of the champion."""
    toml = third.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('task = "discovery"', 'task = "auto"'))
    ws = Workspace.open(third.home)
    run_id = snapshot(ws, NIGHTS[2]).run_id
    validate(ws, run_id)
    features(ws, run_id)
    assert ws.run(run_id).read(SplitFile).task == "discovery"
