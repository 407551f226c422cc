"""Maintenance of a workspace, store by store.

What can go wrong: a version goes that a night at work, a kept one, a calibration or a study has
pinned; something is taken away that is younger than its store keeps it; a table is touched while
another process writes it; a file that was taken in half is lost; a held lock hides possible
removals.
"""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from time import perf_counter

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.cli import main
from pipeline.cli.terminal import instant
from pipeline.data.split import PinnedTask
from pipeline.errors import ConcurrencyError, LakeError
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.maintenance.gc import WRITERS, gc, instant_of_ages
from pipeline.steps.nightly.snapshot import TABLES
from pipeline.stores.batches import Batches
from pipeline.stores.lake import SCHEMAS, Lake
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.runs import Run, Runs
from pipeline.stores.studies.store import Studies
from pipeline.workspace.artifacts import SnapshotFile
from pipeline.workspace.child_process import Child
from pipeline.workspace.experiment_artifacts import CalibrationPlanFile
from pipeline.workspace.night import open_night
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import PINS, Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, state, workspace
from tests.raising import raises
from tests.records import append_decision, backtest_plan, decision, snapshot, versions
from tests.unit.stores.lake.test_lake import START, events

NOW = datetime.now(UTC)


SOME = events(*(str(n) for n in range(400)))


def days(count: float) -> datetime:
    """So many days after this test."""
    return NOW + timedelta(days=count)


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    """A workspace that has taken in four files, two of them with a bad row, one of them bad."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "call", parsed_here)
        ws = workspace(tmp_path_factory.mktemp("taken") / "ws")
        for number in range(4):
            bad = f"{number}9,anna,milk,x,2024-03-01" if number % 2 else ""
            rows = [f"{number}0,anna,bread,1,2024-03-01", f"{number}1,bert,milk,1,2024-03-02", bad]
            land(ws, f"orders-{number}.csv", orders(*filter(None, rows)))
            ingest_landed(ws, AT + timedelta(days=number))
        land(ws, "orders-bad.csv", b"\xff\xfe\x00\x01" * 30)
        ingest_landed(ws, AT + timedelta(days=4))
    return ws.home


@pytest.fixture
def ws(taken, tmp_path):
    shutil.copytree(taken, tmp_path / "ws")
    return Workspace.open(tmp_path / "ws")


def night(ws: Workspace, run_id: str, age: float = 0, *, decided: bool = False) -> Run:
    """Write the pins of a night, and optionally its decision."""
    run = ws.runs.open(run_id)
    with run.draft("snapshot") as draft:
        draft.write(snapshot(ws, *TABLES))
    if decided:
        with run.draft("gate") as draft:
            draft.write(DecisionFile(decision()))
    for step in ("snapshot", "gate"):
        put_back(run, step, age)
    return run


def put_back(run: Run, step: str, age: float) -> None:
    """Let a step be so many days old."""
    path = run.folder / step / "manifest.json"
    if path.exists():
        os.utime(path, (days(-age).timestamp(),) * 2)


def readable(ws: Workspace, table: str = "events") -> list[int]:
    results = []
    for version in range((ws.lake.version(table) or 0) + 1):
        try:
            ws.lake.read(table, version=version)
        except LakeError:
            continue
        results.append(version)
    return results


def test_small_files_are_put_together_and_nothing_young_goes(ws):
    before = state(ws)
    result = gc(ws, NOW)
    tables = {kept.table: kept for kept in result.tables}
    assert list(tables) == list(SCHEMAS) == list(WRITERS)
    assert (tables["events"].before, tables["events"].after) == (8, 2)
    assert (tables["batches"].before, tables["batches"].after) == (8, 1)
    assert state(ws) == before | {"quarantine": []}  # its rows are of another year
    assert readable(ws) == [0, 1, 2, 3, 4]
    assert readable(ws, "quarantine") == [0, 1, 2]
    assert result.exit_code == 0
    assert len(list((ws.home / "archive").iterdir())) == 4
    assert not {kept.cleared.files for kept in result.tables} - {0}
    assert gc(ws, NOW).text() == "nothing to do"


def test_rows_leave_quarantine_by_the_day_they_came(ws):
    kept = timedelta(days=14)
    assert len(ws.lake.read("quarantine")) == 2
    assert gc(ws, AT + kept + timedelta(days=1)).tables[3].rows == 0
    result = gc(ws, AT + kept + timedelta(days=1, microseconds=1))
    assert result.tables[3].table == "quarantine"
    assert result.tables[3].rows == 1
    [left] = ws.lake.read("quarantine")[c.INGESTED_AT]
    assert left == AT + timedelta(days=3)


def test_files_leave_after_they_lay_there_for_days(ws):
    assert gc(ws, days(13.9)).taken["archive"].files == 0
    result = gc(ws, days(14.1))
    assert result.taken["archive"].files == 4
    assert result.taken["rejected"].files == 2  # the file, and the reason
    assert result.bytes > result.taken["archive"].bytes > 0
    assert [list((ws.home / name).iterdir()) for name in ("archive", "rejected")] == [[], []]
    assert "archive: 4 files removed" in result.text()
    assert "MB freed" in result.text()


@pytest.mark.parametrize("folder", ["archive", "rejected", "runs", "runs/decided"])
@pytest.mark.parametrize("decided", [False, True])
def test_a_link_in_a_folder_of_old_files_does_not_lead_out(ws, tmp_path, folder, decided):
    """The folder behind the link is an old run of another workspace."""
    night(ws, "decided", 20, decided=True)
    run = night(ws, "victim", 20, decided=decided)
    with run.draft("train/mad") as draft:
        draft.bytes("scorer.npz", b"123")
    victim = (ws.home / "runs" / "victim").rename(tmp_path / "victim")
    before = {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()}
    for name in ("link", ".gone-link", ".draft-link-1"):
        (ws.home / folder / name).symlink_to(victim)
    (ws.home / folder / "link.json").symlink_to(next(iter(before)))
    gc(ws, days(30))
    gc(ws, days(31))
    assert len(before) > 1
    assert {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()} == before


def test_a_version_goes_after_a_week_unless_it_is_pinned(ws):
    night(ws, "young")
    gc(ws, NOW)
    was = ws.lake.read("events", version=3)
    gc(ws, days(6))
    assert readable(ws) == [0, 1, 2, 3, 4]
    gc(ws, days(8))
    assert readable(ws) == [3, 4]
    assert readable(ws, "batches")[0] == night_versions(ws, "young")["batches"]
    assert ws.lake.read("events", version=3).equals(was)
    ws.lake.verify("events", 3)
    for table in SCHEMAS:
        ws.lake.verify(table)
    ws.lake.check_tail()


def night_versions(ws: Workspace, run_id: str) -> dict[str, int]:
    return dict(ws.runs.open(run_id).read(SnapshotFile).versions)


def test_a_night_at_work_keeps_all_and_one_that_decided_no_quarantine(ws):
    night(ws, "at-work", 13)
    night(ws, "decided", 13, decided=True)
    pinned = night_versions(ws, "at-work")
    gc(ws, NOW)
    gc(ws, days(0.9))
    later = Workspace.open(ws.home)
    for table, version in pinned.items():
        if version is not None:
            later.lake.read(table, version=version)
    # Abandoned a day later, while the other one keeps the versions that a reproduction reads.
    gc(later, days(8))
    assert not (ws.home / "runs" / "at-work").exists()
    assert pinned["quarantine"] not in readable(later, "quarantine")
    for table in ("events", "batches"):
        assert pinned[table] in readable(later, table)


def test_a_night_that_is_old_lets_go_but_not_the_live_one_nor_the_last_that_judged(ws):
    night(ws, "old", 91, decided=True)
    gc(ws, days(8))
    assert readable(ws) == [4]


@pytest.mark.parametrize("what", ["live", "before", "judged", "calibration", "backtest", "study"])
def test_what_else_has_pinned_keeps_it(ws, what):
    if what in ("live", "before"):
        night(ws, "kept", 500, decided=True)
        for run_id in ("oldest", "kept", "live") if what == "before" else ("oldest", "kept"):
            publish(ws, run_id)
    elif what == "judged":
        night(ws, "kept", 500, decided=True)
        append_decision(ws, "kept")
    elif what == "calibration":
        with Runs(ws.home / "calibrations").open("c").draft("plan") as draft:
            draft.write(calibration_plan(ws))
    elif what == "backtest":
        with Runs(ws.home / "backtests" / "b").open("plan").draft("plan") as draft:
            draft.write(backtest_plan(ws, versions=versions(ws, *SCHEMAS)))
    else:
        with Studies(ws.home / "studies") as studies:
            facts = {"versions": versions(ws, *SCHEMAS), "key": "k"}
            studies.begin("s", facts, {}, {})
    gc(ws, NOW)
    gc(ws, days(8))
    assert readable(ws) == [3, 4]


def calibration_plan(ws: Workspace) -> CalibrationPlanFile:
    return CalibrationPlanFile(
        as_of=NOW,
        versions=versions(ws, *SCHEMAS),
        task="discovery",
        pinned=PinnedTask(),
        weights=None,
        k=20,
        holdouts=(),
    )


def publish(ws: Workspace, run_id: str) -> None:
    known = ws.lake.read("publications").height
    row = {
        c.PUBLICATION_ID: f"p-{run_id}",
        c.GENERATION: known + 1,
        c.RUN_ID: run_id,
        c.LIVE_FROM: days(known - 400),
        c.AS_OF: days(known - 400),
        c.LEDGER_LINES: 0,
    }
    ws.lake.append("publications", pl.DataFrame([row], schema=c.PUBLICATIONS))
    rows = [(f"p-{run_id}", "u", 1, "bread", 0.5, "model", 1.0, "x")]
    lists = pl.DataFrame(rows, schema=c.RECOMMENDATIONS, orient="row")
    ws.lake.replace_where("recommendations", lists, f"p-{run_id}")


def test_a_finished_calibration_pins_nothing(ws):
    run = Runs(ws.home / "calibrations").open("c")
    with run.draft("plan") as draft:
        draft.write(calibration_plan(ws))
    with run.draft("result") as draft:
        draft.bytes("result.json", b"{}")
    gc(ws, days(8))
    assert readable(ws) == [4]


def test_lists_go_when_others_have_long_taken_their_place(ws):
    for run_id in ("a", "b", "c", "d"):
        publish(ws, run_id)
    stray = pl.DataFrame(
        [("p-stray", "u", 1, "bread", 0.5, "model", 1.0, "x")],
        schema=c.RECOMMENDATIONS,
        orient="row",
    )
    ws.lake.replace_where("recommendations", stray, "p-stray")
    assert shown(gc_of(ws, NOW)) == ["p-a", "p-b", "p-c", "p-d"]  # all were written today
    assert shown(gc_of(ws, days(364))) == ["p-a", "p-b", "p-c", "p-d"]
    assert shown(gc_of(ws, days(366))) == ["p-c", "p-d"]
    assert ws.lake.read("publications").height == 4


def gc_of(ws: Workspace, at: datetime) -> Workspace:
    assert gc(ws, at).exit_code == 0
    return ws


def shown(ws: Workspace) -> list[str]:
    return sorted(ws.lake.read("recommendations")[c.PUBLICATION_ID].unique())


def test_open_removals_of_a_killed_pass_are_carried_out(ws, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    before = ws.lake.read("events").height
    land(ws, "orders-9.csv", orders("90,anna,salt,1,2024-03-03"))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stores.batches.failpoint", stop)
        with pytest.raises(InterruptedError):
            ingest_landed(ws, AT + timedelta(days=9))
    (ws.home / "scratch").mkdir()
    (ws.home / "scratch" / "text").write_text("raw")
    assert ws.lake.read("events").height == before
    gc(ws, NOW)
    assert ws.lake.read("events").height == before + 1
    assert list((ws.home / "lake" / "_spool").iterdir()) == []
    assert not (ws.home / "scratch").exists()
    undisturbed = state(ws)
    ingest_landed(ws, AT + timedelta(days=10))
    assert state(ws) == undisturbed


def stop(name: str) -> None:
    raise InterruptedError(name)


def test_a_table_that_is_being_written_is_left_and_the_rest_is_done(ws):
    publish(ws, "a")
    publish(ws, "b")
    before = ws.lake.version("events")
    with ws.lake.lock("ingest"):
        result = gc(ws, days(15))
        assert set(result.left) == {
            "landed files", "events", "items", "users", "quarantine", "batches"
        }  # fmt: skip
    assert result.exit_code == 6
    assert f"events: the lock ingest is held by process {os.getpid()}" in result.sentence
    assert (ws.lake.version("events"), len(list((ws.home / "archive").iterdir()))) == (before, 4)
    assert {kept.table: kept.after for kept in result.tables}["publications"] == 1
    with ws.lake.lock("publish"):
        result = gc(ws, days(15))
        assert set(result.left) == {"publications", "recommendations"}
    assert {kept.table: kept.after for kept in result.tables}["events"] == 2
    assert gc(ws, days(15)).left == {}


def test_while_a_night_pins_nothing_goes(ws):
    night(ws, "abandoned", 20)
    with ws.pinning(), ws.pinning():  # many may
        result = gc(ws, days(8))
        assert set(result.left) == {"abandoned nights", *WRITERS}
    assert readable(ws) == [0, 1, 2, 3, 4]
    assert {kept.table: kept.after for kept in result.tables}["events"] == 2
    assert (ws.home / "runs" / "abandoned").exists()
    gc(ws, days(8))
    assert not (ws.home / "runs" / "abandoned").exists()
    with ws.lake.lock(PINS), pytest.raises(ConcurrencyError):
        ws.lake.lock(PINS).__enter__()


def test_an_abandoned_night_goes_and_one_that_is_worked_on_stays(ws, monkeypatch):
    for run_id in ("abandoned", "again"):
        night(ws, run_id, 15)
    open_night(ws, "again")
    result = gc(ws, NOW)
    assert [run.run_id for run in ws.runs.starting_with("")] == ["again"]
    assert result.taken["abandoned nights"].files == 3


def test_two_at_once_are_one_too_many(ws):
    with ws.lake.lock("gc"), raises("lock.held"):
        gc(ws, NOW)


def test_losers_go_and_the_winner_stays(ws):
    run = night(ws, "decided", decided=True)
    for recipe in ("als", "mad"):
        with run.draft(f"train/{recipe}") as draft:
            draft.bytes("recipe.json", recipe.encode())
            for name in ("scorer", "scorer-1", "scorer-2"):
                draft.bytes(f"{name}.npz", b"123")
    with run.draft("features") as draft:
        draft.bytes("train.npz", b"123")
    assert gc(ws, days(13.9)).taken.get("scorers and windows") is None
    assert gc(ws, days(14.1)).taken["scorers and windows"].files == 5
    left = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.npz"))
    assert left == ["features/train.npz", "train/als/scorer.npz"]
    assert run.bytes("train/mad", "recipe.json") == b"mad"


def test_damage_is_named_and_stops_it(ws):
    path = next(iter(sorted(ws.lake.files("events"))))
    (ws.home / "lake" / "events" / path).write_bytes(b"")
    with raises("lake.file_altered"):
        gc(Workspace(ws.home, ws.composed), NOW)


def test_the_command_prints_one_object_and_the_rest(ws, monkeypatch, capsys):
    at = days(8).isoformat()
    arguments = ["nightjar", "gc", "--at", at, "--yes", "--json", "--home", str(ws.home)]
    monkeypatch.setattr("sys.argv", arguments)
    # Versions have the time of the clock, so they are old only at a later instant.
    monkeypatch.setattr("pipeline.cli.maintenance.parse_past_instant", instant)
    with ws.lake.lock("publish"), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 6
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"at", "tables", "taken", "left", "bytes"}
    assert set(printed["left"]) == {"publications", "recommendations"}
    assert printed["tables"][0] == {
        "table": "events",
        "rows": 0,
        "before": 8,
        "after": 2,
        "cleared": printed["tables"][0]["cleared"],
    }
    assert printed["tables"][0]["cleared"]["files"] == 8
    assert printed["bytes"] > 8000
    monkeypatch.setattr("sys.argv", [*arguments[:5], "--home", str(ws.home)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_after_two_thousand_small_commits_reads_are_quick_and_files_few(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # `test_fsync` watches it
    ws = workspace(tmp_path / "ws")
    for number in range(2000):
        commit(ws.lake, number)
        if number in (3, 99, 100, 777, 1500):
            night(ws, f"night-{number}")
    done = {c.SEQ: 2000, c.STATUS: "done", c.TABLE: "events", c.ACCEPTED: 400}
    ws.lake.append("batches", pl.DataFrame([done], schema=c.BATCHES))
    was = {version: ids(ws.lake, version) for version in (3, 99, 100, 777, 1500)}
    whole = Lake(tmp_path / "whole")
    whole.append("events", ws.lake.read("events"))
    assert slowness(ws.lake, whole) > 3

    gc(ws, days(8))

    assert ids(ws.lake) == ids(whole)
    assert slowness(ws.lake, whole) < 2
    assert {version: ids(ws.lake, version) for version in was} == was
    for version in (0, 98, 101, 1501, 1999):
        with pytest.raises(LakeError, match=f"version {version} cannot be read"):
            ws.lake.read("events", version=version)
    assert len(ws.lake.files("events")) == 10
    folder = ws.home / "lake" / "events"
    data = [path for path in folder.rglob("*.parquet") if path.parent.name != "_delta_log"]
    assert len(data) == 10 + 1501  # of the pinned versions, none of which was compacted
    assert len(list((folder / "_delta_log").iterdir())) == 1 + 6 + 1
    sums = (ws.home / "lake" / "_sums" / "events.jsonl").read_text()
    assert len(sums.splitlines()) <= 1501 + 2
    assert ws.lake.last_txn("events", "ingest") == 2000
    assert ws.lake.append("events", events("again"), txn=("ingest", 2000)) == 2000
    ws.lake.check_tail()


def commit(lake: Lake, number: int) -> None:
    """Commit 400 events; eight times of ten by writing the log as the library would.

    The library itself takes most of its time to look at the 2,000 commits before.
    """
    frame = SOME.with_columns(
        pl.format("e{}-{}", pl.lit(number), pl.int_range(pl.len())).alias(c.EVENT_ID),
        pl.lit(START.date() + timedelta(days=number % 10)).alias(c.EVENT_DAY),
    )
    if number % 10 in (0, 9):
        lake.append("events", frame, txn=("ingest", number + 1))
        return
    log = lake.root / "events" / "_delta_log"
    last = (log / f"{number - number % 10:020}.json").read_text().splitlines()
    actions = [json.loads(line) for line in last]
    add = next(action["add"] for action in actions if "add" in action)
    day = str(frame[c.EVENT_DAY][0])
    path = lake.root / "events" / f"{c.EVENT_DAY}={day}" / f"part-{number}.parquet"
    path.parent.mkdir(exist_ok=True)
    frame.drop(c.EVENT_DAY).write_parquet(path)
    add |= {
        "path": path.relative_to(lake.root / "events").as_posix(),
        "partitionValues": {c.EVENT_DAY: day},
        "size": path.stat().st_size,
        "stats": json.dumps({"numRecords": frame.height}),
    }
    txn = {"appId": "ingest", "version": number + 1}
    lines = [json.dumps({name: content}) for name, content in (("add", add), ("txn", txn))]
    (log / f"{number:020}.json").write_text("\n".join(lines) + "\n")
    CommitIntegrity(lake.root, "events").acknowledge(number)


def ids(lake: Lake, version: int | None = None) -> list[str]:
    return lake.read("events", version=version)[c.EVENT_ID].sort().to_list()


def slowness(lake: Lake, other: Lake) -> float:
    """Ratio of the times to read one lake and the other: the best of many, in turns."""
    seconds: dict[Lake, list[float]] = {lake: [], other: []}
    for _ in range(12):
        for one, seconds_of in seconds.items():
            start = perf_counter()
            one.read("events")
            seconds_of.append(perf_counter() - start)
    return min(seconds[lake]) / min(seconds[other])


def test_a_clock_that_is_a_year_ahead_is_refused(ws):
    last = AT + timedelta(days=3)  # the newest ingest; the bad file added none
    ahead = last + timedelta(days=366)
    with raises("gc.far_ahead"):
        instant_of_ages(ws, ahead, by_hand=False)
    with raises("gc.far_ahead"):
        instant_of_ages(ws, ahead, by_hand=True)
    assert instant_of_ages(ws, ahead, by_hand=False, far_ahead=True) == ahead
    assert instant_of_ages(ws, last + timedelta(days=365), by_hand=False) < ahead


def test_in_a_replay_ages_count_from_the_last_ingest(ws):
    config = ws.home / "nightjar.toml"
    config.write_text(config.read_text() + '[publish]\nlive_from = "as_of"\n')
    replay = Workspace.open(ws.home)
    assert instant_of_ages(replay, NOW, by_hand=False) == AT + timedelta(days=3)
    assert instant_of_ages(replay, AT, by_hand=True) == AT
    with raises("gc.far_ahead"):
        instant_of_ages(replay, NOW, by_hand=True)


def test_an_empty_workspace_has_no_last_ingest(tmp_path):
    assert instant_of_ages(workspace(tmp_path / "ws"), NOW, by_hand=False) == NOW


def test_runs_are_freed_before_the_lake_is_touched(ws, monkeypatch):
    run = night(ws, "20240101T000000Z-old", 30)

    def full(*_):
        raise LakeError("lake.unavailable", "no space left on device")

    monkeypatch.setattr(Batches, "recover", full)
    with raises("lake.unavailable"):
        gc(ws, days(0))
    assert not run.folder.exists()
