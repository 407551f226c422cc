"""Data files and lists that differ from those written are neither trained on nor published.

What can go wrong:
* a bit of an older data file flips      -> the next night ends with its name
* live lists are rewritten               -> the next night ends with their file
* lists do not come back as they went in -> no swap, and the live lists stay live
"""

import hashlib

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.errors import LakeError
from pipeline.steps.feedback import foldin
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly import publish
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.workspace.publications import stage
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import NIGHTS, copy_of, land, purchases


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
    data[data.rindex(b"-rs version")] ^= 1  # where no reader notices it
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
