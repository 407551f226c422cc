"""A store that is older than another one is named before anything is written, with exit code 6.

Each test replaces a store of a workspace (two nights, then a pass with a patch) by an older copy,
an empty one or none, as a restored backup, a torn copy or a mistake would.
"""

import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.base import as_of, format_instant
from pipeline.steps.doctor import examine
from pipeline.steps.feedback.decisions import recover_ledger
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.stores.batches import Batch, Batches
from pipeline.stores.ledger import Ledger
from pipeline.stores.vault import Vault
from pipeline.workspace.ledger import RepairEntry, append_entry
from pipeline.workspace.workspace import Workspace
from tests.commands import outcome
from tests.foreign import exchange_run, exchange_table
from tests.raising import raises
from tests.worlds import NIGHTS, START

AT = format_instant(NIGHTS[2])
FEEDBACK = ("feedback", "--at", AT)
NIGHTLY = ("nightly", "--as-of", AT)
ONE, ALL = ("lists", "u1"), ("lists", "--all")
TABLES = ("batches", "events", "items", "publications", "recommendations")


@pytest.fixture
def home(third_landed, tmp_path):
    return Path(shutil.copytree(third_landed, tmp_path / "home"))


def older(two_nights, home: Path, *names: str) -> None:
    """Replace folders and files of the workspace by those before its last pass."""
    for name in names:
        source, target = two_nights[0] / name, home / name
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def land(home: Path, name: str, *users: str) -> Path:
    """Land one new event for each user, of the last day."""
    rows = [f"{name}-{user},{user},i1,1,2024-04-08T08:00:00Z" for user in users]
    path = home / "landing" / "events" / f"{name}.csv"
    path.write_text("\n".join(["event_id,user_id,item_id,value,timestamp", *rows, ""]))
    os.utime(path, (START.timestamp(),) * 2)
    return path


def failed_checks(home: Path) -> dict[str, str]:
    names = {"lake", "vault", "ledger", "agreement"}
    return {x.name: x.sentence for x in examine(home) if not x.ok and x.name in names}


def rows(home: Path, table: str) -> pl.DataFrame:
    return Workspace.open(home).lake.read(table)


def test_the_stores_of_a_sound_workspace_agree(home):
    assert failed_checks(home) == {}
    land(home, "new", "u1", "nobody-yet")
    assert outcome(home, *FEEDBACK).code == 0
    assert failed_checks(home) == {}


# --- tables of the lake --------------------------------------------------------------------------


def test_batches_that_are_behind_a_table_stop_a_pass(home, two_nights):
    """Their numbers would be given out again, and the lake would take new rows for written ones."""
    older(two_nights, home, "lake/batches", "lake/_sums")
    events, landed = rows(home, "events").height, land(home, "new", "u1", "u2")
    assert outcome(home, *FEEDBACK)[:2] == (6, "lake.batches_behind")
    assert outcome(home, *NIGHTLY)[:2] == (6, "lake.batches_behind")
    assert outcome(home, "gc")[:2] == (6, "lake.batches_behind")
    assert "batches" in failed_checks(home)["agreement"]
    assert landed.exists()
    assert rows(home, "events").height == events


def test_a_table_that_is_behind_batches_stops_a_pass(home, two_nights):
    older(two_nights, home, "lake/events", "lake/_sums/events.jsonl")
    assert outcome(home, *FEEDBACK)[:2] == (6, "lake.table_behind")
    assert outcome(home, *NIGHTLY)[:2] == (6, "lake.table_behind")
    assert "events" in failed_checks(home)["agreement"]


def test_commits_of_killed_writers_are_acknowledged_before_they_are_used(home):
    """A power cut would take them, after rows, a pin or an archived file follow from them."""
    sums = {table: home / f"lake/_sums/{table}.jsonl" for table in ("batches", "events", "items")}
    whole = {table: path.read_bytes() for table, path in sums.items()}
    for path in sums.values():
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    ws = Workspace.open(home)
    Batches(ws.lake).recover()
    assert sums["batches"].read_bytes() == whole["batches"]
    snapshot(ws, as_of(NIGHTS[2]))
    assert {table: path.read_bytes() for table, path in sums.items()} == whole


def test_batches_without_their_last_commit_leave_rows_single(home):
    """The commit that noted a file as done is lost with its checksums: its intent is void."""
    land(home, "new", "u1", "u2")
    assert outcome(home, *FEEDBACK).code == 0
    before, sums = rows(home, "events"), home / "lake/_sums/batches.jsonl"
    max((home / "lake/batches/_delta_log").glob("*.json")).unlink()
    sums.write_bytes(b"".join(sums.read_bytes().splitlines(keepends=True)[:-1]))
    land(home, "again", "u3")
    land(home, "new", "u1", "u2")
    assert outcome(home, *FEEDBACK).code == 0
    assert rows(home, "events").height == before.height + 1
    assert failed_checks(home) == {}


def test_one_nightly_run_at_a_time(home):
    with Workspace.open(home).lake.lock("night"):
        assert outcome(home, *NIGHTLY)[:2] == (6, "lock.held")


def test_a_number_that_a_table_has_already_is_not_given_out(home, two_nights):
    """The check at the start of a pass would find it, too."""
    older(two_nights, home, "lake/batches", "lake/_sums")
    lake = Workspace.open(home).lake
    batch = Batch("b" * 64, "events", "shop", "f", 1, 1, 0, 0, 0, 0, "", 0, NIGHTS[2])
    events = lake.read("events")
    with raises("lake.number_taken"):
        Batches(lake).commit([batch], events.head(1), lake.empty("quarantine"))
    assert lake.read("events").height == events.height
    assert "b" * 64 not in lake.read("batches")[c.BATCH_ID]


def test_a_catalogue_that_a_second_file_sets_back_has_its_number(home):
    """Otherwise the table would look older than `batches`."""
    for name, title in (("items-1", "another title"), ("items-2", "Item 1")):
        path = home / "landing" / "items" / f"{name}.csv"
        path.write_text(f"item_id,title\ni1,{title}\n")
        os.utime(path, (START.timestamp(),) * 2)
    assert outcome(home, *FEEDBACK).code == 0
    assert failed_checks(home) == {}


def test_a_lake_that_is_gone_is_not_an_empty_one(home):
    shutil.rmtree(home / "lake")
    land(home, "new", "u1")
    for command in (FEEDBACK, NIGHTLY, ("history",), ("policy", "--at", AT)):
        assert outcome(home, *command)[:2] == (6, "lake.lost")


@pytest.mark.parametrize("lost", ["lake", "table"])
def test_lost_publications_do_not_count_as_none(home, lost):
    if lost == "lake":
        shutil.rmtree(home / "lake")
    else:
        shutil.rmtree(home / "lake/publications")
        (home / "lake/_sums/publications.jsonl").unlink()
    expected = {"lake": "lake.lost", "table": "lake.publications_behind"}[lost]
    assert outcome(home, *ONE)[:2] == (6, expected)


def test_a_lost_run_of_the_live_lists_is_named_as_that(home):
    run = max((home / "runs").iterdir())
    shutil.rmtree(run)
    assert outcome(home, *FEEDBACK)[:2] == (6, "run.step_missing")


def test_publications_that_are_behind_the_ledger_stop_a_pass(home, two_nights):
    older(two_nights, home, "lake/publications", "lake/_sums/publications.jsonl")
    for command in (FEEDBACK, NIGHTLY, ("history",)):
        assert outcome(home, *command)[:2] == (6, "lake.publications_behind")
    assert "publications" in failed_checks(home)["ledger"]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_another_workspace_stops_a_pass(home, table):
    """It has the same rows and numbers, and valid checksums."""
    land(home, "new", "u1")
    exchange_table(home, table)
    for command in (FEEDBACK, NIGHTLY, ONE):
        assert outcome(home, *command)[:2] == (6, "lake.other_table")
    assert f"lake table {table} " in failed_checks(home)["agreement"]


def diverged(home: Path, tmp_path: Path) -> Path:
    """Return a copy of the workspace that got another file of as many users and rows."""
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    for place, name in ((home, "here"), (copy, "there")):
        land(place, name, "u1", f"new-{name}")
        assert outcome(place, *FEEDBACK).code == 0
    land(home, "there", "u1", "new-there")
    return copy


@pytest.mark.parametrize("exchanged", [("batches",), ("events",), ("events", "items")])
def test_a_table_of_a_copy_that_got_other_files_stops_a_pass(home, tmp_path, exchanged):
    """Numbers, lake and vault are the same: a file of the copy would count as seen before."""
    copy = diverged(home, tmp_path)
    for table in exchanged:
        shutil.rmtree(home / "lake" / table)
        shutil.copytree(copy / "lake" / table, home / "lake" / table)
        sums = f"lake/_sums/{table}.jsonl"
        shutil.copy2(copy / sums, home / sums)
    if exchanged == ("batches",):
        shutil.copy2(copy / "vault.db", home / "vault.db")
    for command in (FEEDBACK, NIGHTLY, ("gc",)):
        assert outcome(home, *command)[:2] == (6, "lake.other_copy")
    assert "batches" in failed_checks(home)["agreement"]
    assert (home / "landing/events/there.csv").exists()


def test_publications_of_a_copy_with_other_lists_stop_a_pass(home, tmp_path):
    copy = diverged(home, tmp_path)
    for table in ("publications", "recommendations"):
        shutil.rmtree(home / "lake" / table)
        shutil.copytree(copy / "lake" / table, home / "lake" / table)
        sums = f"lake/_sums/{table}.jsonl"
        shutil.copy2(copy / sums, home / sums)
    for command in (FEEDBACK, NIGHTLY, ("history",)):
        assert outcome(home, *command)[:2] == (6, "lake.other_copy")
    assert "publications" in failed_checks(home)["ledger"]


def test_a_vault_of_a_copy_that_got_other_users_stops_a_pass(home, tmp_path):
    """It has the same key and as many users."""
    copy = diverged(home, tmp_path)
    shutil.copy2(copy / "vault.db", home / "vault.db")
    for command in (FEEDBACK, NIGHTLY, ONE):
        assert outcome(home, *command)[:2] == (6, "vault.other")


def test_a_copy_of_the_workspace_has_the_same_lake(home, tmp_path):
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    shutil.rmtree(home / "lake" / "events")
    shutil.copytree(copy / "lake" / "events", home / "lake" / "events")
    assert failed_checks(home) == {}


def test_a_run_of_another_workspace_is_not_entered_into_the_ledger(third_decided, tmp_path):
    original, run_id, _ = third_decided
    home = Path(shutil.copytree(original, tmp_path / "home"))
    whole = (home / "ledger.jsonl").read_bytes()
    before = whole.removesuffix(whole.splitlines(keepends=True)[-1])
    (home / "ledger.jsonl").write_bytes(before)
    exchange_run(Workspace.open(home).run(run_id))
    for command in (("fold-in", "--at", AT), NIGHTLY):
        assert outcome(home, *command)[:2] == (6, "run.other_workspace")
    assert (home / "ledger.jsonl").read_bytes() == before


# --- the vault -----------------------------------------------------------------------------------


def test_a_vault_of_an_older_backup_gives_no_user_a_second_pseudonym(home):
    users = [f"new-{n}" for n in range(5)]
    vault = (home / "vault.db").read_bytes()
    land(home, "first", *users)
    assert outcome(home, *FEEDBACK).code == 0
    before = rows(home, "events")[c.USER_ID].n_unique()
    (home / "vault.db").write_bytes(vault)
    landed = land(home, "second", *users)
    for command in (FEEDBACK, NIGHTLY, ONE, ALL):
        assert outcome(home, *command)[:2] == (6, "vault.behind")
    assert "5 users of the lake are missing" in failed_checks(home)["vault"]
    assert landed.exists()
    assert rows(home, "events")[c.USER_ID].n_unique() == before


@pytest.mark.parametrize("left", [None, b""])
def test_a_lost_vault_is_named_and_no_command_makes_another_one(home, left):
    (home / "vault.db").unlink()
    if left is not None:
        (home / "vault.db").write_bytes(left)
    land(home, "new", "u1")
    for command in (ONE, ALL, FEEDBACK, ("fold-in", "--at", AT), NIGHTLY):
        assert outcome(home, *command)[:2] == (6, "vault.behind")
        assert ((home / "vault.db").read_bytes() if (home / "vault.db").exists() else None) == left
    assert set(failed_checks(home)) == {"vault", "agreement"}


def test_another_vault_with_as_many_users_gives_no_user_a_second_pseudonym(home):
    """It has the same key, so only its id differs from that of the vault of the lake."""
    users = rows(home, "events")[c.USER_ID].unique().to_list()
    other = Workspace.init(home.parent / "other")
    shutil.copy(home / "secrets" / "vault.key", other.home / "secrets" / "vault.key")
    other.create_vault()
    other.vault.pseudonyms([f"u{n}" for n in range(len(users))])
    shutil.copy(other.home / "vault.db", home / "vault.db")
    landed = land(home, "new", "u1")
    for command in (FEEDBACK, NIGHTLY, ONE, ALL):
        assert outcome(home, *command)[:2] == (6, "vault.other")
    assert "other" in failed_checks(home)["vault"]
    assert landed.exists()
    assert rows(home, "events")[c.USER_ID].n_unique() == len(users)


def test_a_pseudonym_without_a_row_in_the_vault_is_not_shown(home):
    """Entries of the vault may be exchanged for as many others."""
    ws = Workspace.open(home)
    users = ws.lake.read("events")[c.USER_ID].n_unique()
    with closing(sqlite3.connect(ws.vault_file)) as vault, vault:
        vault.execute("DELETE FROM people")
    Vault(ws.vault_file, ws.vault_key).pseudonyms([f"other-{n}" for n in range(users)])
    assert outcome(home, *ALL)[:2] == (6, "vault.pseudonym_missing")


def test_a_flipped_bit_of_a_lookup_hash_ends_the_night(home):
    """The user would count as a new one."""
    ws = Workspace.open(home)
    [key] = ws.vault._keys(["u1"]).values()
    data = bytearray((home / "vault.db").read_bytes())
    data[data.index(key) + 30] ^= 1
    (home / "vault.db").write_bytes(data)
    assert outcome(home, *NIGHTLY)[:2] == (6, "vault.damaged")
    assert "damaged" in failed_checks(home)["vault"]


# --- the ledger ----------------------------------------------------------------------------------


def test_a_publication_holds_the_head_of_the_ledger_before_it(home):
    entries = Ledger(home / "ledger.jsonl").entries()
    for row in rows(home, "publications").iter_rows(named=True):
        before = entries[row[c.LEDGER_LINES] - 1]
        assert before["sha256"] == row[c.LEDGER_SUM]
        after = entries[row[c.LEDGER_LINES] :]
        assert any(entry.get("publication_id") == row[c.PUBLICATION_ID] for entry in after)


@pytest.mark.parametrize("left", ["three lines", "no line", "no file"])
def test_a_ledger_that_lost_lines_before_the_last_publication_is_named(home, left):
    path = home / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) if left == "three lines" else b"")
    if left == "no file":
        path.unlink()
    before = path.read_bytes() if path.exists() else None
    land(home, "new", "u1")
    commands = (FEEDBACK, ("fold-in", "--at", AT), ("policy", "--at", AT), NIGHTLY, ("history",))
    for command in (*commands, ("history", "--quality"), ("compare", "1", "2")):
        assert outcome(home, *command)[:2] == (6, "ledger.behind")
    assert set(failed_checks(home)) == {"ledger", "agreement"}
    assert outcome(home, *ONE).code == 0
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("cut", ["whole line", "half a line"])
def test_a_publication_that_is_missing_at_the_end_is_appended_again(home, cut):
    path = home / "ledger.jsonl"
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    assert json.loads(last)["type"] == "patch"
    path.write_bytes(whole[: len(whole) - (len(last) if cut == "whole line" else len(last) // 2)])
    assert outcome(home, "fold-in", "--at", AT).code == 0
    assert path.read_bytes() == whole


def test_a_publication_is_on_the_disk_before_its_entry_is_appended(home):
    """A power cut would take a commit whose writer was killed before it acknowledged it."""
    sums, ledger = home / "lake/_sums/publications.jsonl", home / "ledger.jsonl"
    acknowledged, whole = sums.read_bytes(), ledger.read_bytes()
    sums.write_bytes(b"".join(acknowledged.splitlines(keepends=True)[:-1]))
    ledger.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    assert outcome(home, "fold-in", "--at", AT).code == 0
    assert (sums.read_bytes(), ledger.read_bytes()) == (acknowledged, whole)


def test_a_decision_that_a_crash_kept_from_the_ledger_is_appended(third_decided, tmp_path):
    original, run_id, _ = third_decided
    home = Path(shutil.copytree(original, tmp_path / "home"))
    whole = (home / "ledger.jsonl").read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    assert json.loads(last)["key"] == f"decision:{run_id}"
    (home / "ledger.jsonl").write_bytes(whole.removesuffix(last))
    for _ in range(2):
        recover_ledger(Workspace.open(home))
        assert (home / "ledger.jsonl").read_bytes() == whole


def test_a_ledger_without_its_last_line_that_no_store_has_is_named(home):
    path, ws = home / "ledger.jsonl", Workspace.open(home)
    entry = RepairEntry(
        key="x", as_of=NIGHTS[2], store="events", by="anna", reason="disk", sentence="accepted"
    )
    append_entry(ws.ledger, entry)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    for command in (FEEDBACK, NIGHTLY):
        assert outcome(home, *command)[:2] == (6, "ledger.behind")
    assert set(failed_checks(home)) == {"agreement"}
    assert outcome(home, "repair", "ledger", "--by", "anna", "--reason", "disk").code == 0
    assert json.loads(path.read_bytes().splitlines()[-1])["missing"] == [
        "1 lines that were cut off"
    ]
    assert outcome(home, *FEEDBACK).code == 0


def test_the_ledger_of_another_workspace_is_named(home):
    lines = len(Ledger(home / "ledger.jsonl").entries())
    (home / "ledger.jsonl").unlink()
    other = Ledger(home / "ledger.jsonl")
    for number in range(lines):
        other.append(f"key-{number}", "anchor", {})
    for command in (FEEDBACK, NIGHTLY, ("history",)):
        assert outcome(home, *command)[:2] == (6, "ledger.other")


@pytest.mark.parametrize(
    "damage", ["a flipped byte", "no UTF-8", "no previous", "a folder", "a pipe"]
)
def test_a_damaged_ledger_is_one_sentence(home, damage):
    path = home / "ledger.jsonl"
    data = bytearray(path.read_bytes())
    if damage == "a flipped byte":
        data[50] ^= 1
    elif damage == "no UTF-8":
        data[50] = 0xFF
    elif damage == "no previous":
        entry = json.loads(data.splitlines()[0])
        del entry["previous"]
        data = bytearray(json.dumps(entry).encode() + b"\n")
    path.write_bytes(data)
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "a pipe":
        path.unlink()
        os.mkfifo(path)
    for command in (FEEDBACK, NIGHTLY, ("history",)):
        code, error, _ = outcome(home, *command)
        assert code == 6
        assert error in ("ledger.chain_broken", "ledger.damaged", "storage.cannot_read")
    assert outcome(home, *ALL).code == 0
