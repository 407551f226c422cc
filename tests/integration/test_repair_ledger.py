"""A damaged, cut or lost ledger is written again from the runs, the lake and the experiments.

What can go wrong: an entry is lost at exit 0, or stands twice, or at another place; an anchor,
which no other store has, is lost without being listed; the old file is gone; a sound ledger is
changed; killed half way, there is neither the old ledger nor the new one.
"""

import json
import os
from datetime import UTC, datetime

import pytest

from pipeline.base import as_of
from pipeline.evaluation.gate.anchors import Anchor
from pipeline.steps.maintenance.repair_ledger import repair_ledger
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.ledger import Ledger
from pipeline.workspace.ledger import AnchorEntry, RepairEntry, append_entry, entries_of
from pipeline.workspace.workspace import Workspace
from tests.entries import KEY
from tests.raising import raises
from tests.worlds import NIGHTS, copy_of

AT = as_of(datetime(2024, 6, 1, tzinfo=UTC))


@pytest.fixture
def ws(two_nights, tmp_path):
    return Workspace.open(copy_of(two_nights[0], tmp_path / "home"))


def file_of(ws):
    return ws.home / "ledger.jsonl"


def repair(ws):
    return repair_ledger(ws, AT, by="anna", reason="bad disk")


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def lines_of(path):
    return enumerate(path.read_bytes().splitlines(keepends=True))


def keep(count):
    def cut(path):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))

    return cut


def flip_within(number, text):
    def damage(path):
        lines = path.read_bytes().splitlines(keepends=True)
        before = sum(map(len, lines[:number]))
        flip(path, before + lines[number].index(text))

    return damage


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "cut to one line": keep(1),
    "cut to all lines but three": keep(-3),
    "a byte of the first line": flip_within(0, b'"kind"'),
    "a byte of a key": flip_within(2, b'"key": "'),
    "no UTF-8": lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]),
    "a foreign line": lambda path: path.write_bytes(b'{"sha256": "x"}\n' + path.read_bytes()),
    "a line taken out": lambda path: path.write_bytes(
        b"".join(line for n, line in lines_of(path) if n != 1)
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_lines_come_back_byte_by_byte(ws, damage):
    path = file_of(ws)
    before = path.read_bytes()
    assert len(before.splitlines()) > 8
    DAMAGES[damage](path)
    damaged = path.read_bytes() if path.exists() else None
    result = repair(ws)
    after = path.read_bytes()
    assert after.startswith(before)
    *_, last = entries_of(ws.ledger)
    assert isinstance(last, RepairEntry)
    assert (last.by, last.reason, last.as_of) == ("anna", "bad disk", AT)
    assert len(after.splitlines()) == len(before.splitlines()) + 1 == result.lines
    if damaged is None:
        assert result.kept is None
    else:
        assert (path.parent / result.kept).read_bytes() == damaged
    if damage != "a foreign line":
        assert last.missing == result.missing == ()


def test_a_sound_ledger_is_not_changed(ws):
    before = file_of(ws).read_bytes()
    result = repair(ws)
    assert (result.restored, result.missing, result.kept) == ((), (), None)
    assert file_of(ws).read_bytes() == before
    keep(3)(file_of(ws))
    repair(ws)
    after = file_of(ws).read_bytes()
    assert repair(ws).kept is None
    assert file_of(ws).read_bytes() == after


def test_an_entry_that_no_other_store_has_is_listed(ws):
    entry = AnchorEntry(
        key="anchor:r:h",
        as_of=NIGHTS[1],
        comparison_key=KEY,
        recipe="als",
        anchor=Anchor(recipe_hash="h", ratio=1.0, blocks=1),
        by="anna",
        reason="new prices",
        sentence="anchor of als set to 1.000",
    )
    append_entry(ws.ledger, entry)
    flip_within(-1, b"1.000")(file_of(ws))
    lines = len(file_of(ws).read_bytes().splitlines())
    result = repair(ws)
    assert result.missing == (f"line {lines}, anchor:r:h",)
    assert entries_of(ws.ledger)[-1].missing == result.missing
    assert "anchor:r:h" not in {entry.key for entry in entries_of(ws.ledger)}


def test_an_entry_whose_run_is_gone_is_listed(ws):
    [first, *_] = entries_of(ws.ledger)
    (ws.home / "runs" / first.run_id / "gate" / "decision.json").write_bytes(b"{}")
    file_of(ws).unlink()
    result = repair(ws)
    assert [text.partition(": ")[0] for text in result.missing] == [first.key]
    assert first.key not in {entry.key for entry in entries_of(ws.ledger)}


def test_the_same_night_continues_on_the_written_ledger(ws):
    keep(4)(file_of(ws))
    repair(ws)
    assert nightly(ws, NIGHTS[1]).status == "already_done"
    assert len(entries_of(ws.ledger)) == repair(ws).lines


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_killed_repair_leaves_the_old_ledger_or_the_new_one(ws, monkeypatch, call):
    keep(3)(file_of(ws))
    old = file_of(ws).read_bytes()
    done = getattr(os, call)
    for death in range(20):
        calls = iter(range(100))

        def dying(*args, **kwargs):
            if next(calls) == death:  # noqa: B023
                raise KeyboardInterrupt
            return done(*args, **kwargs)

        monkeypatch.setattr(os, call, dying)
        try:
            repair(ws)
        except KeyboardInterrupt:
            assert file_of(ws).read_bytes() == old or Ledger(file_of(ws)).entries()
        else:
            break
        finally:
            monkeypatch.undo()
    assert death > 1
    assert [type(entry) for entry in entries_of(ws.ledger)].count(RepairEntry) == 1
    assert json.loads(file_of(ws).read_bytes().splitlines()[0])


def test_a_user_and_a_reason_are_needed(ws):
    with raises("override.empty"):
        repair_ledger(ws, AT, by=" ", reason="bad disk")


def test_a_night_in_progress_is_not_disturbed(ws):
    with ws.lake.lock("night"), raises("lock.held"):
        repair(ws)
