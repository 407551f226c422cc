"""Events that the lake has lost come back from the archive, as their first ingest wrote them.

What can go wrong: a row comes back twice, under another pseudonym, batch or instant; a duplicate
takes the place of the first event; rows of a batch whose file is gone are lost at exit 0; a file
under a wrong name is read; settings that changed since give other rows.
"""

import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest import read_file
from pipeline.steps.maintenance.gc import gc
from pipeline.steps.maintenance.repair_batches import repair_batches
from pipeline.stores.lake import Lake
from pipeline.stores.vault import Vault
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, state, workspace
from tests.raising import raises

FILES = {
    "orders-0.csv": orders("a0,anna,bread,1,2024-03-01", "a1,bert,milk,2,2024-03-02"),
    "orders-1.csv": orders(
        "a0,anna,bread,1,2024-03-01", "a2,anna,milk,1,2024-03-01", "x,anna,milk,x,2024-03-01"
    ),
    "orders-2.csv": orders("a1,bert,wine,9,2024-03-02", ",cora,wine,1,2024-03-02"),
    "orders-3.csv": orders("a4,bert,wine,9,2024-03-03", ",cora,wine,1,2024-03-03"),
}


def ingested(home, config):
    ws = workspace(home, config)
    for day, (name, text) in enumerate(FILES.items()):
        land(ws, name, text)
        feedback(ws, AT + timedelta(days=day))
    return ws


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return ingested(tmp_path_factory.mktemp("original") / "ws", CONFIG).home


@pytest.fixture
def ws(original, tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    return Workspace.open(shutil.copytree(original, tmp_path / "ws"))


def ids_of(*numbers):
    texts = list(FILES.values())
    return [hashlib.sha256(texts[number].encode()).hexdigest() for number in numbers]


def data_files(ws):
    """Data files of the newest version, oldest first."""
    paths = [ws.home / "lake" / "events" / file for file in Lake(ws.home / "lake").files("events")]
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def rows(ws):
    return Workspace.open(ws.home).lake.read("events").sort(c.EVENT_ID).rows()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("damage", [flip, lambda p: p.unlink(), lambda p: p.write_bytes(b"")])
def test_a_damaged_file_is_replaced(ws, number, damage):
    before, whole = rows(ws), state(ws)
    path = data_files(ws)[number]
    damage(path)
    with raises("lake.file_altered", "lake.file_lost"):
        Lake(ws.home / "lake").verify("events")
    result = repair_batches(ws, ())
    assert result.files == (path.relative_to(ws.home / "lake" / "events").as_posix(),)
    assert sum(result.batches.values()) == (2 if number == 4 else 1)
    assert rows(ws) == before
    again = Workspace.open(ws.home)
    assert state(again) == whole
    again.lake.verify("events")
    assert repair_batches(ws, ()).days == ()
    land(again, "orders-0-again.csv", FILES["orders-0.csv"])
    land(again, "orders-9.csv", orders("a9,anna,bread,1,2024-03-01", "a0,anna,bread,1,2024-03-01"))
    assert feedback(again, AT + timedelta(days=9)).accepted == 1


def test_all_files_lost_after_a_merge(ws):
    before = rows(ws)
    gc(ws, AT)
    for path in data_files(ws):
        path.unlink()
    result = repair_batches(ws, ())
    assert dict(result.batches) == dict(zip(ids_of(0, 1, 2, 3), (2, 1, 1, 2), strict=True))
    assert rows(ws) == before


def test_lost_rows_of_one_batch_come_back(ws):
    before = rows(ws)
    [lost] = ids_of(1)
    kept = ws.lake.read("events").filter(pl.col(c.BATCH_ID) != lost)
    ws.lake.replace("events", kept)
    assert len(rows(ws)) == len(before) - 1
    result = repair_batches(ws, [lost])
    assert (dict(result.batches), result.files) == ({lost: 1}, ())
    assert rows(ws) == before


def test_a_batch_without_its_file_is_named_and_nothing_is_written(ws, tmp_path):
    [path] = (ws.home / "archive").glob(f"{ids_of(0)[0]}*")
    for file in data_files(ws):
        file.unlink()
    version = Lake(ws.home / "lake").version("events")
    shutil.move(path, tmp_path / path.name)
    with raises("repair.archive_missing") as error:
        repair_batches(ws, ())
    assert ids_of(0)[0] in str(error.value)
    assert ids_of(1)[0] not in str(error.value)
    path.write_text("line,customer,sku,n,ordered,note\n")  # other bytes under its name
    with raises("repair.archive_missing"):
        repair_batches(ws, ())
    assert Lake(ws.home / "lake").version("events") == version
    shutil.copy(tmp_path / path.name, path)
    assert len(repair_batches(ws, ()).batches) == 4


def test_too_few_batches_for_a_damaged_file_are_refused(ws):
    gc(ws, AT)
    for path in data_files(ws):
        flip(path)
    with raises("repair.others_lost") as error:
        repair_batches(ws, ids_of(0, 1))
    assert ids_of(2)[0] in str(error.value)
    assert len(repair_batches(ws, ids_of(0, 1, 2, 3)).batches) == 4


def test_an_unknown_batch(ws):
    with raises("repair.unknown_batch"):
        repair_batches(ws, ["0" * 64])


def test_other_settings_give_other_rows_and_are_refused(ws):
    before = (ws.home / "nightjar.toml").read_text()
    data_files(ws)[0].unlink()
    text = before.replace('kind = "purchase"', 'kind = "gift"')
    (ws.home / "nightjar.toml").write_text(text)
    with raises("repair.rows_differ"):
        repair_batches(Workspace.open(ws.home), ())
    (ws.home / "nightjar.toml").write_text(before)
    repair_batches(Workspace.open(ws.home), ())


def test_users_that_the_vault_does_not_have_are_refused(ws):
    data_files(ws)[0].unlink()
    with closing(sqlite3.connect(ws.vault_file)) as vault, vault:
        vault.execute("DELETE FROM people")
    with raises("vault.behind"):
        repair_batches(ws, ())
    Vault(ws.vault_file, ws.vault_key).pseudonyms(["dora", "emil", "fred"])
    with raises("repair.users_unknown"):
        repair_batches(ws, ())


def test_derived_event_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    ws = ingested(tmp_path / "ws", f"{CONFIG}\n[privacy]\nderive_event_ids = true\n")
    before = rows(ws)
    for path in data_files(ws):
        path.unlink()
    repair_batches(ws, ())
    assert rows(ws) == before


def test_a_sound_lake_is_not_changed(ws):
    version = ws.lake.version("events")
    assert repair_batches(ws, ()).batches == {}
    assert repair_batches(ws, ids_of(0)).batches == {}
    assert ws.lake.version("events") == version


def test_an_ingest_in_progress_is_not_disturbed(ws):
    with ws.lake.lock("ingest"), raises("lock.held"):
        repair_batches(ws, ())


def test_a_killed_repair_is_completed(ws, monkeypatch):
    before, real, deaths = rows(ws), os.fsync, 0
    for path in data_files(ws)[:3]:
        path.unlink()
    while deaths < 100:
        calls = iter(range(1000))

        def dying(handle):
            if next(calls) == deaths:  # noqa: B023
                raise KeyboardInterrupt
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", dying)
            try:
                repair_batches(ws, ())
            except KeyboardInterrupt:
                deaths += 1
                continue
        break
    assert deaths > 1
    assert rows(ws) == before
    assert not list((ws.home / "scratch").glob("*"))


def test_the_reader_is_a_child_process(original, tmp_path):
    ws = Workspace.open(shutil.copytree(original, tmp_path / "ws"))
    before = rows(ws)
    data_files(ws)[0].unlink()
    assert read_file.parse is not None
    repair_batches(ws, ())
    assert rows(ws) == before
