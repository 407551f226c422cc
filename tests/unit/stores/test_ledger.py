"""Faults of the ledger, and the required outcomes.

* a retry appends its line again        -> the first one is returned, nothing is added
* killed while a line is written        -> the half line was never acknowledged; the next removes it
* the last newline is missing, changed  -> the line counts; an error
* a line changed, taken out or swapped  -> the chain of sums breaks, and the line is named
* two writers at once                   -> both lines stand, one behind the other
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stores.ledger import Ledger
from tests.raising import raises


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


def test_empty(ledger):
    assert ledger.entries() == ()


def test_lines_stand_in_order_and_hold_their_fields(ledger):
    ledger.append("a", "decision", {"kind": "first", "sentence": "é"})
    ledger.append("b", "publication", {"generation": 1})
    first, second = ledger.entries()
    assert (first["key"], first["type"], first["kind"], first["sentence"]) == (
        "a",
        "decision",
        "first",
        "é",
    )
    assert second["previous"] == first["sha256"]


def test_a_key_is_written_once(ledger, tmp_path):
    first = ledger.append("a", "decision", {"kind": "first"})
    again = ledger.append("a", "decision", {"kind": "keep"})
    assert again == first
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("half", [b'{"key": "c", "ki', b"\xff\xfe"])
def test_a_half_line_was_never_there(ledger, tmp_path, half):
    ledger.append("a", "decision", {"n": 1})
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(half)
    assert [e["key"] for e in ledger.entries()] == ["a"]
    ledger.append("b", "decision", {"n": 2})
    assert [e["key"] for e in ledger.entries()] == ["a", "b"]


def test_a_first_line_cut_short(ledger, tmp_path):
    (tmp_path / "ledger.jsonl").write_bytes(b'{"key"')
    assert ledger.entries() == ()
    ledger.append("a", "decision", {})
    assert [e["key"] for e in ledger.entries()] == ["a"]


@pytest.mark.parametrize("tamper", ["change", "drop", "swap"])
def test_tampering_is_detected(ledger, tmp_path, tamper):
    for key in "abc":
        ledger.append(key, "decision", {"kind": "keep"})
    path = tmp_path / "ledger.jsonl"
    lines = path.read_text().splitlines()
    if tamper == "change":
        lines[1] = lines[1].replace("keep", "switch")
    elif tamper == "drop":
        del lines[1]
    else:
        lines[0], lines[1] = lines[1], lines[0]
    path.write_text("\n".join(lines) + "\n")
    with raises("ledger.chain_broken"):
        ledger.entries()


def test_a_whole_line_without_its_newline_counts(ledger):
    ledger.append("a", "decision", {"n": 1})
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole[:-1])
    assert [e["key"] for e in ledger.entries()] == ["a"]
    ledger.append("b", "decision", {"n": 2})
    assert ledger.path.read_bytes().startswith(whole)
    assert [e["key"] for e in ledger.entries()] == ["a", "b"]


def test_every_flipped_bit_is_an_error(ledger):
    for key in "ab":
        ledger.append(key, "decision", {"n": 1, "sentence": "é"})
    whole = ledger.path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[place] ^= bit
            ledger.path.write_bytes(damaged)
            with raises("ledger.damaged", "ledger.chain_broken"):
                Ledger(ledger.path).entries()


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"5",
        b"\xff",
        b'{"sha256": "x"}',
        b'{"key": "a", "type": "decision", "sha256": "x"}',
        b'{"key": "\\ud800", "previous": "", "sha256": "x"}',
    ],
)
def test_a_line_that_is_no_line(ledger, line):
    ledger.path.write_bytes(line + b"\n")
    with raises("ledger.damaged"):
        ledger.entries()
    with raises("ledger.damaged"):
        ledger.append("a", "decision", {})


def test_a_folder_is_no_ledger(ledger):
    ledger.path.mkdir()
    with raises("storage.cannot_read"):
        ledger.entries()


def test_the_head_is_the_number_of_lines_and_the_last_sum(ledger):
    assert ledger.head() == (0, "0" * 64)
    last = [ledger.append(key, "decision", {}) for key in "ab"][-1]
    assert ledger.head() == Ledger(ledger.path).head() == (2, last["sha256"])


def test_two_writers(ledger, tmp_path):
    code = f"""
import pathlib, sys
from pipeline.stores.ledger import Ledger
ledger = Ledger(pathlib.Path({str(tmp_path / "ledger.jsonl")!r}))
for n in range(15):
    ledger.append(f"{{sys.argv[1]}}-{{n}}", "decision", {{}})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    writers = [
        subprocess.Popen([sys.executable, "-c", code, name], env=environment) for name in "xy"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    keys = [entry["key"] for entry in ledger.entries()]
    assert sorted(keys) == sorted(f"{name}-{n}" for name in "xy" for n in range(15))
    assert json.loads((tmp_path / "ledger.jsonl").read_text().splitlines()[-1])["key"] == keys[-1]


def cut(path, lines):
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-lines]))


def test_a_ledger_that_is_cut_at_the_end_of_a_line_is_noticed(ledger, tmp_path):
    path = tmp_path / "ledger.jsonl"
    lines = [ledger.append(key, "anchor", {"n": 1}) for key in "abc"]
    assert ledger.lines_cut() == 0
    cut(path, 2)
    assert (len(ledger.entries()), ledger.lines_cut()) == (1, 2)
    assert ledger.append("b", "anchor", {"n": 1}) == lines[1]
    assert ledger.lines_cut() == 1
    ledger.append("d", "anchor", {"n": 1})  # does not hide that another line is lost
    assert ledger.lines_cut() == 1
    cut(path, 1)
    ledger.append("c", "anchor", {"n": 1})
    assert ledger.lines_cut() == 0
    path.unlink()
    assert Ledger(path).lines_cut() == 3


def test_more_lines_than_the_head_counts_are_right(ledger, tmp_path):
    """A process may be killed before it notes the head, and the file may be lost."""
    ledger.append("a", "anchor", {})
    head = (tmp_path / "ledger.head").read_bytes()
    ledger.append("b", "anchor", {})
    for left in (head, b"", b"[]", b"{}"):
        (tmp_path / "ledger.head").write_bytes(left)
        assert ledger.lines_cut() == 0
    (tmp_path / "ledger.head").unlink()
    assert ledger.lines_cut() == 0
    ledger.append("c", "anchor", {})
    cut(tmp_path / "ledger.jsonl", 1)
    assert ledger.lines_cut() == 1
    ledger.rewrite(ledger.entries())
    assert (len(ledger.entries()), ledger.lines_cut()) == (2, 0)
