"""Names and values of a file never control a terminal, or look like another line."""

import io
import json

import pytest
import structlog
import typer
from structlog.testing import capture_logs

from pipeline.cli.terminal import Console, configure_logging
from pipeline.data.sources.config import Limits, Source
from pipeline.data.sources.read import Summary, read
from pipeline.errors import DataError, NightjarError, printable
from pipeline.report.table import grid, lists_table
from pipeline.workspace.task_log import at_most_every, task_log
from tests.ingesting import AT

HOSTILE = "\x1b[31mRED\x1b]0;pwn\x07\nnightjar: FAKE\u202e\u200b\x9b"
SHOWN = "\\x1b[31mRED\\x1b]0;pwn\\x07\\nnightjar: FAKE\\u202e\\u200b\\x9b"


def test_a_text_is_escaped_once():
    assert printable(HOSTILE) == printable(SHOWN) == SHOWN
    assert printable("Zoë 😀 \udcff") == "Zoë 😀 \\udcff"


@pytest.mark.parametrize(
    "error",
    [NightjarError("a.b", HOSTILE), DataError("a.b", HOSTILE, where=f"{HOSTILE}.csv", count=1)],
)
def test_a_sentence_is_one_printable_line(error):
    assert SHOWN in error.sentence
    assert error.sentence.isprintable()
    assert str(error) == error.sentence


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", json.dumps({HOSTILE: 1}).encode() + b"\n"),
        ("a.csv", f'user_id,"{HOSTILE.strip(chr(10))}"\n'.replace("\n", " ").encode() + b"\n1,2\n"),
        ("a.csv", b"user_id,\x1b[31m,\x1b[31m\n1,2,3\n"),
    ],
)
def test_column_names_of_a_file_reach_no_terminal_as_they_are(name, data):
    with pytest.raises(DataError) as caught:
        list(read(io.BytesIO(data), name, Source(), Limits(), Summary()))
    assert caught.value.sentence.isprintable()


def test_titles_and_ids_reach_no_terminal_as_they_are():
    row = {"user_id": "u", "position": 1, "item_id": "i", "score": 1.0, "slot": "s", "reason": "r"}
    table = lists_table([row], {"i": HOSTILE})
    assert SHOWN in table
    assert len(table.split("\n")) == 3
    assert all(line.isprintable() for line in table.split("\n"))
    assert grid(["a"], [["\x1b"]]).endswith("\\x1b")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_of_a_command_has_no_control_characters(capsys, as_json):
    with pytest.raises(typer.Exit):
        Console(None, as_json).show({"a": HOSTILE}, f"first\n{HOSTILE}", 3)
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    if as_json:
        assert json.loads(lines[0]) == {"a": HOSTILE}
    else:
        assert lines[0] == "first"


def test_a_log_has_no_control_characters(capsys):
    texts = []
    at_most_every(1, texts.append)(HOSTILE)
    assert texts == [SHOWN]
    with capture_logs() as lines, task_log("ingest", AT) as log:
        log.result = HOSTILE
    assert lines[1]["result"] == SHOWN
    configure_logging()
    try:
        structlog.get_logger("nightjar").info("progress", text=HOSTILE)
    finally:
        structlog.reset_defaults()
    [line] = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert json.loads(line)["text"] == HOSTILE
