"""The mirror of a night in MLflow: pages, aliases, and a server that is away."""

import pytest

from pipeline.errors import RegistryError
from pipeline.steps.lists import history
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.reporting.page_files import page_files
from pipeline.workspace.registry import registry
from pipeline.workspace.release_artifacts import ChurnFile, MlflowFile
from pipeline.workspace.workspace import Workspace
from tests.integration.nightly.contents import mlflow_client, page_of
from tests.worlds import NIGHTS


def test_a_night_has_one_page_with_its_churn(shop):
    home, first, second = shop
    ws = Workspace.open(home)
    last = page_files(ws.run(second.run_id))
    assert {path.parent.name for name, path in last.items() if ".svg" in name} == {"cold_check"}
    for ended in (first, second):
        folder = ws.run(ended.run_id).folder
        assert [path.parent for path in folder.rglob("page.html")] == [folder]
    assert {"page.html", "page.json", "churn.svg", "live.svg", "metric.svg"} <= set(last)
    page = page_of(ws.run(second.run_id))
    assert [(row.as_of, row.kind) for row in page.past] == [
        (NIGHTS[0], "first"),
        (NIGHTS[1], second.decision),
    ]
    assert all(row.mean and row.lift > 0 for row in page.past)
    churn = ws.run(second.run_id).read(ChurnFile)
    assert page.churn == ((NIGHTS[1], churn),)
    assert {as_of for as_of, _ in page.live} == {NIGHTS[1]}
    assert "mad" in {row.recipe for row in page.decision.e_processes}
    assert {row.name for row in page.slices} >= {"cold", "warm", "hot"}
    assert {"als", "als (refit)", "popularity"} <= set(page.costs)
    html = last["page.html"].decode()
    assert html.count("<svg ") == sum(name.endswith(".svg") for name in last)
    assert "List stability" in html
    client, parent = mlflow_client(ws), ws.run(second.run_id).read(MlflowFile).run
    names = {file.path.rpartition("/")[2] for file in client.list_artifacts(parent)}
    assert set(last) <= names
    # The first one replaced no lists, and its page has the seconds of the refit all the same.
    only = page_files(ws.run(first.run_id))
    assert {path.parent.name for name, path in only.items() if ".svg" in name} == {"cold_check"}


def test_aliases_follow_the_live_version(shop):
    assert registry(Workspace.open(shop[0])).aliases() == {"champion": 2, "previous": 1}


def test_mlflow_away_loses_nothing(decided):
    ws, _ = decided
    away = ws.home / "mlflow"
    away.rename(ws.home / "elsewhere")
    away.write_text("in the way")
    with pytest.raises(RegistryError):
        nightly(ws, NIGHTS[2])
    assert [entry.type for entry in history(ws)][-3:] == ["decision", "step", "step"]  # no lists
    away.unlink()
    (ws.home / "elsewhere").rename(away)
    ended = nightly(ws, NIGHTS[2])
    assert (ended.status, ended.decision, ended.model_version) == ("done", "refresh", "3")
    assert registry(ws).aliases() == {"champion": 3, "previous": 2}
