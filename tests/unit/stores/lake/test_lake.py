import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from pipeline import columns as c
from pipeline.errors import ConcurrencyError, LakeError
from pipeline.stores import disk
from pipeline.stores.disk import sha256
from pipeline.stores.lake import SCHEMAS, Compaction, Lake, commit_integrity
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from tests.raising import raises

START = datetime(2024, 3, 1, 12, tzinfo=UTC)


def events(*names: str, day: int = 0, user: str = "u-anna") -> pl.DataFrame:
    when = START + timedelta(days=day)
    row = {
        c.USER_ID: user,
        c.ITEM_ID: "i-bread",
        c.KIND: "purchase",
        c.VALUE: 1.0,
        c.TIMESTAMP: when,
        c.PUBLICATION_ID: None,
        c.POSITION: None,
        c.INGESTED_AT: START,
        c.SOURCE: "s",
        c.BATCH_ID: "b",
        c.EVENT_DAY: when.date(),
    }
    return pl.DataFrame([{c.EVENT_ID: name, **row} for name in names], schema=c.EVENTS)


def items(*names: str, **more: str) -> pl.DataFrame:
    rows = [
        {c.ITEM_ID: n, c.TITLE: n, c.CATEGORIES: ["a", "b"], c.PRICE: 1.5, c.AVAILABLE: True}
        for n in names
    ]
    frame = pl.DataFrame(rows, schema=dict(c.ITEMS))
    return frame.with_columns(pl.lit(value).alias(name) for name, value in more.items())


def lists(publication: str, *names: str) -> pl.DataFrame:
    rows = [
        (publication, "u", place, item, 0.5, "model", 1.0, "because")
        for place, item in enumerate(names, start=1)
    ]
    return pl.DataFrame(rows, schema=c.RECOMMENDATIONS, orient="row")


def ids(frame: pl.DataFrame) -> list[str]:
    return sorted(frame[c.EVENT_ID])


@pytest.fixture(params=["lake", "la ké"])
def lake(request, tmp_path):
    return Lake(tmp_path / request.param)


def log_of(lake: Lake, table: str, version: int) -> Path:
    return lake.root / table / "_delta_log" / f"{version:020}.json"


def data_of(lake: Lake, table: str) -> list[Path]:
    return sorted((lake.root / table).rglob("*.parquet"))


def test_a_table_that_was_never_written_is_empty(lake):
    for table, schema in SCHEMAS.items():
        assert lake.version(table) is None
        frame = lake.read(table)
        assert frame.schema == schema
        assert frame.height == 0
    lake.check_tail()


def test_rows_come_back_as_they_went(lake):
    first, second = events("e1", "e2"), events("e3", day=1)
    assert lake.append("events", first) == 0
    assert lake.append("events", second) == 1
    back = lake.read("events").sort(c.EVENT_ID)
    assert back.schema == c.EVENTS
    assert back.equals(pl.concat([first, second]))


def test_an_older_version_can_be_read(lake):
    lake.append("events", events("e1"))
    lake.append("events", events("e2"))
    assert ids(lake.read("events", version=0)) == ["e1"]
    assert ids(lake.read("events")) == ["e1", "e2"]
    with raises("lake.version_vacuumed"):
        lake.read("events", version=7)


def test_columns_and_conditions(lake):
    lake.append("events", pl.concat([events("e1"), events("e2", day=1)]))
    rows = lake.read(
        "events", columns=[c.EVENT_DAY, c.EVENT_ID], where=pl.col(c.EVENT_DAY) > START.date()
    )
    assert rows.rows() == [(date(2024, 3, 2), "e2")]


def test_a_transaction_is_written_once(lake):
    assert lake.append("events", events("e1"), txn=("ingest", 3)) == 0
    assert lake.append("events", events("e1"), txn=("ingest", 3)) == 0
    assert lake.append("events", events("e1"), txn=("ingest", 2)) == 0
    assert lake.append("events", events("e2"), txn=("other", 1)) == 1
    assert ids(lake.read("events")) == ["e1", "e2"]
    assert lake.last_txn("events", "ingest") == 3
    assert lake.last_txn("events", "nobody") is None


def test_replace_puts_a_whole_table(lake):
    lake.append("items", items("bread", "milk"))
    lake.replace("items", items("milk", brand="x"), txn=("ingest", 1))
    lake.replace("items", items("salt"), txn=("ingest", 1))
    assert lake.read("items").select(c.ITEM_ID, "brand").rows() == [("milk", "x")]
    assert lake.read("items", version=0).height == 2


def test_items_may_gain_columns(lake):
    lake.append("items", items("bread"))
    lake.append("items", items("milk", brand="x"))
    rows = lake.read("items").sort(c.ITEM_ID)
    assert rows["brand"].to_list() == [None, "x"]
    assert rows.drop("brand").equals(items("bread", "milk"))


def test_replacing_a_partition_is_idempotent(lake):
    lake.append("recommendations", pl.concat([lists("p1", "a"), lists("p2", "b", "c")]))
    for _ in range(2):
        lake.replace_where("recommendations", lists("p2", "d"), "p2")
        rows = lake.read("recommendations").sort(c.PUBLICATION_ID)
        assert rows.equals(pl.concat([lists("p1", "a"), lists("p2", "d")]))


@pytest.mark.parametrize(
    ("frame", "value", "problem"),
    [
        (lists("p1", "a"), "p2", "lake.other_partition"),
        (lists("p/1", "a"), "p/1", "lake.partition_name"),
        (lists("x' OR 1", "a"), "x' OR 1", "lake.partition_name"),
    ],
)
def test_a_partition_that_does_not_fit_is_refused(lake, frame, value, problem):
    with raises(problem):
        lake.replace_where("recommendations", frame, value)


def test_another_schema_is_refused(lake):
    with raises("lake.schema"):
        lake.append("events", events("e1").with_columns(pl.col(c.VALUE).cast(pl.Int64)))
    with raises("lake.schema"):
        lake.append("events", events("e1").with_columns(brand=pl.lit("x")))
    with raises("lake.unknown_table"):
        lake.append("event", events("e1"))
    assert lake.version("events") is None


def test_no_id_enters_the_log(lake):
    lake.append("events", events("e-secret", user="u-anna"))
    lake.append("items", items("i-bread"))
    lake.append("recommendations", lists("p1", "i-bread"))
    for table, names in {
        "events": ("e-secret", "u-anna", "i-bread"),
        "items": ("i-bread",),
        "recommendations": ("i-bread", '"u"'),
    }.items():
        text = log_of(lake, table, 0).read_text()
        assert "numRecords" in text
        for name in names:
            assert name not in text


@pytest.mark.parametrize("left", [0, 40])
def test_a_cut_last_commit_is_an_error(lake, left):
    lake.append("events", events("e1"))
    lake.append("events", events("e2"))
    path = log_of(lake, "events", 1)
    path.write_bytes(path.read_bytes()[:left])
    with raises("lake.log_cut"):
        lake.check_tail()


def test_a_lost_last_commit_is_an_error(lake):
    lake.append("events", events("e1"))
    lake.append("events", events("e2"))
    log_of(lake, "events", 1).unlink()
    assert ids(lake.read("events")) == ["e1"]  # the library raises no error
    with raises("lake.log_lost"):
        lake.check_tail()


@pytest.mark.parametrize("damage", ["lost", "empty", "altered"])
def test_a_damaged_data_file_is_an_error(lake, damage):
    lake.append("events", events("e1"))
    [path] = data_of(lake, "events")
    if damage == "lost":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
    with raises("lake.file_altered", "lake.file_lost"):
        lake.check_tail()


def test_an_older_file_is_checked_on_request(lake):
    lake.append("events", events("e1"))
    [path] = data_of(lake, "events")
    lake.append("events", events("e2", day=1))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    lake.check_tail()
    with raises("lake.file_altered"):
        lake.verify("events")
    with raises("lake.file_altered"):
        lake.verify("events", version=0)


def test_a_file_without_bytes_is_no_panic(lake):
    lake.append("events", events("e1"))
    [path] = data_of(lake, "events")
    path.write_bytes(b"")
    with raises("lake.file_altered"):
        lake.read("events")
    forget(lake, "events")  # without its checksum the size shows it
    with raises("lake.file_cut"):
        lake.read("events")


def forget(lake: Lake, table: str) -> None:
    """Leave the table as if its last writer had been killed before it acknowledged."""
    sums = lake.root / "_sums" / f"{table}.jsonl"
    lines = sums.read_bytes().splitlines(keepends=True)
    sums.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])


def test_a_commit_of_a_killed_writer_is_sound(lake):
    lake.append("events", events("e1"))
    lake.append("events", events("e2", day=1))
    forget(lake, "events")
    lake.check_tail()
    assert ids(lake.read("events")) == ["e1", "e2"]


LEFT_BY_A_POWER_CUT = {
    "an empty log": lambda log, data: log.write_bytes(b""),
    "a part of the log": lambda log, data: log.write_bytes(log.read_bytes()[:-9]),
    "an empty file": lambda log, data: data.write_bytes(b""),
    "a part of the file": lambda log, data: data.write_bytes(data.read_bytes()[:-9]),
    "no file": lambda log, data: data.unlink(),
    "zeros in the log": lambda log, data: zero(log),
    "zeros in the file": lambda log, data: zero(data),
    "zeros in a page of the file": lambda log, data: zero(data, keep=4),
    "an empty checkpoint": lambda log, data: checkpoint_of(log).write_bytes(b""),
    "zeros in the checkpoint": lambda log, data: zero(checkpoint_of(log)),
    "an empty file below a checkpoint": lambda log, data: (
        checkpoint_of(log),
        data.write_bytes(b""),
    ),
}


def zero(path: Path, keep: int = 0) -> None:
    """Leave a file with its size and, but for some bytes at its end, without its content."""
    data = path.read_bytes()
    end = len(data) - 300 if keep else len(data)
    path.write_bytes(data[:keep] + bytes(end - keep) + data[end:])


def checkpoint_of(log: Path) -> Path:
    """Write the checkpoint that the library writes with every hundredth commit."""
    DeltaTable(log.parents[1]).create_checkpoint()
    return log.with_suffix(".checkpoint.parquet")


@pytest.mark.parametrize("left", LEFT_BY_A_POWER_CUT)
@pytest.mark.parametrize("version", [0, 1])
def test_a_commit_that_a_power_cut_left_in_part_is_withdrawn_and_repeated(lake, left, version):
    for number in range(version + 1):
        lake.append("events", events(f"e{number}", day=number), txn=("ingest", number + 1))
    data = next(p for p in data_of(lake, "events") if f"2024-03-0{version + 1}" in str(p))
    # After the commit and before its acknowledgement.
    forget(lake, "events")
    LEFT_BY_A_POWER_CUT[left](log_of(lake, "events", version), data)
    lake.check_tail()
    assert lake.version("events") == (version - 1 if version else None)
    last = events(f"e{version}", day=version)
    assert lake.append("events", last, txn=("ingest", version + 1)) == version
    lake.check_tail()
    lake.verify("events")
    assert ids(lake.read("events")) == [f"e{number}" for number in range(version + 1)]


def torn(lake: Lake) -> CommitIntegrity:
    """Leave the second commit of `events` as after a power cut."""
    lake.append("events", events("e0"))
    lake.append("events", events("e1", day=1))
    forget(lake, "events")
    log_of(lake, "events", 1).write_bytes(b"")
    return CommitIntegrity(lake.root, "events")


KILLED = {
    "append": lambda lake: lake.append("events", pl.concat([events("e2"), events("e3", day=1)])),
    "append of nothing": lambda lake: lake.append("events", events()),
    "append of a column": lambda lake: lake.append("items", items("salt", brand="x")),
    "append without a column": lambda lake: lake.append("items", items("salt")),
    "replace": lambda lake: lake.replace("items", items("salt", colour="red")),
    "replace by nothing": lambda lake: lake.replace("items", items()),
    "replace a partition": lambda lake: lake.replace_where("events", events("e2"), "2024-03-01"),
    "lists": lambda lake: lake.append("recommendations", lists("p-1", "bread", "milk")),
    "merge": lambda lake: Compaction(lake, "events").compact(),
    "delete": lambda lake: Compaction(lake, "events").drop_before(c.INGESTED_AT, START),
    "delete partitions": lambda lake: Compaction(lake, "events").drop_partitions(["2024-03-01"]),
}


@pytest.mark.parametrize("commit", KILLED)
def test_the_rows_of_a_killed_writer_are_compared_with_its_commit(lake, commit):
    old = pl.lit(START - timedelta(days=1), c.EVENTS[c.INGESTED_AT]).alias(c.INGESTED_AT)
    lake.append("events", pl.concat([events("e0"), events("e1").with_columns(old)]))
    lake.append("events", events("e1"))
    lake.replace("items", items("milk", brand="y"))
    KILLED[commit](lake)
    for table in SCHEMAS:
        if lake.version(table) is not None:
            forget(lake, table)
    again = Lake(lake.root)
    again.check_tail()
    again.acknowledge(*SCHEMAS)
    for table in SCHEMAS:
        again.verify(table)
    again.check_tail()


def alter(lake, table, old, new):
    """Change the newest data file of a table; its size and its form stay."""
    path = max(data_of(lake, table), key=lambda path: path.stat().st_mtime_ns)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    os.utime(path, ns=times)


ALTERED = {
    "append": lambda lake: lake.append("events", events("e2", day=1)),
    "merge": lambda lake: Compaction(lake, "events").compact(),
}


@pytest.mark.parametrize("commit", ALTERED)
def test_a_killed_writer_does_not_make_an_altered_file_valid(lake, commit):
    lake.append("events", events("e0"))
    lake.append("events", events("e1"))
    ALTERED[commit](lake)
    alter(lake, "events", b"i-bread", b"i-breed")
    forget(lake, "events")
    again = Lake(lake.root)
    with raises("lake.commit_altered"):
        again.check_tail()
    with raises("lake.commit_altered"):
        again.acknowledge("events")
    with raises("lake.commit_altered"):
        again.append("events", events("e3"))
    assert again.version("events") == 2


OTHERS = {
    "delete": lambda table: table.delete("event_id = 'e0'"),
    "update": lambda table: table.update({"item_id": "'i-milk'"}, predicate="event_id = 'e0'"),
    "merge": lambda table: table.optimize.compact(),
}


@pytest.mark.parametrize("commit", OTHERS)
def test_a_commit_of_another_program_is_not_acknowledged(lake, commit):
    lake.append("events", pl.concat([events("e0"), events("e1")]))
    lake.append("events", events("e2"))
    OTHERS[commit](DeltaTable(lake.root / "events"))
    again = Lake(lake.root)
    with raises("lake.commit_altered") as caught:
        again.check_tail()
    assert "not committed by Nightjar" in caught.value.sentence
    with raises("lake.commit_altered"):
        again.append("events", events("e3"))


def test_a_digest_of_another_polars_is_named_as_that(lake, monkeypatch):
    lake.append("events", events("e0"))
    with monkeypatch.context() as patched:
        patched.setattr(pl, "__version__", "0.1.2")
        lake.append("events", events("e1", day=1))
    forget(lake, "events")
    with raises("lake.commit_altered") as caught:
        Lake(lake.root).check_tail()
    assert "polars 0.1.2" in caught.value.sentence


def test_a_slow_process_does_not_withdraw_the_commit_that_was_repeated(lake, monkeypatch):
    slow, complete = torn(lake), CommitIntegrity._is_complete

    def stopped(self, version):
        monkeypatch.setattr(CommitIntegrity, "_is_complete", complete)
        is_complete = complete(self, version)
        lake.check_tail()
        lake.append("events", events("e1", day=1))
        return is_complete

    monkeypatch.setattr(CommitIntegrity, "_is_complete", stopped)
    slow.check()
    assert ids(Lake(lake.root).read("events")) == ["e0", "e1"]
    lake.check_tail()


def test_a_commit_is_acknowledged_once(lake, monkeypatch):
    lake.append("events", events("e0"))
    lake.append("events", events("e1", day=1))
    forget(lake, "events")
    second = threading.Thread(target=CommitIntegrity(lake.root, "events").acknowledge, args=(1,))

    def slow(*paths):
        if not second.ident:
            second.start()
            second.join(0.5)
        disk.sync(*paths)

    monkeypatch.setattr(commit_integrity, "sync", slow)
    CommitIntegrity(lake.root, "events").acknowledge(1)
    second.join()
    lines = (lake.root / "_sums/events.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["version"] for line in lines] == [0, 1]
    lake.check_tail()


def test_commits_of_a_writer_at_work_are_never_withdrawn(lake):
    lake.append("events", events("first"))
    code = (
        "import sys; from pathlib import Path; from pipeline.stores.lake import Lake\n"
        "lake = Lake(Path(sys.argv[1])); frame = lake.read('events')\n"
        "for number in range(25): lake.append('events', frame)\n"
    )
    folder = Path(__file__).parents[4]
    with subprocess.Popen([sys.executable, "-c", code, str(lake.root)], cwd=folder) as writer:
        while writer.poll() is None:
            Lake(lake.root).check_tail()
    assert writer.returncode == 0
    assert lake.version("events") == 25
    assert lake.read("events").height == 26


def test_an_unreadable_disk_withdraws_nothing(lake, monkeypatch):
    lake.append("events", events("e0"))
    lake.append("events", events("e1", day=1))
    forget(lake, "events")

    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(pl, "read_parquet", broken)
        with raises("lake.unavailable"):
            lake.check_tail()
    lake.check_tail()
    assert ids(lake.read("events")) == ["e0", "e1"]


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
@pytest.mark.parametrize("file", ["data", "log", "older log", "checksums"])
def test_an_irregular_file_blocks_no_reader(lake, file, kind):
    lake.append("events", events("e0"))
    lake.append("events", events("e1", day=1))
    path = {
        "data": data_of(lake, "events")[0],
        "log": log_of(lake, "events", 1),
        "older log": log_of(lake, "events", 0),
        "checksums": lake.root / "_sums/events.jsonl",
    }[file]
    path.unlink()
    kind(path)
    with pytest.raises(LakeError):
        lake.check_tail()
        lake.read("events")
    assert os.path.lexists(path)


def test_an_acknowledged_commit_is_never_withdrawn(lake):
    lake.append("events", events("e1"))
    lake.append("events", events("e2", day=1))
    log_of(lake, "events", 1).write_bytes(b"")
    with raises("lake.log_cut"):
        lake.check_tail()
    assert log_of(lake, "events", 1).exists()


def test_an_older_file_without_a_sum_is_not_trusted(lake):
    for day in range(3):
        lake.append("events", events(f"e{day}", day=day))
    sums = lake.root / "_sums" / "events.jsonl"
    _, *others = sums.read_bytes().splitlines(keepends=True)
    sums.write_bytes(b"".join(others))
    lake.check_tail()
    with raises("lake.file_unsummed"):
        lake.verify("events")
    with raises("lake.file_unsummed"):
        lake.verify("events", version=0)
    next(p for p in data_of(lake, "events") if "2024-03-01" in str(p)).unlink()
    with raises("lake.file_lost"):
        lake.verify("events")
    sums.unlink()
    with raises("lake.file_lost"):
        lake.verify("events")


def test_lost_sums_are_not_made_anew(lake):
    """They would confirm the present content of the files, damaged or not."""
    for day in range(2):
        lake.append("events", events(f"e{day}", day=day))
    (lake.root / "_sums" / "events.jsonl").unlink()
    with raises("lake.sums_lost"):
        lake.check_tail()
    with raises("lake.sums_lost"):
        lake.append("events", events("e2", day=2))
    assert lake.version("events") == 1


def test_a_writer_that_slept_before_it_acknowledged_finds_it_done(lake):
    for day in range(3):
        lake.append("events", events(f"e{day}", day=day))
    CommitIntegrity(lake.root, "events").acknowledge(1)
    assert CommitIntegrity(lake.root, "events").acknowledged() == 2
    lake.check_tail()
    assert lake.append("events", events("e3", day=3)) == 3


@pytest.mark.parametrize("text", [b"[1]\n", b"\0", b'{"version": 1}\n', b'{"version": "x"}\n'])
def test_garbled_sums_are_lost_ones(lake, text):
    for day in range(2):
        lake.append("events", events(f"e{day}", day=day))
    (lake.root / "_sums" / "events.jsonl").write_bytes(text)
    with raises("lake.sums_lost"):
        lake.check_tail()


def test_a_folder_in_the_place_of_sums_is_named(lake):
    lake.append("events", events("e1"))
    sums = lake.root / "_sums" / "events.jsonl"
    sums.unlink()
    sums.mkdir()
    with raises("lake.checksums_not_a_file"):
        lake.check_tail()


def test_the_last_files_of_a_killed_writer_have_no_sum_yet(lake):
    lake.append("events", events("e1"))
    lake.append("events", events("e2", day=1))
    forget(lake, "events")
    lake.verify("events")
    cut = next(p for p in data_of(lake, "events") if "2024-03-02" in str(p))
    cut.write_bytes(cut.read_bytes()[:-9])
    with raises("lake.file_cut"):
        lake.verify("events")
    lake.verify("events", version=0)


def test_the_next_writer_acknowledges_the_commit_of_a_killed_one(lake):
    lake.append("events", events("e1"), txn=("ingest", 1))
    lake.append("events", events("e2", day=1), txn=("ingest", 2))
    forget(lake, "events")
    lake.append("events", events("e2", day=1), txn=("ingest", 2))
    assert lake.version("events") == 1
    log_of(lake, "events", 1).unlink()
    with raises("lake.log_lost"):
        lake.check_tail()


def test_a_folder_that_a_killed_writer_left_is_no_table(lake):
    (lake.root / "events" / "_delta_log").mkdir(parents=True)
    lake.check_tail()
    assert lake.version("events") is None
    assert lake.append("events", events("e1")) == 0


def test_sums_and_transactions_outlive_checkpoints(tmp_path):
    lake = Lake(tmp_path / "lake")
    for number in range(1, 103):
        lake.append("batches", pl.DataFrame(schema=c.BATCHES), txn=("ingest", number))
    assert list((lake.root / "batches" / "_delta_log").glob("*.checkpoint.parquet"))
    lake.check_tail()
    assert lake.last_txn("batches", "ingest") == 102
    assert lake.version("batches") == 101
    assert lake.read("batches", version=3).height == 0


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory):
    """A table with a checkpoint at version 99 and three commits since."""
    lake = Lake(tmp_path_factory.mktemp("checkpointed") / "lake")
    for number in range(103):
        lake.append("items", items(f"i{number}"))
    return lake


@pytest.mark.parametrize("left", [0, 2000, None])
def test_a_torn_or_lost_checkpoint_is_an_error(checkpointed, tmp_path, left):
    lake = Lake(tmp_path / "lake")
    shutil.copytree(checkpointed.root, lake.root)
    lake.check_tail()
    [path] = (lake.root / "items" / "_delta_log").glob("*.checkpoint.parquet")
    if left is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:left])
    with raises("lake.file_altered", "lake.file_lost"):
        lake.check_tail()
    with raises("lake.unavailable", "lake.file_lost"):
        lake.read("items")


def test_a_torn_pointer_to_a_checkpoint_costs_nothing(checkpointed, tmp_path):
    lake = Lake(tmp_path / "lake")
    shutil.copytree(checkpointed.root, lake.root)
    # The last one names a checkpoint that does not exist.
    for left in (b"", b'{"version":9', b'{"version":777,"size":3}'):
        (lake.root / "items" / "_delta_log" / "_last_checkpoint").write_bytes(left)
        lake.check_tail()
        assert lake.read("items").height == 103


def test_a_cut_commit_before_the_last_one_is_an_error(checkpointed, tmp_path):
    lake = Lake(tmp_path / "lake")
    shutil.copytree(checkpointed.root, lake.root)
    log_of(lake, "items", 101).write_bytes(b"")
    # The library would return 102 rows, without an error.
    with raises("lake.file_altered"):
        lake.read("items")
    with raises("lake.file_altered"):
        lake.check_tail()


def test_a_writer_that_was_overtaken_writes_nothing(lake):
    assert lake.append("events", events("e1"), after=-1) == 0
    assert lake.append("events", events("e2", day=1), after=0) == 1
    for stale in (-1, 0, 2):
        with raises("lake.conflict"):
            lake.append("events", events("e3"), after=stale)
    assert ids(lake.read("events")) == ["e1", "e2"]


def test_a_lake_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    lake = Lake(tmp_path / "file" / "lake")
    with raises("lake.unavailable"):
        lake.append("events", events("e1"))
    with raises("storage.cannot_write"), lake.lock("ingest"):
        pass


def test_a_lock_is_held_by_one(lake):
    with lake.lock("ingest"):
        with raises("lock.held"):
            lake.lock("ingest").__enter__()
        with lake.lock("other"):
            pass
    with lake.lock("ingest"):
        pass


def test_a_killed_process_leaves_no_lock(lake):
    with lake.lock("ingest"):
        pass
    path = lake.root / ".locks" / "ingest.lock"
    holder = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(ConcurrencyError):
            lake.lock("ingest").__enter__()
        process.kill()
        process.wait()
    with lake.lock("ingest"):
        pass


def flip(path: Path, place: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if place is None else place] ^= 1
    path.write_bytes(data)


def test_a_read_compares_the_files_of_its_partitions_and_no_others(lake):
    for day in range(3):
        lake.append("events", events(f"e{day}", day=day))
    [damaged] = [path for path in data_of(lake, "events") if "2024-03-02" in str(path)]
    flip(damaged)
    with raises("lake.file_altered"):
        lake.read("events")
    with raises("lake.file_altered"):
        lake.read("events", columns=[c.EVENT_ID], where=pl.col(c.EVENT_ID) == "e0")
    days = pl.col(c.EVENT_DAY)
    with raises("lake.file_altered"):
        lake.read("events", partitions=days <= START.date() + timedelta(days=1))
    others = lake.read("events", partitions=days != START.date() + timedelta(days=1))
    assert ids(others) == ["e0", "e2"]
    assert lake.read("events", partitions=days > START.date() + timedelta(days=9)).is_empty()


def test_partitions_by_name_are_selected(lake):
    lake.append("recommendations", pl.concat([lists("p1", "a"), lists("p2", "b", "c")]))
    wanted = pl.col(c.PUBLICATION_ID).is_in(["p2", "p9"])
    assert lake.read("recommendations", partitions=wanted)[c.ITEM_ID].to_list() == ["b", "c"]


def test_a_file_is_read_for_its_checksum_once_until_it_changes(lake, monkeypatch):
    for day in range(3):
        lake.append("events", events(f"e{day}", day=day))
    copy = Lake(lake.root.with_name("a copy"))
    shutil.copytree(lake.root, copy.root)
    hashed: list[Path] = []
    monkeypatch.setattr(disk, "sha256", lambda path: hashed.append(path) or sha256(path))
    copy.check_tail()
    copy.read("events")
    assert len(hashed) == len(set(hashed)) == 3 + 3  # data and log
    Lake(copy.root).read("events")
    assert len(hashed) == 6
    os.utime(hashed[-1])
    copy.read("events")
    assert hashed[6:] == [hashed[5]]


def test_a_damaged_line_of_checksums_is_named(lake):
    for day in range(4):
        lake.append("events", events(f"e{day}", day=day))
    sums = lake.root / "_sums" / "events.jsonl"
    whole = sums.read_bytes()
    second = whole.index(b"\n") + 1
    for place in (0, second, second - 1, whole.index(b'"version": 1') + 11):
        flip(sums, place)
        for read in (lake.check_tail, lambda: lake.read("events")):
            with raises("lake.checksums_damaged"):
                read()
        with raises("lake.checksums_damaged"):
            lake.append("events", events("e9"))
        sums.write_bytes(whole)
    assert lake.read("events").height == 4


def test_a_cut_line_of_checksums_is_replaced(lake):
    for day in range(2):
        lake.append("events", events(f"e{day}", day=day))
    sums = lake.root / "_sums" / "events.jsonl"
    whole = sums.read_bytes()
    last = whole.index(b"\n") + 1
    # Of a line that spans two blocks of the disk, a power cut may leave the second one only.
    for left in (whole[:-30], whole[:last] + bytes(40) + whole[last + 40 :]):
        sums.write_bytes(left)
        lake.check_tail()
        assert lake.read("events").height == 2
        lake.open_for_writing("events")
        assert sums.read_bytes() == whole


def test_a_log_that_did_not_change_is_read_once(lake, monkeypatch):
    lake.append("events", events("e1"))
    opened, read_log = [], Lake._read_log
    monkeypatch.setattr(
        Lake, "_read_log", lambda self, *what: opened.append(what) or read_log(self, *what)
    )
    again = Lake(lake.root)
    for _ in range(3):
        assert ids(again.read("events")) == ["e1"]
        assert ids(again.read("events", version=0)) == ["e1"]
    assert opened == [("events", None)]
    lake.append("events", events("e2"))  # as another process would
    assert ids(again.read("events")) == ["e1", "e2"]
    assert ids(again.read("events", version=0)) == ["e1"]
    again.append("events", events("e3"))
    assert ids(again.read("events")) == ["e1", "e2", "e3"]
    log_of(lake, "events", 0).write_bytes(b"{}")
    with raises("lake.file_altered"):
        again.read("events")


def test_a_commit_that_replaced_one_of_the_same_version_is_read(lake):
    lake.append("events", events("e0"))
    lake.append("events", events("e1", day=1))
    again = Lake(lake.root)
    assert ids(again.read("events")) == ["e0", "e1"]
    forget(lake, "events")
    log_of(lake, "events", 1).write_bytes(b"")
    CommitIntegrity(lake.root, "events").check()
    lake.append("events", events("e9", day=1))
    assert ids(again.read("events")) == ["e0", "e9"]
