"""Maintenance loses no row, pinned version, transaction or sum, and adds no id to the log.

What can go wrong: a version that a run pinned loses a file or its log; a younger one does; a replay
of a transaction is written again because the log forgot it; a compaction brings ids into the log's
statistics, or leaves files without sums; killed half way, the table is another one, or a later call
cannot go on; a reader meanwhile gets an error of damage without any damage.
"""

import os
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline import failpoints
from pipeline.errors import LakeError
from pipeline.failpoints import FailpointReached
from pipeline.stores.lake import Compaction, Lake
from pipeline.stores.lake.checksums import Checksums
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from tests.raising import raises
from tests.unit.stores.lake.test_lake import START, data_of, events, ids, items, lists, log_of

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=1)
"""Before it all that a test has written lies."""
EARLIER = NOW - timedelta(days=1)


def entries(lake: Lake, table: str) -> list[str]:
    return sorted(path.name for path in (lake.root / table / "_delta_log").iterdir())


def small(lake: Lake, count: int = 6, start: int = 0) -> None:
    """Commit one event at a time, on two days."""
    for n in range(start, start + count):
        lake.append("events", events(f"e{n}", day=n % 2), txn=("ingest", n + 1))


@pytest.fixture(params=["lake", "la ké"])
def lake(request, tmp_path):
    lake = Lake(tmp_path / request.param)
    small(lake)
    return lake


def test_small_files_become_one_a_partition_and_no_row_changes(lake):
    before = lake.read("events").sort(c.EVENT_ID)
    assert Compaction(lake, "events").compact() == (6, 2)
    assert lake.version("events") == 6
    assert lake.read("events").sort(c.EVENT_ID).equals(before)
    assert len(lake.files("events")) == 2
    lake.check_tail()
    assert Compaction(lake, "events").compact() == (2, 2)
    assert lake.version("events") == 6


def test_damage_is_not_written_anew(lake):
    """After compaction, a flipped bit would have a valid checksum."""
    path = data_of(lake, "events")[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    upkeep = Compaction(lake, "events")
    with raises("lake.file_altered"):
        upkeep.compact()
    with raises("lake.file_altered"):
        upkeep.drop_before(c.INGESTED_AT, LATER)
    assert lake.version("events") == 5


def test_a_table_that_was_never_written_needs_nothing(lake):
    upkeep = Compaction(lake, "items")
    assert upkeep.compact() == (0, 0)
    assert upkeep.drop_before(c.CREATED_AT, NOW) == 0
    assert upkeep.clear([], LATER).files == 0
    assert lake.version("items") is None


def test_no_id_enters_the_log(lake):
    lake.append("events", events("e-secret", user="u-anna"))
    lake.append("recommendations", lists("p1", "i-bread"))
    lake.append("recommendations", lists("p1", "i-milk"))
    for table in ("events", "recommendations"):
        upkeep = Compaction(lake, table)
        assert upkeep.compact()[1] in (1, 2)
        upkeep.clear([], LATER)
        [checkpoint] = (lake.root / table / "_delta_log").glob("*.checkpoint.parquet")
        stats = pl.read_parquet(checkpoint)["add"].struct.field("stats").drop_nulls().to_list()
        log = [path.read_text() for path in (lake.root / table / "_delta_log").glob("*.json")]
        assert log and stats and all("numRecords" in text for text in stats)
        for text in (*log, *stats):
            for name in ("e-secret", "u-anna", "i-bread", "i-milk", '"u"'):
                assert name not in text
    assert "minValues" in stats_of(lake, "events")


def stats_of(lake: Lake, table: str) -> str:
    [checkpoint] = (lake.root / table / "_delta_log").glob("*.checkpoint.parquet")
    return str(pl.read_parquet(checkpoint)["add"].struct.field("stats").to_list())


def test_an_unpinned_version_goes_and_reading_it_is_an_error(lake):
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    cleared = upkeep.clear([], LATER)
    assert (cleared.files, cleared.log) == (6, 6)
    assert cleared.bytes > 6 * 1000
    assert len(data_of(lake, "events")) == 2 + 1  # and the checkpoint
    assert entries(lake, "events") == [
        f"{6:020}.checkpoint.parquet",
        f"{6:020}.json",
        "_last_checkpoint",
    ]
    assert lake.read("events").height == 6
    with raises("lake.version_vacuumed"):
        lake.read("events", version=3)
    lake.check_tail()
    lake.verify("events")
    assert upkeep.clear([], LATER).files == 0


def test_a_pinned_version_reads_as_it_did(lake):
    was = {version: lake.read("events", version=version) for version in (1, 3)}
    upkeep = Compaction(lake, "events")
    for _ in range(2):
        upkeep.compact()
        upkeep.clear([1, 3], LATER)
        small(lake, start=lake.version("events"))
        for version, rows in was.items():
            assert lake.read("events", version=version).equals(rows)
            lake.verify("events", version)
        with raises("lake.version_vacuumed"):
            lake.read("events", version=2)
    upkeep.clear([3], LATER)
    with raises("lake.version_vacuumed"):
        lake.read("events", version=1)
    assert lake.read("events", version=3).equals(was[3])


def test_young_versions_stay_with_and_without_a_pin(lake):
    was = {version: lake.read("events", version=version) for version in range(6)}
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    assert upkeep.clear([], EARLIER) == upkeep.clear([], EARLIER)
    for version, rows in was.items():
        assert lake.read("events", version=version).equals(rows)
    age(lake)  # a checkpoint that is old enough is where readability begins
    small(lake, 3, start=6)
    upkeep.compact()
    upkeep.clear([], EARLIER)
    assert [lake.read("events", version=v).height for v in (6, 7, 8, 9)] == [6, 7, 8, 9]
    with raises("lake.version_vacuumed"):
        lake.read("events", version=5)


def age(lake: Lake) -> None:
    """Let everything be older than `EARLIER`."""
    old = (EARLIER - timedelta(days=1)).timestamp()
    for path in lake.root.rglob("*"):
        os.utime(path, (old, old))


def test_a_file_that_was_just_written_stays(lake):
    """It may belong to a writer that was paused while its lock was taken away."""
    Compaction(lake, "events").clear([], EARLIER)
    age(lake)
    stray = lake.root / "events" / "event_day=2024-03-01" / "part-stray.parquet"
    half = log_of(lake, "events", 6).with_suffix(".json#1")
    for path in (stray, half):
        path.write_bytes(b"x")
    Compaction(lake, "events").clear([], EARLIER)
    assert stray.exists() and half.exists()
    age(lake)
    Compaction(lake, "events").clear([], EARLIER)
    assert not stray.exists() and not half.exists()
    assert lake.read("events").height == 6


def test_transactions_outlive_compaction_checkpoint_and_log(lake):
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    upkeep.clear([], LATER)
    lake = Lake(lake.root)
    assert lake.last_txn("events", "ingest") == 6
    for number in range(1, 7):
        assert lake.append("events", events("again"), txn=("ingest", number)) == 6
    assert "again" not in ids(lake.read("events"))
    assert lake.append("events", events("e7"), txn=("ingest", 7)) == 7
    for number in (6, 7):
        assert lake.append("events", events("again"), txn=("ingest", number)) == 7
    lake.check_tail()


def test_rows_leave_by_age(lake):
    def bad(raw: str, days: int) -> pl.DataFrame:
        row = {
            c.RAW: raw,
            c.REASONS: ["x"],
            c.SOURCE: "s",
            c.LINE: 1,
            c.INGESTED_AT: START + timedelta(days=days, microseconds=5),
            c.BATCH_ID: "b",
        }
        return pl.DataFrame([row], schema=c.QUARANTINE)

    for days in range(5):
        lake.append("quarantine", bad(f"r{days}", days))
    upkeep = Compaction(lake, "quarantine")
    upkeep.compact()
    assert upkeep.drop_before(c.INGESTED_AT, START) == 0
    assert lake.version("quarantine") == 5
    assert upkeep.drop_before(c.INGESTED_AT, START + timedelta(days=2, microseconds=5)) == 2
    assert sorted(lake.read("quarantine")[c.RAW]) == ["r2", "r3", "r4"]
    lake.check_tail()
    assert "r3" not in log_of(lake, "quarantine", 6).read_text()
    assert lake.read("quarantine", version=5).height == 5
    upkeep.clear([], LATER)
    assert not any(b"r1" in path.read_bytes() for path in data_of(lake, "quarantine"))


def test_partitions_leave_as_a_whole(lake):
    lake.append("recommendations", pl.concat([lists("p1", "a"), lists("p2", "b", "c")]))
    lake.append("recommendations", lists("p3", "d"))
    upkeep = Compaction(lake, "recommendations")
    written = upkeep.partitions()
    assert sorted(written) == ["p1", "p2", "p3"]
    assert all(EARLIER < instant < LATER for instant in written.values())
    assert upkeep.drop_partitions([]) == 0
    with raises("lake.partition_name"):
        upkeep.drop_partitions(["x' OR 1"])
    assert upkeep.drop_partitions(["p1", "p2", "p9"]) == 3
    assert lake.read("recommendations").equals(lists("p3", "d"))
    upkeep.clear([], LATER)
    left = sorted(p.name for p in (lake.root / "recommendations").iterdir())
    assert left == ["_delta_log", "publication_id=p3"]


def test_columns_that_came_later_outlive_compaction(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.append("items", items("bread"))
    lake.append("items", items("milk", brand="x"))
    before = lake.read("items").sort(c.ITEM_ID)
    upkeep = Compaction(lake, "items")
    upkeep.compact()
    upkeep.clear([0], LATER)
    assert lake.read("items").sort(c.ITEM_ID).equals(before)
    assert lake.read("items", version=0).columns == items("bread").columns


def test_a_compaction_moves_rows_and_changes_none(lake):
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    assert lake.same_rows("events", 5, 6)
    assert lake.same_rows("events", 6, 5)
    assert lake.same_rows("events", 4, 4)
    assert not lake.same_rows("events", 4, 6)
    assert not lake.same_rows("events", None, 6)
    assert lake.same_rows("items", None, None)
    upkeep.clear([], LATER)
    assert not lake.same_rows("events", 4, 6)  # the log lacks commits between them


def test_checksums_of_remaining_files_hold_and_no_others_are_kept(lake):
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    upkeep.clear([2], LATER)
    named = CommitIntegrity(lake.root, "events").sums.read().sums
    there = {p.relative_to(lake.root / "events").as_posix() for p in data_of(lake, "events")}
    assert set(named) == {*there, f"_delta_log/{6:020}.json"}
    assert CommitIntegrity(lake.root, "events").acknowledged() == 6
    [path] = [lake.root / "events" / p for p in sorted(lake.files("events"))][:1]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with raises("lake.file_altered"):
        lake.check_tail()


def test_a_pinned_version_whose_log_is_damaged_stops_everything(lake):
    Compaction(lake, "events").compact()
    log_of(lake, "events", 1).write_bytes(b"")
    before = data_of(lake, "events")
    with raises("lake.file_altered"):
        lake.read("events", version=3)  # the library would return 3 rows, without an error
    with raises("lake.file_altered"):
        Compaction(lake, "events").clear([3], LATER)
    assert set(before) <= set(data_of(lake, "events"))
    assert log_of(lake, "events", 3).exists()


def test_a_pin_on_a_removed_version_stops_nothing(lake):
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    upkeep.clear([], LATER)
    assert upkeep.clear([0, 3, 99], LATER).files == 0


def test_a_writer_that_comes_in_between_is_not_undone(lake, monkeypatch):
    """Its lock was taken away while it was paused; it resumes while files are merged."""
    other = Lake(lake.root)
    opened = Lake.open_for_writing

    def meanwhile(self: Lake, table: str) -> object:
        handle = opened(self, table)
        monkeypatch.undo()
        other.append("events", events("late"))
        return handle

    monkeypatch.setattr(Lake, "open_for_writing", meanwhile)
    assert Compaction(lake, "events").compact() == (7, 3)
    assert ids(lake.read("events")) == [*(f"e{n}" for n in range(6)), "late"]
    assert Compaction(lake, "events").compact() == (3, 2)
    Compaction(lake, "events").clear([], LATER)
    lake.check_tail()
    lake.verify("events")


def test_a_commit_while_another_process_starts_is_no_loss(lake, monkeypatch):
    read = Checksums.read

    def meanwhile(self: Checksums) -> object:
        monkeypatch.undo()
        Lake(lake.root).append("events", events("late"))
        return read(self)

    monkeypatch.setattr(Checksums, "read", meanwhile)
    CommitIntegrity(lake.root, "events").check()
    assert lake.version("events") == 6


def test_a_reader_of_a_log_that_is_being_shortened_reads_again(lake, monkeypatch):
    once = Lake._open_once

    def shortened(self: Lake, table: str, version: int | None) -> object:
        monkeypatch.undo()
        upkeep = Compaction(lake, "events")
        upkeep.compact()
        upkeep.clear([3], LATER)
        raise LakeError("lake.file_broken", "a file of the log is not there any more")

    monkeypatch.setattr(Lake, "_open_once", shortened)
    assert lake.read("events", version=3).height == 4
    assert once is Lake._open_once


@pytest.fixture
def armed(monkeypatch):
    def arm(text: str) -> None:
        failpoints._armed.cache_clear()
        failpoints._passed.clear()
        monkeypatch.setenv(failpoints.VARIABLE, text)

    yield arm
    monkeypatch.undo()
    failpoints._armed.cache_clear()


@pytest.mark.parametrize("point", ["committed", "fsynced", *failpoints.FAILPOINTS["upkeep"][:-1]])
def test_ended_anywhere_the_next_call_goes_on(lake, armed, point):
    was = lake.read("events").sort(c.EVENT_ID), lake.read("events", version=2)
    armed(f"{point}:raise")
    with pytest.raises(FailpointReached):
        keep(lake)
    armed("")
    lake = Lake(lake.root)
    lake.check_tail()
    for _ in range(2):
        assert lake.read("events").sort(c.EVENT_ID).equals(was[0])
        assert lake.read("events", version=2).equals(was[1])
        lake.verify("events", 2)
        keep(lake)
        lake.check_tail()
    assert len(data_of(lake, "events")) == 2 + 3 + 2
    assert lake.last_txn("events", "ingest") == 6


def keep(lake: Lake) -> None:
    upkeep = Compaction(lake, "events")
    upkeep.compact()
    upkeep.clear([2], LATER)


def test_a_reader_never_gets_a_false_report_of_damage(tmp_path):
    """Looks as a command does when it starts, while tables are compacted and cleared."""
    lake = Lake(tmp_path / "lake")
    small(lake)
    was = lake.read("events", version=2)
    faults: list[str] = []
    looks = 0
    over = threading.Event()

    def look() -> None:
        nonlocal looks
        while not over.is_set():
            looks += 1
            try:
                fresh = Lake(lake.root)
                fresh.check_tail()
                if not fresh.read("events", version=2).equals(was):
                    faults.append("another version 2")
            except LakeError as error:
                faults.append(error.sentence)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for turn in range(12):
            small(lake, 4, start=6 + 4 * turn)
            upkeep = Compaction(lake, "events")
            upkeep.compact()
            upkeep.clear([2], EARLIER)
            age(lake)
    finally:
        over.set()
        reader.join()
    assert looks > 5
    assert faults == []
