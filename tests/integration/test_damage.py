"""Data files and lists that differ from those written are neither trained on nor published.

What can go wrong:
* a bit of an older data file flips      -> the next night ends with its name
* live lists are rewritten               -> the next night ends with their file
* lists do not come back as they went in -> no swap, and the live lists stay live
* the disk is full when lists are written -> one sentence, and the next pass completes
"""

import hashlib
import os
from datetime import timedelta

import polars as pl
import pytest
from deltalake.exceptions import DeltaError

from pipeline import columns as c
from pipeline.errors import LakeError
from pipeline.steps.feedback import foldin
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly import publish
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.stores.lake import delta
from pipeline.workspace.publications import stage
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import NIGHTS, START, copy_of, land, purchases


@pytest.fixture
def ws(one_night, tmp_path):
    return Workspace.open(copy_of(one_night[0], tmp_path / "home"))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def size(data):
    return f'"size":{len(data)},'


def short_of_a_row(ws, name, rows):
    """Stage the lists without one line, as a faulty disk could."""
    stage(ws, name, rows.head(-1))


def test_a_flipped_bit_of_an_older_data_file_ends_the_night(ws):
    [path, *_] = sorted((ws.home / "lake" / "events").rglob("*.parquet"))
    land(ws.home, purchases(), NIGHTS[1], NIGHTS[0])
    feedback(ws, NIGHTS[1])
    data = bytearray(path.read_bytes())
    data[data.rindex(b" version ")] ^= 1  # where no reader notices it
    path.write_bytes(data)
    again = Workspace.open(ws.home)
    with pytest.raises(LakeError, match=r"events: a file of version \d+ was altered \(event_day="):
        snapshot(again, NIGHTS[1])


@pytest.mark.parametrize("redone", [False, True])
def test_live_lists_that_were_rewritten_end_the_night(ws, redone):
    """Also with the size in the log and the checksum of the file made anew."""
    [path] = (ws.home / "lake" / "recommendations").rglob("*=p-*/*.parquet")
    before = path.read_bytes()
    pl.read_parquet(path).with_columns(pl.lit("EVIL").alias(c.ITEM_ID)).write_parquet(path)
    if redone:
        after = path.read_bytes()
        sums = ws.home / "lake" / "_sums" / "recommendations.jsonl"
        [log] = (ws.home / "lake" / "recommendations" / "_delta_log").glob("*.json")
        for file, make in ((sums, digest), (log, size)):
            assert make(before) in file.read_text()
            file.write_text(file.read_text().replace(make(before), make(after)))
    with raises("lake.file_altered"):
        nightly(Workspace.open(ws.home), NIGHTS[1])


def test_no_night_points_users_to_lists_that_did_not_come_back(ws, monkeypatch):
    land(ws.home, purchases(), NIGHTS[1], NIGHTS[0])
    monkeypatch.setattr(foldin, "stage", short_of_a_row)
    monkeypatch.setattr(publish, "stage", short_of_a_row)
    live = ws.lake.read("publications").rows(), lists(ws, None).rows()
    assert len(live[0]) == 1
    words = "the lists of publication p-.* differ from the lists that were written"
    with pytest.raises(LakeError, match=words):
        feedback(ws, NIGHTS[1])
    assert (ws.lake.read("publications").rows(), lists(ws, None).rows()) == live
    with pytest.raises(LakeError, match=words):
        nightly(ws, NIGHTS[1])
    assert (ws.lake.read("publications").rows(), lists(ws, None).rows()) == live
    # The disk is mended: the same night goes on, and its lists are whole.
    monkeypatch.undo()
    assert nightly(ws, NIGHTS[1]).status == "done"
    assert ws.lake.read("publications")[c.BASE].null_count() == 2


@pytest.mark.parametrize("table", ["recommendations", "publications"])
def test_a_disk_that_is_full_at_the_patch_loses_nothing(third_landed, tmp_path, monkeypatch, table):
    """The events of the pass are in the lake, and its lists are not."""
    ws = Workspace.open(copy_of(third_landed, tmp_path / "home"))
    day = NIGHTS[2] - timedelta(hours=1)
    path = ws.home / "landing" / "events" / "new.csv"
    rows = [f"new-{n},u{n},i{n},1,{day:%Y-%m-%dT%H:%M:%SZ}" for n in range(5)]
    path.write_text("\n".join(["event_id,user_id,item_id,value,timestamp", *rows, ""]))
    os.utime(path, (START.timestamp(),) * 2)
    undisturbed = Workspace.open(copy_of(ws.home, tmp_path / "undisturbed"))
    feedback(undisturbed, NIGHTS[2])
    write, live = delta.write_delta, lists(ws, None)

    def full(path, *arguments, **options):
        if getattr(path, "table_uri", str(path)).rstrip("/").endswith(table):
            raise DeltaError("Generic LocalFileSystem error: No space left on device (os error 28)")
        write(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(delta, "write_delta", full)
        with raises("lake.unavailable") as failed:
            feedback(ws, NIGHTS[2])
    assert "no space left on device; free disk space" in failed.value.sentence
    assert lists(Workspace.open(ws.home), None).equals(live)
    feedback(Workspace.open(ws.home), NIGHTS[2])
    again = Workspace.open(ws.home)
    for name in ("events", "publications"):
        assert again.lake.read(name).height == undisturbed.lake.read(name).height
    drop = c.PUBLICATION_ID
    assert lists(again, None).drop(drop).equals(lists(undisturbed, None).drop(drop))
