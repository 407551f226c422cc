from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, History, build_history
from pipeline.errors import RegistryError
from pipeline.models.als import Als
from pipeline.models.contract import Scorer
from pipeline.models.topk import top_k
from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import registry_errors, relocate_artifact_uris
from pipeline.stores.registry.records import (
    ChildRecord,
    DatasetRecord,
    Mirrored,
    ModelRecord,
    NightRecord,
)
from tests.raising import raises

AS_OF = datetime(2017, 12, 1, 9, tzinfo=UTC)
BEGAN = datetime(2026, 11, 30, 3, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
N_USERS, N_ITEMS = 40, 30


@dataclass(frozen=True)
class Trained:
    history: History
    scorer: Scorer
    files: tuple[Path, ...]
    sums: dict[str, str]
    fallback: list[tuple[str, float]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    random = np.random.default_rng(3)
    user = np.repeat(np.arange(N_USERS), 8)
    item = (user * 3 + random.integers(0, 12, len(user))) % N_ITEMS
    events = pl.DataFrame(
        {
            c.USER_ID: [f"u{value:02d}" for value in user],
            c.ITEM_ID: [f"i{value:02d}" for value in item],
            c.TIMESTAMP: pl.Series(
                [AS_OF - timedelta(hours=int(h)) for h in random.integers(1, 900, len(user))]
            ).cast(c.INSTANT),
            WEIGHT: pl.Series([1.0] * len(user), dtype=pl.Float32),
        }
    )
    history = build_history(events, AS_OF)
    scorer = Als(factors=4, iterations=3).train(history)
    fallback = [("i07", 3.0), ("i02", 2.0), ("i11", 1.0)]
    folder = tmp_path_factory.mktemp("refit")
    np.savez(folder / "scorer.npz", **scorer.arrays())
    np.savez(folder / "history.npz", **history.arrays())
    np.savez(folder / "described.npz", **history.take(np.zeros(0, np.int64)).arrays())
    meta = {
        "family": "als",
        "exclude_seen": True,
        "fallback": [{c.ITEM_ID: item, c.SCORE: score} for item, score in fallback],
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    names = ("scorer.npz", "history.npz", "described.npz", "meta.json")
    files = tuple(folder / name for name in names)
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return Trained(history, scorer, files, sums, fallback)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A path with a space, made once: the tables take seconds.
    home = tmp_path_factory.mktemp("work space")
    (home / "nightjar.toml").write_text("")
    (home / "decision.json").write_text('{"kind": "first"}')
    (home / "shot.png").write_bytes(b"\x89PNG")
    registry_at(home).prepare()
    return home


@pytest.fixture
def registry(home: Path) -> Registry:
    return registry_at(home)


@pytest.fixture(scope="module")
def shown(home: Path, trained: Trained) -> tuple[Mirrored, Mirrored]:
    registry = registry_at(home)
    one, two = (registry.mirror_night(night_of(home, trained, name)) for name in ("one", "two"))
    return one, two


def folder_of(home: Path, version: int | None) -> Path:
    source = client_of(uri_of(home)).get_model_version_download_uri("nightjar", str(version))
    return Path(urllib.request.url2pathname(source.removeprefix("file://")))


def uri_of(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def registry_at(home: Path) -> Registry:
    return Registry(uri_of(home), "nights", "nightjar", columns=["4 ndcg_at_20"])


def night_of(home: Path, trained: Trained, run_id: str, at: datetime = AS_OF) -> NightRecord:
    def child(name: str, level: float) -> ChildRecord:
        return ChildRecord(
            recipe=name,
            params={"factors": 4, "device": None},
            metrics={"4 ndcg_at_20": level, "cost/fit_seconds": 1.5, "undefined": float("nan")},
            artifacts={"figures/slices.png": home / "shot.png", "bounds.json": b"{}"},
        )

    return NightRecord(
        run_id=run_id,
        as_of=at,
        sentence="first: als leads popularity by +40 %",
        children=(
            child("als", 0.12),
            child("popularity", 0.08),
            ChildRecord(recipe="broken", failure="broken: it needs a repeat task"),
        ),
        datasets=(
            DatasetRecord("events", 12, f"events@12-{run_id}", 320, "training"),
            DatasetRecord("items", 3, "items@3", 30, "catalogue"),
            DatasetRecord("holdout", 12, f"holdout@12-{run_id}", 40, "evaluation"),
        ),
        params={"holdout_days": 7},
        metrics={"judged": 1200.0},
        tags={"nightjar.decision": "first"},
        artifacts={
            "decision.json": home / "decision.json",
            "report/night.json": home / "decision.json",
        },
        winner="als",
        figure="+40.0 %",
        began=BEGAN,
        ended=BEGAN + timedelta(minutes=7),
        model=ModelRecord(
            trained.files, "+40.0 % over popularity", "first: als leads", {"Page": "page.html"}
        ),
    )


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def runs_of(uri: str, run_id: str) -> dict[str, Any]:
    client = client_of(uri)
    experiment = client.get_experiment_by_name("nights").experiment_id
    mirrored = client.search_runs([experiment], f"tags.`nightjar.run_id` = '{run_id}'")
    names = Counter(run.data.tags["nightjar.recipe"] for run in mirrored)
    assert set(names.values()) <= {1}, names
    return {run.data.tags["nightjar.recipe"]: run for run in mirrored}


def versions_of(uri: str, run_id: str) -> list[Any]:
    return list(
        client_of(uri).search_model_versions(
            f"name = 'nightjar' and tags.`nightjar.run_id` = '{run_id}'"
        )
    )


def assert_whole(uri: str, night: NightRecord) -> None:
    client = client_of(uri)
    runs = runs_of(uri, night.run_id)
    assert set(runs) == {"(night)", "als", "popularity", "broken"}
    parent = runs.pop("(night)")
    assert parent.data.params == {"holdout_days": "7"}
    assert parent.data.metrics == {"judged": 1200.0}
    assert parent.info.run_name == f"{night.as_of:%Y-%m-%d} first +40.0 %"
    assert runs["als"].info.run_name == f"{parent.info.run_name} (als)"
    assert runs["popularity"].info.run_name == f"{night.as_of:%Y-%m-%d} popularity"
    assert parent.data.tags["mlflow.note.content"] == night.sentence
    for name, run in runs.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == ("FAILED" if name == "broken" else "FINISHED")
        times = run.info.start_time, run.info.end_time
        assert times == tuple(round(at.timestamp() * 1000) for at in (night.began, night.ended))
    for name in ("als", "popularity"):
        assert set(runs[name].data.metrics) == {"4 ndcg_at_20", "cost/fit_seconds"}
        assert len(client.get_metric_history(runs[name].info.run_id, "4 ndcg_at_20")) == 1
        read = {i.dataset.name: i.dataset for i in runs[name].inputs.dataset_inputs}
        assert json.loads(read["events"].source)["delta_table_version"] == 12
        assert json.loads(read["events"].profile)["num_rows"] == 320
        figures = client.list_artifacts(runs[name].info.run_id, "figures")
        assert [file.path for file in figures] == ["figures/slices.png"]
    notes = {name: run.data.tags.get("mlflow.note.content") for name, run in runs.items()}
    assert notes == {
        "als": night.sentence,
        "popularity": None,
        "broken": "broken: it needs a repeat task",
    }
    assert parent.info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "decision.json",
        "report",
    }
    assert (
        "Alias champion is the live version" in client.get_registered_model("nightjar").description
    )
    (version,) = versions_of(uri, night.run_id)
    assert version.run_id == runs["als"].info.run_id
    page = f"#/experiments/{parent.info.experiment_id}/runs/{version.run_id}/artifacts/page.html"
    page += "?workflowType=machine_learning"
    assert version.description == f"+40.0 % over popularity.\n\n[Page]({page})\n\nfirst: als leads"
    assert version.tags == {
        "nightjar.run_id": night.run_id,
        "nightjar.recipe": "als",
        "nightjar.decision": "first",
    }
    assert len(runs["als"].outputs.model_outputs) == 1
    logged = client.get_logged_model(runs["als"].outputs.model_outputs[0].model_id)
    assert str(logged.status) == "READY"
    measured_on = {metric.key: metric.dataset_name for metric in logged.metrics}
    assert measured_on == {"4 ndcg_at_20": "holdout", "cost/fit_seconds": None}


def test_a_night_is_shown_once_however_often_it_is_mirrored(
    registry: Registry, home: Path, trained: Trained, shown: tuple[Mirrored, Mirrored]
) -> None:
    night = night_of(home, trained, "one")
    assert_whole(uri_of(home), night)
    for _ in range(2):
        assert registry.mirror_night(night) == shown[0]
    assert_whole(uri_of(home), night)


def test_a_night_without_a_winner_makes_no_version(
    registry: Registry, home: Path, trained: Trained
) -> None:
    night = replace(night_of(home, trained, "kept"), winner=None, model=None)
    mirrored = registry.mirror_night(night)
    assert mirrored.version is None
    assert set(runs_of(uri_of(home), "kept")) == {"(night)", "als", "popularity", "broken"}
    assert versions_of(uri_of(home), "kept") == []
    assert registry.mirror_night(night) == mirrored


def test_a_night_that_a_person_decided_otherwise_is_marked(
    registry: Registry, home: Path, trained: Trained
) -> None:
    accepted = night_of(home, trained, "accepted")
    kept = replace(
        accepted, winner=None, model=None, sentence="keep", tags={"nightjar.decision": "keep"}
    )
    registry.mirror_night(kept)
    parent = runs_of(uri_of(home), "accepted")["(night)"]
    assert parent.info.run_name == "2017-12-01 keep +40.0 %"
    registry.mirror_night(accepted)
    assert_whole(uri_of(home), accepted)


@pytest.mark.parametrize("recipe", ["popularity", "als", "(night)"])
def test_a_run_that_a_user_deleted_is_restored(
    registry: Registry, home: Path, trained: Trained, recipe: str
) -> None:
    night = night_of(home, trained, f"deleted-{recipe.strip('()')}")
    mirrored = registry.mirror_night(night)
    deleted = runs_of(uri_of(home), night.run_id)[recipe].info.run_id
    client_of(uri_of(home)).delete_run(deleted)
    registry.add_metrics(night.run_id, {"attribution/users": 3.0}, at=AS_OF, step=0)
    assert registry.mirror_night(night) == mirrored
    assert runs_of(uri_of(home), night.run_id)[recipe].info.run_id == deleted
    assert recipe == "als" or registry.versions()[mirrored.version] == night.run_id
    registry.add_metrics(night.run_id, {"attribution/users": 3.0}, at=AS_OF, step=0)
    owner = runs_of(uri_of(home), night.run_id)["als"]
    assert owner.data.metrics["attribution/users"] == 3.0


def test_pages_reach_the_versions_that_mlflow_has(
    registry: Registry, home: Path, trained: Trained
) -> None:
    client = client_of(uri_of(home))
    one, two = (registry.mirror_night(night_of(home, trained, f"page-{n}")) for n in (1, 2))
    client.delete_model_version("nightjar", str(two.version))
    with raises("registry.version_missing") as caught:
        registry.add_page(["page-1", "page-2"], "compare.html", b"page")
    assert "page-2" in caught.value.sentence and "page-1" not in caught.value.sentence
    owner = client.get_model_version("nightjar", str(one.version)).run_id
    assert [f.path for f in client.list_artifacts(owner, "comparisons")] == [
        "comparisons/compare.html"
    ]


class Killed(BaseException):
    pass


@contextmanager
def killed_at(call: int, *, after: bool) -> Iterator[list[str]]:
    """Count the calls of MLflow's client; the one of this number kills, before or after it acts."""
    from mlflow import MlflowClient

    made: list[str] = []
    acting = [False]  # a nested call of the client is not counted
    with pytest.MonkeyPatch.context() as patch:
        for name in dir(MlflowClient):
            method = getattr(MlflowClient, name)
            if name.startswith("_") or not callable(method):
                continue

            def counted(*args: Any, _name: str = name, _method: Any = method, **kwargs: Any) -> Any:
                if acting[0]:
                    return _method(*args, **kwargs)
                made.append(_name)
                if len(made) == call and not after:
                    raise Killed(_name)
                acting[0] = True
                try:
                    answer = _method(*args, **kwargs)
                finally:
                    acting[0] = False
                if len(made) == call:
                    raise Killed(_name)
                return answer

            patch.setattr(MlflowClient, name, counted)
        yield made


def calls_of_a_night(home: Path, trained: Trained, run_id: str) -> list[str]:
    with killed_at(0, after=False) as made:
        registry_at(home).mirror_night(night_of(home, trained, run_id))
    return made


def assert_survives(night: NightRecord, home: Path, call: int, *, after: bool) -> None:
    with killed_at(call, after=after), pytest.raises(Killed):
        registry_at(home).mirror_night(night)
    registry_at(home).mirror_night(night)
    assert_whole(uri_of(home), night)


def test_killed_after_a_call_that_is_not_idempotent(home: Path, trained: Trained) -> None:
    made = calls_of_a_night(home, trained, "calm")
    once = ("create_run", "create_logged_model", "log_outputs", "create_model_version")
    assert set(once) <= set(made)
    for name in once:
        night = night_of(home, trained, f"after-{name}")
        assert_survives(night, home, made.index(name) + 1, after=True)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_call_and_mirrored_again(home: Path, trained: Trained, after: bool) -> None:
    made = calls_of_a_night(home, trained, f"calm-{after}")
    assert len(made) > 30
    for call in range(1, len(made) + 1):
        night = night_of(home, trained, f"killed-{call}-{after}")
        assert_survives(night, home, call, after=after)


def test_verify_compares_the_stored_files(
    registry: Registry, home: Path, trained: Trained, shown: tuple[Mirrored, Mirrored]
) -> None:
    version = shown[1].version
    assert version is not None
    registry.verify(version, trained.sums)
    with raises("registry.file_missing"):
        registry.verify(version, {"nothing.npz": "00"})
    stored = folder_of(home, version) / "artifacts" / "scorer.npz"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:100] + b"!" + whole[101:])
    with pytest.raises(RegistryError, match=rf"version {version} .*scorer\.npz has sha256"):
        registry.verify(version, trained.sums)
    stored.write_bytes(whole)
    registry.verify(version, trained.sums)
    for name in trained.sums:  # as a power cut leaves files that were not forced to the disk
        (stored.parent / name).write_bytes(b"")
    with raises("registry.checksum"):
        registry.verify(version, trained.sums)
    registry.write_files(night_of(home, trained, "two"))
    registry.verify(version, trained.sums)
    assert_whole(uri_of(home), night_of(home, trained, "two"))


def test_files_are_forced_to_the_disk_before_the_version_and_the_end_of_the_run(
    registry: Registry, home: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    synced: set[Path] = set()
    fsync, states = os.fsync, {}

    def watched(handle: int) -> None:
        synced.add(Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    def noted(name: str) -> Any:
        original = getattr(MlflowClient, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            states[name] = set(synced)
            return original(*args, **kwargs)

        return call

    monkeypatch.setattr(os, "fsync", watched)
    for name in ("create_model_version", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, noted(name))
    mirrored = registry.mirror_night(night_of(home, trained, "synced"))
    monkeypatch.undo()

    model = folder_of(home, mirrored.version)
    files = [*model.rglob("*"), model]
    assert len(files) > 8
    above = model.parents[: model.parents.index(home / "mlflow") + 1]
    assert {*files, *above} <= states["create_model_version"]
    parent = client_of(uri_of(home)).get_run(mirrored.parent_run_id).info
    folder = Path(urllib.request.url2pathname(parent.artifact_uri.removeprefix("file://")))
    assert {*folder.rglob("*"), folder} <= states["set_terminated"]


def numbered(home: Path, trained: Trained, run_id: str, **fields: Any) -> NightRecord:
    return replace(night_of(home, trained, run_id), **fields)


def test_a_version_gets_the_number_of_the_ledger(home: Path, trained: Trained) -> None:
    """Numbers below it belong to versions whose runs are gone."""
    registry = Registry(uri_of(home), "numbers", "numbers")
    third = numbered(home, trained, "third", version=3, taken=frozenset({1}))
    assert registry.mirror_night(third).version == 3
    assert registry.versions() == {3: "third"}
    assert registry.mirror_night(third).version == 3
    # A new version never takes a number of the ledger, whatever MLflow has lost.
    new = numbered(home, trained, "new", taken=frozenset({3, 4, 6}))
    assert registry.mirror_night(new).version == 5
    next_one = numbered(home, trained, "next", taken=frozenset({3, 4, 5, 6}))
    assert registry.mirror_night(next_one).version == 7
    # MLflow never gives the number of a deleted version again.
    client_of(uri_of(home)).delete_model_version("numbers", "7")
    again = numbered(home, trained, "next", version=7, taken=frozenset({3, 5, 8}))
    assert registry.mirror_night(again).version == 9
    assert registry.versions() == {3: "third", 5: "new", 9: "next"}
    client_of(uri_of(home)).delete_registered_model("numbers")
    for night, number in ((third, 3), (new, 5), (again, 7)):
        known = replace(night, version=number)
        assert registry.mirror_night(known).version == number
    assert registry.versions() == {3: "third", 5: "new", 7: "next"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_while_the_number_is_not_yet_right(
    home: Path, trained: Trained, after: bool
) -> None:
    name = f"killed-{after}"
    registry = Registry(uri_of(home), name, name)
    night = numbered(home, trained, "second", version=2, taken=frozenset({1}))
    with killed_at(0, after=False) as made:
        Registry(uri_of(home), f"calm-{name}", f"calm-{name}").mirror_night(night)
    call = made.index("delete_model_version") + 1
    with killed_at(call, after=after), pytest.raises(Killed):
        registry.mirror_night(night)
    assert registry.mirror_night(night).version == 2
    assert registry.versions() == {2: "second"}


def test_a_registry_that_gives_a_number_again_is_an_error(
    home: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    registry = Registry(uri_of(home), "stuck", "stuck")
    registry.mirror_night(numbered(home, trained, "first"))
    version = client_of(uri_of(home)).get_model_version("stuck", "1")
    monkeypatch.setattr(MlflowClient, "delete_model_version", lambda *_: None)
    monkeypatch.setattr(MlflowClient, "create_model_version", lambda *_, **__: version)
    with raises("registry.number_taken"):
        registry.mirror_night(numbered(home, trained, "stuck", taken=frozenset({1})))


def test_two_workspaces_do_not_share_an_experiment_or_a_model(home: Path) -> None:
    """Runs of both can have one id, and the aliases can follow one ledger only."""
    uri = uri_of(home)
    for _ in range(2):
        Registry(uri, "shared", "shared", "first").prepare()
    for names in (("shared", "own"), ("own", "shared"), ("shared", "shared")):
        with raises("registry.other_workspace"):
            Registry(uri, *names, "second").prepare()
    Registry(uri, "own", "own").prepare()  # before the first ingest
    Registry(uri, "own", "own", "second").prepare()
    with raises("registry.other_workspace"):
        Registry(uri, "own", "own", "first").prepare()


def test_a_version_whose_files_were_removed_has_none(home: Path, trained: Trained) -> None:
    registry = Registry(uri_of(home), "removed", "removed")
    night = night_of(home, trained, "removed")
    assert night.model is not None
    model = replace(night.model, files=())
    assert registry.mirror_night(replace(night, model=model)).version == 1
    client = client_of(uri_of(home))
    source = client.get_model_version_download_uri("removed", "1")
    assert not list(Path(urllib.request.url2pathname(source[7:])).glob("**/*.npz"))


def test_an_experiment_that_a_user_deleted_is_there_again(home: Path, trained: Trained) -> None:
    registry = Registry(uri_of(home), "deleted", "deleted")
    night, client = night_of(home, trained, "one-more"), client_of(uri_of(home))
    mirrored = registry.mirror_night(night)
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    registry.prepare()
    assert registry.mirror_night(night).version == mirrored.version
    assert client.get_experiment_by_name("deleted").lifecycle_stage == "active"
    # It has no workspace yet, and MLflow changes no tag of a deleted experiment.
    client.delete_experiment(client.get_experiment_by_name("deleted").experiment_id)
    Registry(uri_of(home), "deleted", "deleted", "own").prepare()
    assert client.get_experiment_by_name("deleted").tags["nightjar.workspace"] == "own"


def test_an_experiment_that_a_user_renamed_is_not_made_again(home: Path) -> None:
    client, uri = client_of(uri_of(home)), uri_of(home)
    Registry(uri, "joe's first", "model-1", "mine").prepare()
    renamed = client.get_experiment_by_name("joe's first").experiment_id
    client.rename_experiment(renamed, "second-name")
    with raises("registry.experiment_renamed") as caught:
        Registry(uri, "joe's first", "model-1", "mine").prepare()
    assert "registry.experiment = 'second-name'" in caught.value.sentence
    Registry(uri, "second-name", "model-1", "mine").prepare()
    # An experiment of the same name in another workspace has nothing to do with it.
    Registry(uri, "joe's first", "model-2", "other").prepare()


def test_a_model_that_a_user_renamed_is_not_made_again(home: Path, trained: Trained) -> None:
    client, uri = client_of(uri_of(home)), uri_of(home)
    registry = Registry(uri, "renamed", "before", "own")
    registry.prepare()
    registry.mirror_night(night_of(home, trained, "renamed"))
    client.rename_registered_model("before", "after")
    for action in (lambda at: at.prepare(), lambda at: at.add_page(["renamed"], "x.html", b"x")):
        with raises("registry.model_renamed") as caught:
            action(Registry(uri, "renamed", "before", "own"))
    assert "before" in caught.value.sentence and "'after'" in caught.value.sentence
    Registry(uri, "renamed", "after", "own").prepare()
    # A copy of the workspace with an experiment of its own may have a model of its own.
    Registry(uri, "copied", "copied", "own").prepare()


@contextmanager
def server_of_version(version: str) -> Iterator[str]:
    """Serve what the connection reads from an MLflow of a version; other requests hang."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/api"):
                return time.sleep(1.5)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"OK" if self.path == "/health" else version.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.parametrize("version", ["2.22.0", "4.0.0", "<html>"])
def test_a_server_of_another_main_version_is_refused(version: str) -> None:
    with server_of_version(version) as address, raises("registry.server_version") as caught:
        Registry(address, "nights", "nightjar").aliases()
    assert repr(version) in caught.value.sentence


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "ended"])
def test_a_server_that_goes_away_after_the_connection_is_named_as_that(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with server_of_version(installed("mlflow")) as address:
        registry = Registry(address, "nights", "nightjar")
        assert registry._client is not None
        if hangs:
            with raises("registry.unavailable"):
                registry.aliases()
    if not hangs:
        with raises("registry.unavailable") as caught:
            registry.add_page(["run"], "page.html", b"page")
        assert "run the same command again" in caught.value.sentence


def test_pages_are_those_for_models(registry: Registry, home: Path) -> None:
    experiment = client_of(uri_of(home)).get_experiment_by_name("nights")
    assert registry.pages() == (
        "#/models/nightjar?workflowType=machine_learning",
        f"#/experiments/{experiment.experiment_id}/runs?workflowType=machine_learning"
        "&viewStateShareKey=nightjar",
    )
    view = json.loads(experiment.tags["mlflow.sharedViewState.nightjar"])
    assert view["selectedColumns"] == ["metrics.`4 ndcg_at_20`"]
    assert "4 ndcg" in experiment.tags["mlflow.note.content"]
    described = client_of(uri_of(home)).get_registered_model("nightjar").description
    assert "`nightjar id USER`" in described


def test_runs_with_missing_or_empty_files_are_not_mirrored(home: Path, trained: Trained) -> None:
    registry = Registry(uri_of(home), "files", "files")
    night, names = night_of(home, trained, "files"), {"decision.json", "report/night.json"}
    mirrored = registry.mirror_night(night)
    assert registry.mirrored({"files": names}) == {"files"}
    info = client_of(uri_of(home)).get_run(mirrored.parent_run_id).info
    file = Path(urllib.request.url2pathname(info.artifact_uri[7:])) / "decision.json"
    for damage in (file.unlink, lambda: file.write_bytes(b"")):
        damage()
        assert registry.mirrored({"files": names}) == set()
        assert registry.mirror_night(night) == mirrored
        assert file.read_bytes() == (home / "decision.json").read_bytes()
    client_of(uri_of(home)).delete_run(mirrored.parent_run_id)
    assert registry.mirrored({"files": names}) == {"files"}  # a user wanted that


def database_of(home: Path, folder: Path) -> tuple[Path, str]:
    """Copy the database of a registry, to damage it."""
    file = folder / "mlflow" / "mlflow.db"
    file.parent.mkdir()
    file.write_bytes((home / "mlflow" / "mlflow.db").read_bytes())
    return file, f"sqlite:///{file}"


def test_a_damaged_database_is_named_with_the_way_back(home: Path, tmp_path: Path) -> None:
    file, uri = database_of(home, tmp_path)
    with file.open("r+b") as database:
        database.truncate(file.stat().st_size // 2)
    actions = (
        Registry(uri, "nights", "nightjar").prepare,
        Registry(uri, "nights", "nightjar").aliases,
        lambda: relocate_artifact_uris(file),
    )
    for action in actions:
        with raises("registry.database_damaged") as caught:
            action()
        assert str(file) in caught.value.sentence
        assert "nightjar register --all" in caught.value.sentence
    # Pages that SQLite reads later than the first ones.
    from sqlalchemy.exc import DatabaseError

    fault = DatabaseError("SELECT 1", None, sqlite3.DatabaseError("malformed"))
    with raises("registry.database_damaged"), registry_errors(uri):
        raise fault from fault.orig


def test_a_database_of_a_newer_mlflow_is_named_as_that(home: Path, tmp_path: Path) -> None:
    file, uri = database_of(home, tmp_path)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    for action in ("prepare", "aliases"):
        with raises("registry.database_newer") as caught:
            getattr(Registry(uri, "nights", "nightjar"), action)()
        assert "feedfacecafe" in caught.value.sentence


def test_the_name_of_each_migration_begins_with_its_schema() -> None:
    import mlflow

    folder = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    scripts = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(scripts) > 30
    for script in scripts:
        assert re.search(
            rf'^revision = "{script.name.partition("_")[0]}"', script.read_text(), re.M
        )


def test_aliases_follow_the_caller(registry: Registry, shown: tuple[Mirrored, Mirrored]) -> None:
    one, two = (int(mirrored.version or 0) for mirrored in shown)
    registry.move_aliases(one, None)
    assert registry.aliases() == {"champion": one}
    for _ in range(2):
        registry.move_aliases(two, one)
        assert registry.aliases() == {"champion": two, "previous": one}
    with raises("registry.failed"):
        registry.move_aliases(999, one)
    registry.move_aliases(one, None)
    assert registry.aliases() == {"champion": one}


def test_the_version_answers_with_the_lists_of_the_scorer(
    home: Path, trained: Trained, shown: tuple[Mirrored, Mirrored]
) -> None:
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(str(folder_of(home, shown[0].version)))
    history, scorer = trained.history, trained.scorer
    users = [*history.user_ids[::-1].tolist(), "stranger", history.user_ids[0]]
    answer = model.predict(pd.DataFrame({c.USER_ID: users}), params={"k": 2})
    direct = top_k(scorer.score(history), 2, exclude=history.seen)
    lists = {
        user: [
            (scorer.item_ids[direct.item[at]], direct.score[at])
            for at in range(direct.indptr[row], direct.indptr[row + 1])
        ]
        for row, user in enumerate(history.user_ids.tolist())
    }
    expected = [
        (user, position, item, np.float32(score), "model" if known else "fallback", known)
        for user in users
        for known in (user in lists,)
        for position, (item, score) in enumerate(lists.get(user, trained.fallback[:2]), start=1)
    ]
    assert len(expected) > 2 * N_USERS
    assert list(answer.itertuples(index=False, name=None)) == expected
    # Without k lists are as long as the published ones.
    assert len(model.predict(pd.DataFrame({c.USER_ID: ["stranger"]}))) == len(trained.fallback)


@pytest.mark.parametrize("k", [0, -1, 4, 10**12, "text"])
def test_a_length_that_no_list_has_is_an_invalid_value(
    home: Path, shown: tuple[Mirrored, Mirrored], k: object
) -> None:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.exceptions import MlflowException

    model = mlflow.pyfunc.load_model(str(folder_of(home, shown[0].version)))
    with pytest.raises(MlflowException) as caught:
        model.predict(pd.DataFrame({c.USER_ID: ["stranger"]}), params={"k": k})
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert len(caught.value.message.splitlines()) == 1


def test_a_version_is_code_and_arrays(home: Path, shown: tuple[Mirrored, Mirrored]) -> None:
    folder = folder_of(home, shown[0].version)
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert {"pyfunc_model.py", "MLmodel", "scorer.npz", "history.npz"} <= names
    assert {"described.npz", "meta.json"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
    example = json.loads((folder / "serving_input_example.json").read_text())
    assert example["dataframe_split"]["data"] == [[c.FALLBACK_USER]]
    required = (folder / "requirements.txt").read_text().split()
    assert any(line.startswith("mlflow==") for line in required)
    assert not any(line.startswith("nightjar") for line in required)


def test_the_pages_find_their_way(home: Path, shown: tuple[Mirrored, Mirrored]) -> None:
    one, _ = shown
    logged = runs_of(uri_of(home), "one")["als"].outputs.model_outputs[0].model_id
    noted = client_of(uri_of(home)).get_logged_model(logged).tags["mlflow.modelVersions"]
    assert json.loads(noted) == [{"name": "nightjar", "version": str(one.version)}]


def test_a_registry_that_is_away_is_an_error_within_seconds(tmp_path: Path) -> None:
    missing, text, empty = (tmp_path / name for name in ("no.db", "text.db", "empty.db"))
    text.write_text("this is no database, whatever its name may say")
    empty.write_bytes(b"")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
        port = taken.getsockname()[1]
        started = time.monotonic()
        for uri, words in (
            (f"sqlite:///{missing}", r"no\.db is missing or empty"),
            (f"sqlite:///{text}", r"text\.db is damaged: file is not a database"),
            (f"sqlite:///{empty}", r"empty\.db is missing or empty"),
            (f"http://user:secret@127.0.0.1:{port}", rf"MLflow at http://127\.0\.0\.1:{port} does"),
        ):
            with pytest.raises(RegistryError, match=words) as caught:
                Registry(uri, "nights", "nightjar").aliases()
            assert "secret" not in caught.value.sentence
            assert caught.value.exit_code == 6
        assert time.monotonic() - started < 10
    assert not missing.exists()


def test_a_registry_goes_away_in_the_middle(home: Path, trained: Trained) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    night = night_of(home, trained, "gone")
    with pytest.MonkeyPatch.context() as patch:

        def gone(*_: Any, **__: Any) -> None:
            raise MlflowException(f"no answer from {uri_of(home)}\nand a traceback")

        patch.setattr(MlflowClient, "log_model_artifacts", gone)
        with pytest.raises(RegistryError) as caught:
            registry_at(home).mirror_night(night)
    assert caught.value.id == "registry.failed"
    assert f"no answer from {uri_of(home)};" in caught.value.sentence
    assert "traceback" not in caught.value.sentence
    registry_at(home).mirror_night(night)
    assert_whole(uri_of(home), night)


@pytest.mark.slow  # SQLite waits 20 seconds
def test_a_reader_of_the_database_delays_a_night_and_loses_nothing(
    home: Path, trained: Trained
) -> None:
    night = night_of(home, trained, "delayed")
    database = f"file:{home}/mlflow/mlflow.db?mode=ro"
    reader = sqlite3.connect(database, uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM runs").fetchall()
    with pytest.raises(RegistryError) as caught:
        registry_at(home).mirror_night(night)
    assert caught.value.id == "registry.failed"
    reader.close()
    registry_at(home).mirror_night(night)
    assert_whole(uri_of(home), night)


def test_no_failure_reveals_the_password() -> None:
    from mlflow.exceptions import MlflowException

    uri = "https://user:secret@mlflow.example/"
    with pytest.raises(RegistryError) as caught, registry_errors(uri):
        raise MlflowException("API request to https://user:secret@mlflow.example/api failed")
    assert caught.value.id == "registry.failed"
    assert caught.value.sentence.count("https://mlflow.example/") == 2
    assert "secret" not in caught.value.sentence


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    folder.write_text("a file stands where the folder should be")
    with raises("registry.failed"):
        Registry(f"sqlite:///{folder}/mlflow.db", "nights", "nightjar").prepare()
    if os.geteuid() == 0:
        return  # root may write anywhere
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(RegistryError, match="cannot write"):
        Registry(f"sqlite:///{locked}/mlflow.db", "nights", "nightjar").prepare()


@pytest.mark.parametrize("uri", ["postgresql://u:secret@h/db", "sqlite:///", "./mlruns", "http://"])
def test_only_sqlite_and_servers_are_registries(uri: str) -> None:
    with raises("registry.invalid_uri") as caught:
        Registry(uri, "nights", "nightjar")
    assert "secret" not in caught.value.sentence


def test_a_night_must_make_sense(home: Path, trained: Trained) -> None:
    night = night_of(home, trained, "senseless")
    with pytest.raises(ValueError, match="different names"):
        replace(night, children=(*night.children, night.children[0]))
    with pytest.raises(ValueError, match="given together"):
        replace(night, winner=None)
    with pytest.raises(ValueError, match="is not one of"):
        replace(night, winner="stranger")


def test_importing_the_client_does_not_import_mlflow() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pipeline.stores.registry.client; print('mlflow' in sys.modules)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "False"


def free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def process(
    command: list[str], environment: dict[str, str], cwd: Path, health: str
) -> Iterator[None]:
    with (cwd / "server.log").open("wb") as log:
        # A session of its own, so that its workers end with it.
        started = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=cwd, start_new_session=True
        )
    try:
        for _ in range(240):
            if started.poll() is not None:
                break
            try:
                urllib.request.urlopen(health, timeout=2).close()
                break
            except OSError:
                time.sleep(0.25)
        assert started.poll() is None, (cwd / "server.log").read_text()
        yield
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGTERM)
            started.wait(timeout=30)


@contextmanager
def server(home: Path) -> Iterator[str]:
    """Run mlflow/serve as `make ui` does, on a free port of this machine."""
    port = free_port()
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")},
        "MLFLOW_PORT": str(port),
        "NIGHTJAR_PYTHON": sys.executable,
    }
    address = f"http://127.0.0.1:{port}"
    command = [str(ROOT / "mlflow" / "serve"), str(home)]
    with process(command, environment, home, f"{address}/health"):
        yield address


def ask(address: str, path: str, query: dict[str, Any] | None = None) -> Any:
    body = None if query is None else json.dumps(query).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{path}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.servers
def test_nights_go_up_to_a_real_server(tmp_path: Path, home: Path, trained: Trained) -> None:
    place = tmp_path / "a place"
    place.mkdir()
    (place / "nightjar.toml").write_text("")
    nights = [
        night_of(home, trained, run_id, AS_OF + timedelta(days=14 * n))
        for n, run_id in enumerate(("over-http-1", "over-http-2"))
    ]
    with server(place) as address:
        registry = Registry(address, "nights", "nightjar")
        registry.prepare()
        mirrored = [registry.mirror_night(night) for night in nights]
        for night, shown_night in zip(nights, mirrored, strict=True):
            assert_whole(address, night)
            assert shown_night.version is not None
            registry.verify(shown_night.version, trained.sums)
            assert registry.mirror_night(night) == shown_night
        registry.move_aliases(2, 1)
        assert registry.aliases() == {"champion": 2, "previous": 1}
        versions = ask(address, "model-versions/search?max_results=10")["model_versions"]
        runs = [ask(address, f"runs/get?run_id={v['run_id']}")["run"] for v in versions]
        names = [{metric["key"] for metric in run["data"]["metrics"]} for run in runs]
        assert names == [{"4 ndcg_at_20", "cost/fit_seconds"}] * 2
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"<html" in page.read()
        assert (place / "mlflow" / "mlflow.db").exists()
        assert any((place / "mlflow" / "artifacts").rglob("scorer.npz"))
    for away in (registry, Registry(address, "nights", "nightjar")):
        with raises("registry.unavailable"):
            away.mirror_night(nights[0])


@pytest.mark.servers
def test_the_server_shows_the_output_of_the_steps(home: Path, trained: Trained) -> None:
    registry_at(home).mirror_night(night_of(home, trained, "shown"))
    with server(home) as address:
        run_id = runs_of(uri_of(home), "shown")["als"].info.run_id
        listed = ask(address, f"artifacts/list?run_id={run_id}&path=figures")
        assert [file["path"] for file in listed["files"]] == ["figures/slices.png"]
        picture = f"{address}/get-artifact?run_uuid={run_id}&path=figures%2Fslices.png"
        with urllib.request.urlopen(picture, timeout=30) as answer:
            assert answer.read() == (home / "shot.png").read_bytes()
        # A person at the page and a night at work write into the same database.
        registry_at(home).mirror_night(night_of(home, trained, "shown-too"))
        assert_whole(uri_of(home), night_of(home, trained, "shown-too"))
        elsewhere = urllib.request.Request(
            f"{address}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example:5000"}
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(elsewhere, timeout=30)


@pytest.mark.servers
def test_mlflow_serves_the_champion(
    registry: Registry, home: Path, trained: Trained, shown: tuple[Mirrored, Mirrored]
) -> None:
    registry.move_aliases(int(shown[0].version or 0), None)
    port = free_port()
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": uri_of(home),
        "PYTHONPATH": str(ROOT),
        # MLflow starts `uvicorn` by name, as after `source .venv/bin/activate`.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    asked = ["--model-uri", "models:/nightjar@champion", "--env-manager", "local"]
    user = str(trained.history.user_ids[5])
    body = {"dataframe_split": {"columns": [c.USER_ID], "data": [[user], [c.FALLBACK_USER]]}}
    with process(
        [sys.executable, "-m", "mlflow", "models", "serve", *asked, "--port", str(port)],
        environment,
        home,
        f"http://127.0.0.1:{port}/ping",
    ):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({**body, "params": {"k": 3}}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            rows = json.load(answer)["predictions"]
    history, scorer = trained.history, trained.scorer
    direct = top_k(scorer.score(history), 3, exclude=history.seen)
    assert [(row[c.USER_ID], row[c.ITEM_ID]) for row in rows] == [
        *((user, scorer.item_ids[item]) for item in direct.of(5)),
        *((c.FALLBACK_USER, item) for item, _ in trained.fallback),
    ]
