"""Checkpoints and checksums are restored from the log; damage never gets a valid checksum.

What can go wrong: a checkpoint is made from a damaged log; a file that differs from its checksum
is accepted; a file that is visibly cut is; killed half way, a later call cannot go on; a sound
table is changed.
"""

import os
import shutil

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.stores.lake import Compaction, Lake, Restoration
from tests.raising import raises
from tests.unit.stores.lake.test_compaction import LATER
from tests.unit.stores.lake.test_lake import data_of, events, items, log_of

LOG = "_delta_log"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Events of four commits, merged by `gc`, and two later ones; a checkpoint at version 4."""
    lake = Lake(tmp_path_factory.mktemp("original") / "lake")
    for n in range(4):
        lake.append("events", events(f"e{n}", day=n % 2), txn=("ingest", n + 1))
    Compaction(lake, "events").compact()
    Compaction(lake, "events").clear([], LATER.replace(year=2020))
    for n in range(4, 6):
        lake.append("events", events(f"e{n}", day=n % 2), txn=("ingest", n + 1))
    return lake.root


@pytest.fixture
def lake(original, tmp_path):
    return Lake(shutil.copytree(original, tmp_path / "lake"))


def content(lake):
    lake.check_tail()
    lake.verify("events")
    rows = lake.read("events").sort(c.EVENT_ID).rows()
    return rows, lake.version("events"), lake.last_txn("events", "ingest")


def checkpoint(lake):
    [path] = (lake.root / "events" / LOG).glob("*.checkpoint.parquet")
    return path


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sums(lake):
    return lake.root / "_sums" / "events.jsonl"


CHECKPOINT_DAMAGES = {
    "flipped": flip,
    "lost": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGES)
def test_a_damaged_checkpoint_is_made_again(lake, damage):
    before, name = content(lake), checkpoint(lake).name
    CHECKPOINT_DAMAGES[damage](checkpoint(lake))
    with raises("lake.file_altered", "lake.file_lost"):
        lake.check_tail()
    assert Restoration(lake.root, "events").rebuild_checkpoints() == (f"{LOG}/{name}",)
    assert content(lake) == before
    assert Restoration(lake.root, "events").lost_sums() == {}
    assert lake.append("events", events("new"), txn=("ingest", 7)) == before[1] + 1
    Compaction(lake, "events").clear([], LATER)
    assert lake.read("events").height == len(before[0]) + 1


def test_a_checkpoint_without_its_log_is_not_made_again(lake):
    flip(checkpoint(lake))
    log_of(lake, "events", 2).unlink()
    with raises("lake.log_incomplete"):
        Restoration(lake.root, "events").rebuild_checkpoints()
    assert checkpoint(lake).exists()


@pytest.mark.parametrize("pointer", [b"", b'{"version":9', b'{"version":777,"size":3}'])
def test_a_wrong_pointer_is_removed(lake, pointer):
    before, path = content(lake), lake.root / "events" / LOG / "_last_checkpoint"
    path.write_bytes(pointer)
    names = Restoration(lake.root, "events").rebuild_checkpoints()
    assert names == (f"{LOG}/_last_checkpoint",)
    assert content(lake) == before


def test_a_sound_table_is_not_changed(lake):
    before = {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()}
    restoration = Restoration(lake.root, "events")
    assert restoration.rebuild_checkpoints() == ()
    assert restoration.lost_sums() == {}
    assert restoration.damaged_files(lake.files("events")) == ()
    assert before == {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()}
    assert Restoration(lake.root, "items").rebuild_checkpoints() == ()
    assert Restoration(lake.root, "items").lost_sums() == {}


def without_line(number):
    def damage(path):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(line for n, line in enumerate(lines) if n != number))

    return damage


SUMS_DAMAGES = {
    "deleted": lambda path: path.unlink(),
    "folder deleted": lambda path: shutil.rmtree(path.parent),
    "first line lost": without_line(0),
    "checkpoint's line lost": without_line(4),
    "a byte flipped": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"version"', b'"vErsion"', 2)
    ),
}


@pytest.mark.parametrize("damage", SUMS_DAMAGES)
def test_lost_checksums_are_accepted(lake, damage):
    before = content(lake)
    named = Restoration(lake.root, "events").sums.read().sums
    SUMS_DAMAGES[damage](sums(lake))
    restoration = Restoration(lake.root, "events")
    lost = restoration.lost_sums()
    assert lost
    restoration.accept_sums(lost)
    assert content(lake) == before
    assert restoration.lost_sums() == {}
    after = restoration.sums.read().sums
    assert {name: after[name] for name in named if name in after} == {
        name: total for name, total in named.items() if name in after
    }
    assert set(named) - set(after) <= {name for name in named if name.startswith("event_day")}
    assert lake.append("events", events("new"), txn=("ingest", 7)) == before[1] + 1


def test_an_altered_file_does_not_get_a_valid_checksum(lake):
    without_line(0)(sums(lake))
    path = lake.root / "events" / sorted(lake.files("events"))[0]
    flip(path)
    restoration = Restoration(lake.root, "events")
    restoration.accept_sums(restoration.lost_sums())
    with raises("lake.file_altered"):
        lake.verify("events")


@pytest.mark.parametrize(("place", "id"), [(0, "lake.unavailable"), (1, "lake.file_cut")])
def test_a_file_that_is_cut_is_not_accepted(lake, place, id):
    sums(lake).unlink()
    path = data_of(lake, "events")[place]
    path.write_bytes(path.read_bytes()[:-1])
    with raises(id):
        Restoration(lake.root, "events").lost_sums()


def test_a_log_that_is_cut_is_not_accepted(lake):
    sums(lake).unlink()
    log_of(lake, "events", 5).write_bytes(b"")
    with raises("lake.log_cut"):
        Restoration(lake.root, "events").lost_sums()


def test_the_lost_checksums_of_the_last_version_are_not_accepted_without_a_user(lake):
    """A killed writer leaves the same; the next writer compares its rows, and a repair does not."""
    lines = sums(lake).read_bytes().splitlines(keepends=True)
    sums(lake).write_bytes(b"".join(lines[:-1]))
    lost = Restoration(lake.root, "events").lost_sums()
    assert set(lost) == {lake.version("events")}
    assert sums(lake).read_bytes() == b"".join(lines[:-1])


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("store", ["checkpoint", "sums"])
def test_a_killed_repair_is_completed(lake, monkeypatch, store, call):
    before = content(lake)
    if store == "checkpoint":
        flip(checkpoint(lake))
    else:
        sums(lake).unlink()
    real, deaths = getattr(os, call), 0
    while True:
        calls = iter(range(1000))

        def dying(*args, **kwargs):
            if next(calls) == deaths:  # noqa: B023
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        restoration = Restoration(lake.root, "events")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, dying)
            try:
                if store == "checkpoint":
                    restoration.rebuild_checkpoints()
                else:
                    restoration.accept_sums(restoration.lost_sums())
            except KeyboardInterrupt:
                deaths += 1
                continue
        break
    assert content(lake) == before
    assert restoration.lost_sums() == {}


def test_partitions_are_replaced_without_reading_their_old_files(lake):
    rows = lake.read("events").sort(c.EVENT_ID)
    days = sorted(set(rows[c.EVENT_DAY].cast(pl.String)))
    assert len(days) == 2
    for path in (lake.root / "events").rglob("event_day=*/*.parquet"):
        path.write_bytes(b"")
    with raises("lake.other_partition"):
        lake.replace_partitions("events", rows, days[:1])
    with raises("lake.partition_name"):
        lake.replace_partitions("events", rows.clear(), ["x' OR 1"])
    lake.replace_partitions("events", rows, days)
    assert lake.read("events").sort(c.EVENT_ID).equals(rows)
    assert lake.last_txn("events", "ingest") == 6
    lake.replace_partitions("events", rows.clear(), days[:1])
    assert lake.read("events").height < rows.height


def test_an_unpartitioned_table_has_checkpoints_too(tmp_path):
    lake = Lake(tmp_path / "lake")
    for number in range(3):
        lake.append("items", items(f"i{number}"))
    Compaction(lake, "items").clear([], LATER.replace(year=2020))
    [path] = (lake.root / "items" / LOG).glob("*.checkpoint.parquet")
    path.unlink()
    assert Restoration(lake.root, "items").rebuild_checkpoints()
    lake.check_tail()
    assert lake.read("items").height == 3
