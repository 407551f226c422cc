"""Each line of `docs/RECOVERY.md`: damage gives its error, and its commands bring back the rows.

A case damages a copy of a workspace (two nights, a pass with a patch, `gc`, one landed file),
runs a command that ends with the error of the line, runs the commands of the line, and runs the
command again. A feedback pass must then give the rows and lists of a workspace without damage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.errors import (
    ConcurrencyError,
    LakeError,
    NightjarError,
    RegistryError,
    StorageError,
)
from pipeline.serving.publish import live
from pipeline.steps.feedback import foldin
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.ingest import ingest, landing
from pipeline.steps.lists import lists
from pipeline.steps.maintenance import repair_batches
from pipeline.steps.maintenance.gc import gc
from pipeline.steps.maintenance.register_all import register_all
from pipeline.steps.nightly.publish import _refuse_unknown_items
from pipeline.stores.batches import FILES, Batches
from pipeline.stores.lake import Lake
from pipeline.stores.ledger import Ledger
from pipeline.stores.registry import client
from pipeline.stores.registry.client import Registry
from pipeline.stores.registry.connection import create
from pipeline.stores.runs import Run
from pipeline.stores.studies.files import StudyFiles
from pipeline.stores.studies.store import Studies
from pipeline.stores.vault import Vault, make_key, verify_vault
from pipeline.workspace.child_process import Child
from pipeline.workspace.experiment_artifacts import StudyFile
from pipeline.workspace.ledger import RepairEntry, entries_of, line_of
from pipeline.workspace.night import Night
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace
from tests.commands import Outcome, outcome
from tests.dying import Died
from tests.entries import ALS, KEY
from tests.foreign import exchange_run, exchange_table
from tests.worlds import NIGHTS, START, copy_of, forget_mlflow, forget_places

PAGE = Path(__file__).parents[2] / "docs" / "RECOVERY.md"
AT = format_instant(NIGHTS[2])
FEEDBACK = f"nightjar feedback --at {AT}"
BY = "--by anna --reason disk"
_ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \|(.*)\|$", re.MULTILINE)


def page_rows() -> list[tuple[str, int, tuple[str, ...]]]:
    """Return each line of the page: id, number among the lines of this id, commands."""
    rows, count = [], dict[str, int]()
    text = PAGE.read_text("utf-8").partition("## Nothing is lost")[0]
    for id, cells in _ROW.findall(text):
        commands = tuple(re.findall(r"`([^`]+)`", cells.split("|")[-1]))
        rows.append((id, count.setdefault(id, 0), commands))
        count[id] += 1
    return rows


def section(name: str) -> list[str]:
    """Return the ids of a section."""
    text = PAGE.read_text("utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([a-z_.]+)` \|", text, re.MULTILINE)


@dataclass
class World:
    """A workspace that is damaged, a backup of it, and an older copy."""

    home: Path
    backup: Path
    older: Path
    run: str = ""
    undo: list[Callable[[], object]] = field(default_factory=list)

    @property
    def live_run(self) -> str:
        row = live(Lake(self.home / "lake").read("publications"))
        assert row is not None
        return str(row[c.RUN_ID])

    def put_older(self, *names: str) -> None:
        """Replace folders and files by those before the last pass."""
        for name in names:
            source, target = self.older / name, self.home / name
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)

    def execute(self, command: str) -> Outcome:
        """Run a command of the page."""
        if command.startswith("nightjar "):
            if "register" in command:
                forget_mlflow()
            return outcome(self.home, *shlex.split(command)[1:])
        places = {
            "NIGHTJAR_HOME": str(self.home),
            "W": str(self.home),
            "B": str(self.backup),
            "RUN": self.run,
        }
        done = subprocess.run(
            ["sh", "-euc", command],
            env={**os.environ, **places},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, "", done.stderr)

    def attempt(self, command: str | Callable[[World], object]) -> Outcome:
        """Run a command, or call what a command calls."""
        if isinstance(command, str):
            return self.execute(command)
        try:
            command(self)
        except NightjarError as error:
            return Outcome(error.exit_code, error.id, "")
        return Outcome(0, "", "")

    def patch(self, owner: Any, name: str, value: Any) -> None:
        patch = mock.patch.object(owner, name, value)
        patch.start()
        self.undo.append(patch.stop)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def events_file(w: World) -> Path:
    return next((w.home / "lake/events/event_day=2024-01-20").glob("*.parquet"))


def items_file(w: World) -> Path:
    lake = Lake(w.home / "lake")
    return w.home / "lake/items" / min(lake.files("items"))


def checkpoint(w: World) -> Path:
    return next((w.home / "lake/events/_delta_log").glob("*.checkpoint.parquet"))


def sums(w: World, table: str = "events") -> Path:
    return w.home / "lake/_sums" / f"{table}.jsonl"


def last_log(w: World, table: str = "events") -> Path:
    return max((w.home / f"lake/{table}/_delta_log").glob("*.json"))


def ledger_lines(w: World) -> list[bytes]:
    return (w.home / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def write_ledger(w: World, lines: list[bytes]) -> None:
    (w.home / "ledger.jsonl").write_bytes(b"".join(lines))


def change_step(w: World, step: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of a step of the live run; its own checksum is right again."""
    w.run = w.live_run
    path = w.home / "runs" / w.run / step / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    change(manifest)
    total = hashlib.sha256(json.dumps(manifest, sort_keys=True, indent=1).encode()).hexdigest()
    text = json.dumps({**manifest, "sha256": total}, sort_keys=True, indent=1)
    path.write_text(text)


def change_file(w: World, step: str, name: str, data: bytes) -> None:
    """Change a file of a step of the live run, and its checksum."""
    total = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    change_step(w, step, lambda manifest: manifest["files"].update({name: total}))
    (w.home / "runs" / w.run / step / name).write_bytes(data)


def run_file(w: World, name: str) -> Path:
    w.run = w.live_run
    return w.home / "runs" / w.run / name


def execute_sql(w: World, *statements: str) -> None:
    with closing(sqlite3.connect(w.home / "vault.db")) as vault, vault:
        for statement in statements:
            vault.execute(statement)


def exchanged_lookup(w: World) -> None:
    """Change a byte of a key, so that the table is not in order any more."""
    path = w.home / "vault.db"
    with closing(sqlite3.connect(path)) as vault:
        [lookup] = vault.execute("SELECT max(lookup) FROM people").fetchone()
    path.write_bytes(path.read_bytes().replace(lookup, b"\0" + lookup[1:]))


def other_users(w: World) -> None:
    execute_sql(w, "DELETE FROM people")
    ws = Workspace.open(w.home)
    Vault(ws.vault_file, ws.vault_key).pseudonyms([f"other-{n}" for n in range(400)])


def other_vault(w: World) -> None:
    """Replace the vault by another one with the same key and as many users."""
    ws = Workspace.open(w.home)
    users = len(ws.vault)
    ws.vault_file.unlink()
    vault = Vault(ws.vault_file, ws.vault_key, create=True)
    vault.pseudonyms([f"other-{n}" for n in range(users)])


def other_key(w: World) -> None:
    key = w.home / "secrets/vault.key"
    key.unlink()
    make_key(key)


def altered_lists(w: World) -> None:
    lake = Lake(w.home / "lake")
    row = live(lake.read("publications"))
    assert row is not None
    name = row[c.PUBLICATION_ID]
    rows = lake.read("recommendations", partitions=pl.col(c.PUBLICATION_ID) == name)
    lake.replace_where("recommendations", rows.head(-1), name)


def spool_left(w: World) -> None:
    with mock.patch.object(Batches, "_unspool", raising(Died())), pytest.raises(Died):
        w.execute(FEEDBACK)
    [path] = (w.home / "lake/_spool").glob("*/events.*.parquet")
    path.write_bytes(path.read_bytes()[:9])


def without_archive(w: World) -> None:
    events_file(w).unlink()
    for path in (w.home / "archive").iterdir():
        path.unlink()


def other_settings(w: World) -> None:
    events_file(w).unlink()
    path = w.home / "nightjar.toml"
    path.write_text(path.read_text().replace('kind = "purchase"', 'kind = "bought"'))


def two_batches_lost(w: World) -> str:
    lake = Lake(w.home / "lake")
    paths = [next((w.home / f"lake/events/event_day={d}").iterdir()) for d in DAYS]
    ids = [pl.read_parquet(path)[c.BATCH_ID][0] for path in paths]
    assert len(set(ids)) == 2
    for path in paths:
        path.unlink()
    assert lake
    return str(ids[0])


DAYS = ("2024-01-20", "2024-03-20")


def other_ledger(w: World) -> None:
    lines = [json.loads(line) for line in ledger_lines(w)]
    Ledger(w.home / "ledger.jsonl").rewrite([{**lines[0], "sentence": "another"}, *lines[1:]])


def ledger_without_a_step(w: World) -> None:
    ledger = Ledger(w.home / "ledger.jsonl")
    repair = RepairEntry(
        key="repair:ledger:x",
        as_of=NIGHTS[2],
        store="ledger",
        by="anna",
        reason="disk",
        sentence="written again",
        accepted_generation=99,
    )
    kept = [line_of(e) for e in entries_of(ledger) if e.key != f"step:{w.live_run}:refit"]
    ledger.rewrite([*kept, line_of(repair)])


def foreign_run(w: World) -> None:
    """Put a decided run of another workspace beside those of this one."""
    w.run = "20240101T000000Z-aaaaaaaa"
    shutil.copytree(w.home / "runs" / w.live_run, w.home / "runs" / w.run)
    exchange_run(Run(w.home / "runs", w.run))


def study_file(w: World, name: str) -> Path:
    return w.home / "studies/s" / name


def read_studies(w: World) -> None:
    with Studies(w.home / "studies") as studies:
        studies.facts()


def garbage_studies(w: World) -> None:
    read_studies(w)
    (w.home / "studies/studies.db").write_bytes(b"garbage" * 1000)


def aliases(w: World) -> None:
    forget_mlflow()
    registry(Workspace.open(w.home)).aliases()


def newer_mlflow(w: World) -> None:
    with closing(sqlite3.connect(w.home / "mlflow/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")


def other_mlflow(w: World) -> None:
    registry(Workspace.open(w.home)).prepare()
    w.patch(Lake, "id", "another")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def model_file(w: World) -> Path:
    return max((w.home / "mlflow/artifacts").rglob("scorer.npz"))


def broken_model_store(w: World, damage: Callable[[Path], object]) -> None:
    for path in (w.home / "mlflow/artifacts").rglob("scorer.npz"):
        damage(path)
    w.patch(Registry, "write_files", lambda *_: None)


class PanicException(BaseException):
    """Stands for the panic of a Rust library."""


def raising(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def altered_commit(w: World) -> None:
    """Alter a file of the last commit, whose checksums are lost; its size stays."""
    lake = Lake(w.home / "lake")
    lake.append("items", lake.read("items").head(1))
    sums(w, "items").write_bytes(b"".join(sums(w, "items").read_bytes().splitlines(True)[:-1]))
    path = max((w.home / "lake/items").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    path.write_bytes(path.read_bytes().replace(b"Item", b"Atom"))


def unknown_items(w: World) -> None:
    ws = Workspace.open(w.home)
    night = Night.read(ws, ws.run(w.live_run))
    _refuse_unknown_items(night, night.run.frame("recommend", "lists"))


def altered_run_lists(w: World) -> None:
    path = run_file(w, "recommend/lists.parquet")
    frame = pl.read_parquet(path).with_columns(pl.lit("unknown").alias(c.ITEM_ID))
    frame.write_parquet(path)
    change_file(w, "recommend", "lists.parquet", path.read_bytes())


def snapshot_of_another_version(w: World) -> None:
    path = run_file(w, "snapshot/snapshot.json")
    fields = {**json.loads(path.read_bytes()), "unknown": 1}
    change_file(w, "snapshot", "snapshot.json", json.dumps(fields).encode())


def first_run_gone(w: World) -> None:
    w.run = min(path.name for path in (w.home / "runs").iterdir())
    shutil.rmtree(w.home / "runs" / w.run)


def link(path: Path) -> None:
    path.rmdir()
    path.symlink_to(path.parent / "events")


def key_link(w: World) -> None:
    key = w.home / "secrets/vault.key"
    key.rename(w.home / "secrets/other")
    key.symlink_to(w.home / "secrets/other")


def no_items(w: World) -> None:
    shutil.rmtree(w.home / "lake/items")
    sums(w, "items").unlink()


def read_version(w: World, table: str) -> None:
    Lake(w.home / "lake").read(table, version=0)


def cut_without_sums(w: World) -> None:
    sums(w).unlink()
    halve(events_file(w))


def register_all_here(w: World) -> None:
    """Fill MLflow again as the command does."""
    forget_mlflow()
    register_all(Workspace.open(w.home))


REPAIR_SUMS = f"nightjar repair sums {BY}"
REPAIR_LEDGER = f"nightjar repair ledger {BY}"
Damage = Callable[[World], object]
CASES: dict[tuple[str, int], tuple[Damage, str | Callable[[World], object]]] = {
    ("lake.file_altered", 0): (lambda w: flip(events_file(w)), FEEDBACK),
    ("lake.file_altered", 1): (lambda w: flip(checkpoint(w)), FEEDBACK),
    ("lake.file_altered", 2): (lambda w: flip(items_file(w)), FEEDBACK),
    ("lake.file_lost", 0): (lambda w: events_file(w).unlink(), FEEDBACK),
    ("lake.file_lost", 1): (lambda w: checkpoint(w).unlink(), FEEDBACK),
    ("lake.file_lost", 2): (lambda w: items_file(w).unlink(), FEEDBACK),
    ("lake.table_behind", 0): (
        lambda w: w.put_older("lake/events", "lake/_sums/events.jsonl"),
        FEEDBACK,
    ),
    ("lake.table_behind", 1): (no_items, FEEDBACK),
    ("lake.batches_behind", 0): (
        lambda w: w.put_older("lake/batches", "lake/_sums/batches.jsonl"),
        FEEDBACK,
    ),
    ("lake.number_taken", 0): (
        lambda w: w.patch(Batches, "commit", raising(LakeError("lake.number_taken", ""))),
        FEEDBACK,
    ),
    ("lake.other_table", 0): (lambda w: exchange_table(w.home, "events"), FEEDBACK),
    ("lake.other_copy", 0): (
        lambda w: (lake := Lake(w.home / "lake")).append(
            "events", lake.empty("events"), numbers={FILES: 1}
        ),
        FEEDBACK,
    ),
    ("lake.publications_behind", 0): (
        lambda w: w.put_older("lake/publications", "lake/_sums/publications.jsonl"),
        FEEDBACK,
    ),
    ("lake.sums_lost", 0): (lambda w: sums(w).unlink(), FEEDBACK),
    ("lake.commit_altered", 0): (altered_commit, FEEDBACK),
    ("lake.file_unsummed", 0): (
        lambda w: sums(w).write_bytes(b"".join(sums(w).read_bytes().splitlines(True)[-1:])),
        FEEDBACK,
    ),
    ("lake.checksums_damaged", 0): (
        lambda w: sums(w).write_bytes(b"\xff" + sums(w).read_bytes()[1:]),
        FEEDBACK,
    ),
    ("lake.checksums_not_a_file", 0): (
        lambda w: (sums(w).unlink(), sums(w).mkdir()),
        FEEDBACK,
    ),
    ("lake.log_lost", 0): (lambda w: last_log(w).unlink(), FEEDBACK),
    ("lake.log_cut", 0): (lambda w: last_log(w).write_bytes(b""), FEEDBACK),
    ("lake.log_incomplete", 0): (
        lambda w: (checkpoint(w).unlink(), halve(min(last_log(w).parent.glob("*.json")))),
        "nightjar repair checkpoints",
    ),
    ("lake.file_cut", 0): (cut_without_sums, REPAIR_SUMS),
    ("lake.file_broken", 0): (
        lambda w: w.patch(pl.LazyFrame, "collect", raising(PanicException("damaged"))),
        FEEDBACK,
    ),
    ("lake.lost", 0): (lambda w: shutil.rmtree(w.home / "lake"), FEEDBACK),
    ("lake.no_version", 0): (no_items, lambda w: read_version(w, "items")),
    ("lake.version_vacuumed", 0): (
        lambda w: min(last_log(w).parent.glob("*.json")).unlink(),
        lambda w: read_version(w, "events"),
    ),
    ("lists.altered", 0): (altered_lists, "nightjar lists --all"),
    ("ingest.spool_damaged", 0): (spool_left, FEEDBACK),
    ("repair.archive_missing", 0): (without_archive, "nightjar repair batch"),
    ("repair.rows_differ", 0): (other_settings, "nightjar repair batch"),
    ("repair.users_unknown", 0): (
        lambda w: (other_users(w), events_file(w).unlink()),
        "nightjar repair batch",
    ),
    ("repair.others_lost", 0): (two_batches_lost, lambda w: repair_first(w)),
    ("ledger.damaged", 0): (
        lambda w: write_ledger(w, [b"\xff" + ledger_lines(w)[0][1:], *ledger_lines(w)[1:]]),
        FEEDBACK,
    ),
    ("ledger.chain_broken", 0): (
        lambda w: write_ledger(w, [*ledger_lines(w)[:1], *ledger_lines(w)[2:]]),
        FEEDBACK,
    ),
    ("ledger.behind", 0): (lambda w: write_ledger(w, ledger_lines(w)[:3]), FEEDBACK),
    ("ledger.other", 0): (other_ledger, FEEDBACK),
    ("ledger.step_missing", 0): (ledger_without_a_step, FEEDBACK),
    ("ledger.invalid_entry", 0): (
        lambda w: Ledger(w.home / "ledger.jsonl").append("x", "unknown", {"as_of": AT}),
        FEEDBACK,
    ),
    ("ledger.step_differs", 0): (
        lambda w: change_step(w, "refit", lambda manifest: manifest.update(rows=1)),
        FEEDBACK,
    ),
    ("run.checksum", 0): (lambda w: flip(run_file(w, "refit/scorer.npz")), FEEDBACK),
    ("run.manifest_damaged", 0): (
        lambda w: halve(run_file(w, "snapshot/manifest.json")),
        FEEDBACK,
    ),
    ("run.step_missing", 0): (
        lambda w: shutil.rmtree(run_file(w, "refit").parent),
        FEEDBACK,
    ),
    ("run.no_file", 0): (
        lambda w: change_step(w, "snapshot", lambda manifest: manifest["files"].clear()),
        FEEDBACK,
    ),
    ("artifact.invalid", 0): (snapshot_of_another_version, FEEDBACK),
    ("run.other_workspace", 0): (foreign_run, FEEDBACK),
    ("version.files_gone", 0): (first_run_gone, "nightjar reproduce 1"),
    ("publish.unknown_items", 0): (altered_run_lists, unknown_items),
    ("study.checksum", 0): (lambda w: flip(study_file(w, "study.json")), REPAIR_LEDGER),
    ("study.unreadable", 0): (lambda w: halve(study_file(w, "manifest.json")), REPAIR_LEDGER),
    ("study.no_result", 0): (lambda w: study_file(w, "manifest.json").unlink(), REPAIR_LEDGER),
    ("study.unusable", 0): (garbage_studies, read_studies),
    ("vault.behind", 0): (
        lambda w: execute_sql(w, "DELETE FROM people WHERE pseudonym LIKE '%a'"),
        FEEDBACK,
    ),
    ("vault.other", 0): (other_vault, FEEDBACK),
    ("vault.damaged", 0): (exchanged_lookup, lambda w: verify_vault(w.home / "vault.db")),
    ("vault.unusable", 0): (lambda w: halve(w.home / "vault.db"), FEEDBACK),
    ("vault.entry_altered", 0): (
        lambda w: execute_sql(w, "UPDATE people SET sealed = x'00'"),
        FEEDBACK,
    ),
    ("vault.pseudonym_missing", 0): (other_users, "nightjar lists --all"),
    ("vault.key_missing", 0): (lambda w: shutil.rmtree(w.home / "secrets"), FEEDBACK),
    ("vault.key_encoding", 0): (
        lambda w: (w.home / "secrets/vault.key").write_bytes(b"?"),
        FEEDBACK,
    ),
    ("vault.key_unreadable", 0): (key_link, FEEDBACK),
    ("vault.wrong_key", 0): (other_key, FEEDBACK),
    ("vault.key_permissions", 0): (
        lambda w: (w.home / "secrets/vault.key").chmod(0o644),
        FEEDBACK,
    ),
    ("registry.database_missing", 0): (lambda w: (w.home / "mlflow/mlflow.db").unlink(), aliases),
    ("registry.database_damaged", 0): (lambda w: halve(w.home / "mlflow/mlflow.db"), aliases),
    ("registry.database_newer", 0): (newer_mlflow, aliases),
    ("registry.number_taken", 0): (
        lambda w: w.patch(
            Registry, "mirror_night", raising(StorageError("registry.number_taken", ""))
        ),
        register_all_here,
    ),
    ("registry.other_workspace", 0): (other_mlflow, register_all_here),
    ("registry.model_renamed", 0): (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.model_renamed", ""))
        ),
        register_all_here,
    ),
    ("registry.experiment_deleted", 0): (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.experiment_deleted", ""))
        ),
        register_all_here,
    ),
    ("registry.experiment_renamed", 0): (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.experiment_renamed", ""))
        ),
        register_all_here,
    ),
    ("registry.version_missing", 0): (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.version_missing", ""))
        ),
        register_all_here,
    ),
    ("registry.checksum", 0): (
        lambda w: broken_model_store(w, flip),
        register_all_here,
    ),
    ("registry.file_missing", 0): (
        lambda w: broken_model_store(w, Path.unlink),
        register_all_here,
    ),
    ("workspace.not_found", 0): (lambda w: (w.home / "nightjar.toml").unlink(), FEEDBACK),
    ("ingest.folder_unreadable", 0): (lambda w: (w.home / "landing/items").rmdir(), FEEDBACK),
    ("ingest.link", 0): (lambda w: link(w.home / "landing/items"), FEEDBACK),
}
"""Damage of each line, and a command or a function that then raises the error of the line."""


def repair_first(w: World) -> None:
    """Repair the batch of the first of two lost files."""
    ws = Workspace.open(w.home)
    ids = ws.damaged_lake.read("batches").filter(pl.col(c.TABLE) == "events").sort(c.SEQ)
    repair_batches.repair_batches(ws, [ids[c.BATCH_ID][0]])


def content(home: Path) -> tuple[object, ...]:
    """Content that must be equal after a recovery: events, lists, publications, ledger."""
    forget_places()
    ws = Workspace.open(home)
    events = ws.lake.read("events").drop(c.BATCH_ID).sort(c.EVENT_ID, c.EVENT_DAY)
    publications = ws.lake.read("publications").sort(c.GENERATION)
    types = [entry.type for entry in entries_of(ws.ledger) if not isinstance(entry, RepairEntry)]
    # A file whose ingest begins anew has another number, and its patch another id.
    return (
        events.rows(),
        lists(ws, None).drop(c.PUBLICATION_ID).rows(),
        publications.select(c.GENERATION, c.RUN_ID, c.SUMS).rows(),
        sorted(types),
    )


@pytest.fixture(scope="module")
def backup(once, third_landed):
    """The workspace before any damage."""

    def make(home: Path) -> None:
        ws = Workspace.open(copy_of(third_landed, home))
        gc(ws, NIGHTS[2])
        file = StudyFile(
            study="s", as_of=NIGHTS[1], status="nothing_better", sentence="", name="als",
            windows=(), candidate=False, trials=(), importance={}, until=NIGHTS[0], task=KEY,
            versions={}, start_recipe=ALS,
        )  # fmt: skip
        StudyFiles(home / "studies", "s").write({"study.json": file.to_bytes()})
        day = format_instant(NIGHTS[2] - timedelta(hours=2))
        rows = [f"new-{user},u{user},i{user},1,{day}" for user in range(20)]
        path = home / "landing/events/new.csv"
        path.write_text("\n".join(["event_id,user_id,item_id,value,timestamp", *rows, ""]))
        os.utime(path, (START.timestamp(),) * 2)

    return once("recovery", make)[0]


@pytest.fixture(scope="module")
def undisturbed(backup, tmp_path_factory):
    home = copy_of(backup, tmp_path_factory.mktemp("undisturbed") / "home")
    assert outcome(home, *shlex.split(FEEDBACK)[1:]).code == 0
    return content(home)


class SharedChild(Child):
    """A reader that serves all tests of this file: its start takes longer than a pass."""

    shared: Child | None = None

    def __enter__(self) -> Child:
        if SharedChild.shared is None:
            SharedChild.shared = Child(max_memory_bytes=self._memory, max_seconds=self._seconds)
        return SharedChild.shared


@pytest.fixture(scope="module", autouse=True)
def reader():
    with (
        mock.patch.object(ingest, "Child", SharedChild),
        mock.patch.object(repair_batches, "Child", SharedChild),
    ):
        yield
    if SharedChild.shared is not None:
        SharedChild.shared.__exit__()
        SharedChild.shared = None


@pytest.fixture(scope="module", autouse=True)
def quick_tables(tables):
    """Copy MLflow's tables instead of making them, which takes seconds; for most of the cases."""

    def copied(uri: str, file: Path) -> object:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tables, file)
        return create(uri, file)

    with mock.patch.object(client, "create", copied):
        yield


@pytest.fixture
def world(backup, two_nights, tmp_path):
    w = World(copy_of(backup, tmp_path / "home"), backup, two_nights[0])
    yield w
    for undo in w.undo:
        undo()


def check_content(w: World, undisturbed: tuple[object, ...], done: object) -> None:
    """Compare with a workspace without damage, after a feedback pass unless one was `done`."""
    if done != FEEDBACK:
        ended = w.execute(FEEDBACK)
        assert (ended.code, ended.id) == (0, ""), ended
    for actual, expected in zip(content(w.home), undisturbed, strict=True):
        assert actual == expected
    Workspace.open(w.home).compare_stores()
    Workspace.open(w.home).lake.verify("events")


@pytest.mark.slow
@pytest.mark.parametrize(("id", "number", "commands"), page_rows())
def test_the_way_back_of_each_line(world, undisturbed, id, number, commands):
    damage, command = CASES[id, number]
    damage(world)
    failed = world.attempt(command)
    assert failed.id == id, failed
    for undo in world.undo:
        undo()
    world.undo.clear()
    for text in commands:
        done = world.execute(text)
        assert done.code == 0, (text, done)
    again = world.attempt(command)
    assert again.id == "" and again.code in (0, 4), again
    check_content(world, undisturbed, command)


def kill_a_writer(path: Path) -> None:
    """Leave the journal of a process that was killed in a transaction of SQLite."""
    code = f"""
import os, sqlite3
connection = sqlite3.connect({str(path)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
for number in range(3000):
    row = (os.urandom(32), f"u{{number}}", os.urandom(60))
    connection.execute("INSERT INTO people VALUES (?, ?, ?)", row)
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.with_name("vault.db-journal").stat().st_size > 0


@pytest.mark.slow
def test_the_journal_of_a_killed_process_does_not_change_a_restored_vault(world, undisturbed):
    other_vault(world)
    kill_a_writer(world.home / "vault.db")
    [commands] = [texts for id, _, texts in page_rows() if id == "vault.other"]
    for text in commands:
        assert world.execute(text).code == 0
    check_content(world, undisturbed, None)


def hold(w: World) -> None:
    lock = Lake(w.home / "lake").lock("ingest")
    lock.__enter__()
    w.undo.append(lambda: lock.__exit__(None, None, None))


def occupy(w: World, name: str) -> None:
    """Put a file in the place of a folder."""
    path, aside = w.home / name, w.home / "aside"
    if path.exists():
        path.rename(aside)
    path.write_bytes(b"")

    def undo() -> None:
        path.unlink()
        if aside.exists():
            aside.rename(path)

    w.undo.append(undo)


def fails(owner: Any, name: str, kind: type[NightjarError], id: str) -> tuple[Damage, str]:
    """Let a function fail that a feedback pass calls, at its first call."""
    return lambda w: w.patch(owner, name, raising(kind(id, ""))), FEEDBACK


def pass_over_files(w: World) -> None:
    """Run a feedback pass, and raise the problem of a file, which stops nothing else."""
    for file in feedback(Workspace.open(w.home), NIGHTS[2]).outcomes:
        if file.error_id:
            raise StorageError(file.error_id, file.sentence)


def own_vault(w: World) -> None:
    ws = Workspace.init(w.home / "new")
    if not w.undo:
        ws.create_vault()
    Vault(ws.vault_file, ws.vault_key)


def make_new_key(w: World, name: str) -> None:
    make_key(w.home / name)


HARMLESS: dict[str, tuple[Damage, str | Callable[[World], object]]] = {
    "ingest.overtaken": fails(Batches, "commit", ConcurrencyError, "ingest.overtaken"),
    "lake.conflict": fails(Lake, "append", ConcurrencyError, "lake.conflict"),
    "lake.unavailable": fails(Lake, "append", LakeError, "lake.unavailable"),
    "lock.held": (hold, FEEDBACK),
    "publish.base_replaced": fails(foldin, "stage", ConcurrencyError, "publish.base_replaced"),
    "publish.lists_damaged": fails(foldin, "verify_staged", LakeError, "publish.lists_damaged"),
    "publish.overtaken": fails(foldin, "go_live", ConcurrencyError, "publish.overtaken"),
    "publish.superseded": fails(foldin, "go_live", ConcurrencyError, "publish.superseded"),
    "registry.database_unusable": (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.database_unusable", ""))
        ),
        register_all_here,
    ),
    "registry.failed": (
        lambda w: w.patch(Registry, "prepare", raising(RegistryError("registry.failed", ""))),
        register_all_here,
    ),
    "registry.server_version": (
        lambda w: w.patch(
            Registry, "prepare", raising(RegistryError("registry.server_version", ""))
        ),
        register_all_here,
    ),
    "registry.unavailable": (
        lambda w: w.patch(Registry, "prepare", raising(RegistryError("registry.unavailable", ""))),
        register_all_here,
    ),
    "run.invalid_id": (
        lambda w: w.undo.append(bool),
        lambda w: Workspace.open(w.home).runs.open("../x" if w.undo else "x"),
    ),
    "run.step_committed": fails(Run, "draft", StorageError, "run.step_committed"),
    "storage.cannot_move": (
        lambda w: w.patch(
            landing, "_move", raising(StorageError("storage.cannot_move", "cannot move"))
        ),
        pass_over_files,
    ),
    "storage.cannot_read": fails(Run, "bytes", StorageError, "storage.cannot_read"),
    "storage.cannot_remove": fails(
        Batches, "_remove_orphans", StorageError, "storage.cannot_remove"
    ),
    "storage.cannot_write": (lambda w: occupy(w, "archive"), pass_over_files),
    "storage.failed": (
        lambda w: w.patch(Lake, "append", raising(PermissionError(13, "Permission denied"))),
        FEEDBACK,
    ),
    "storage.foreign_export": fails(foldin, "stage", StorageError, "storage.foreign_export"),
    "vault.cannot_create": (
        lambda w: w.patch(
            Workspace, "create_vault", raising(StorageError("vault.cannot_create", ""))
        ),
        FEEDBACK,
    ),
    "vault.key_cannot_create": (
        lambda w: occupy(w, "secrets-new"),
        lambda w: make_new_key(w, "secrets-new/sub/vault.key"),
    ),
    "vault.key_exists": (
        lambda w: w.undo.append(bool),
        lambda w: make_new_key(w, "secrets/vault.key" if w.undo else "secrets/other.key"),
    ),
    "vault.missing": (lambda w: w.undo.append(bool), own_vault),
    "workspace.cannot_write": (lambda w: occupy(w, "scratch"), FEEDBACK),
}
"""A cause that goes away, and a command or a function that raises the error meanwhile."""


@pytest.mark.slow
@pytest.mark.parametrize("id", section("Nothing is lost"))
def test_nothing_is_lost_and_the_same_command_completes(world, undisturbed, id):
    cause, command = HARMLESS[id]
    cause(world)
    assert world.attempt(command).id == id
    for undo in world.undo:
        undo()
    world.undo.clear()
    again = world.attempt(command)
    assert (again.code, again.id) == (0, ""), again
    check_content(world, undisturbed, command)


def test_each_harmless_error_has_a_case():
    assert section("Nothing is lost") == list(HARMLESS)


def test_each_line_of_the_page_has_a_case():
    assert [(id, number) for id, number, _ in page_rows()] == list(CASES)
    assert all(commands for *_, commands in page_rows())


def test_the_page_lists_exactly_the_errors_of_the_stores():
    errors = (PAGE.parent / "ERRORS.md").read_text("utf-8")
    ids = re.findall(r"^\| `([a-z_.]+)` \| ([\d, ]+) \|", errors, re.MULTILINE)
    stores = {id for id, codes in ids if "6" in codes.split(", ") or id.startswith("vault.")}
    stores.add("workspace.not_found")
    assert len(stores) > 60
    listed = [id for id, number, _ in page_rows() if number == 0]
    listed += [*section("Nothing is lost"), *section("Defects")]
    assert sorted(listed) == sorted(stores)
