"""A whole night: recipes that are left out, causes of churn, and no publication."""

import os

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.steps.diagnostics.foldin_parity import parity_metrics
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.artifacts import FollowedParityFile
from pipeline.workspace.release_artifacts import ChurnFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import outcome, page_of
from tests.worlds import NIGHTS, copy_of


@pytest.fixture(scope="module")
def third_night(third_landed, tmp_path_factory):
    """A whole third night that does not publish, after nine items sold out; memory is short.

    Returns the workspace, the result, the lines of progress, and the outcome before it.
    """
    ws = Workspace.open(copy_of(third_landed, tmp_path_factory.mktemp("third") / "home"))
    toml = ws.home / "nightjar.toml"
    wide = '[recipes.wide]\nfamily = "als"\nfactors = 1024\ntune = ["alpha"]\n'
    toml.write_text(toml.read_text() + wide + "[train]\nmemory_gb = 0.004\n")
    shown = lists(ws, None)[c.ITEM_ID].value_counts(sort=True)[c.ITEM_ID].to_list()[:9]
    path = ws.home / "landing" / "items" / "sold-out.csv"
    gone = {"item_id": shown, "title": shown, "available": ["false"] * 9}
    pl.DataFrame(gone).write_csv(path)
    os.utime(path, (NIGHTS[1].timestamp(), NIGHTS[1].timestamp()))
    ws = Workspace.open(ws.home)
    assert not feedback(ws, NIGHTS[2]).failed
    progress, before = [], outcome(ws)
    return ws, nightly(ws, NIGHTS[2], publish=False, progress=progress.append), progress, before


def test_a_night_that_must_not_publish_publishes_nothing(third_night):
    ws, ended, _, before = third_night
    assert ended.decision == "refresh"
    publications, shown, *_ = outcome(ws)
    assert publications.equals(before[0])
    assert shown.equals(before[1])


def test_items_that_sold_out_are_a_cause_of_churn(third_night):
    ws, ended, *_ = third_night
    assert ended.decision == "refresh"
    assert ws.run(ended.run_id).read(ChurnFile).at[10].lost["stock"] > 0.01


def test_folded_in_lists_are_followed_beside_those_of_the_refit(third_night):
    """Both are scored on the events since: lists of the second refit, and those folded in."""
    ws, ended, *_ = third_night
    run = ws.run(ended.run_id)
    since = run.read(FollowedParityFile)
    published = [entry.run_id for entry in history(ws) if entry.type == "publication"]
    assert (since.run_id, since.k) == (published[1], 20)
    rows = [since.folded, since.retrained]
    assert [row.users for row in rows] == [rows[0].users] * 2
    assert all(row.users > 100 and 0.02 < row.ndcg < 1 for row in rows)
    assert rows[0].ndcg != rows[1].ndcg
    named = parity_metrics(run)
    assert named["foldin.ndcg_at_20"] == rows[0].ndcg
    assert named["foldin.retrained.ndcg_at_20"] == rows[1].ndcg
    assert [(as_of, followed) for as_of, _, followed in page_of(run).parity] == [
        (NIGHTS[1], since),
        (NIGHTS[2], None),
    ]


def test_a_recipe_that_memory_cannot_hold_is_left_out(third_night):
    _, ended, progress, _ = third_night
    # Nor are its alphas tried.
    assert not [text for text in progress if text.startswith("train wide")]
    assert [text for text in progress if text.startswith("train als")]
    assert ended.decision == "refresh"
    assert set(ended.failures) == {"wide"}
    assert ended.failures["wide"].startswith("wide: training needs about ")
    assert "the limit is 4.1 MB (train.memory_gb)" in ended.failures["wide"]
    assert "wide" not in ended.cost
