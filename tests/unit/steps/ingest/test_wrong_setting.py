"""A file that contradicts a setting waits as a whole, and is taken once the setting is right."""

from __future__ import annotations

import pytest

from pipeline.steps.ingest.ingest import ingest
from pipeline.steps.ingest.results import FileStatus
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, land, workspace

HEADER = "user_id,item_id,kind,timestamp\n"
KINDS = """[ingest]
kinds = ["view", "purchase", "wish"]
[features.weights]
view = 1.0
purchase = 2.0
wish = 1.0
"""
ITEMS = "item_id,title,available\n"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Files are read in this process, which is faster."""
    monkeypatch.setattr(Child, "call", parsed_here)


def events(n, kind="view", time="2024-03-01T10:00:{}Z"):
    return "".join(f"u{i},bread,{kind},{time.format(f'{i % 60:02}')}\n" for i in range(n))


def take(home, path, config="", table="events"):
    (home / "nightjar.toml").write_text(config)
    result = ingest(Workspace.open(home), [path], table=table, at=AT)
    return result.outcomes[0]


@pytest.mark.parametrize(
    ("wrong", "right", "text", "line"),
    [
        ("", KINDS, events(12, "wish") + events(5), '"wish"]'),
        ("", '[sources.e]\ntimezone = "UTC"\n', events(15, time="2024-03-01 10:00:{}"),
         "[sources.events] timezone ="),
        ("", '[sources.e]\ntimestamp_unit = "s"\n', events(15, time="17092872{}"),
         '[sources.events] timestamp_unit = "s"'),
        ('[sources.e]\ntimestamp_unit = "ms"\n', '[sources.e]\ntimestamp_unit = "s"\n',
         events(3, time="17092872{}"), '[sources.e] timestamp_unit = "s"'),
        ('[sources.e]\ntimestamp_unit = "ms"\n', "", events(3), "timestamp_format"),
    ],
    ids=["kinds", "zone", "no_unit", "other_unit", "typed_times"],
)  # fmt: skip
def test_a_wrong_setting_loses_nothing(tmp_path, wrong, right, text, line):
    ws = workspace(tmp_path / "ws", wrong)
    path = land(ws, "events.csv", HEADER + text)
    first = take(ws.home, path, wrong)
    assert (first.status, first.error_id) == (FileStatus.WAITS, "ingest.wrong_setting")
    assert first.exit_code == 3
    assert line in first.sentence
    assert path.exists()
    assert ws.lake.version("quarantine") is None
    assert take(ws.home, path, right).accepted == text.count("\n")


def test_the_message_has_the_three_commonest_values_masked_and_cut(tmp_path):
    ws = workspace(tmp_path / "ws", "")
    kinds = {"a@b.example": 40, "x" * 50: 30, "wish": 20, "rare": 10}
    path = land(ws, "events.csv", HEADER + "".join(events(n, kind) for kind, n in kinds.items()))
    sentence = take(ws.home, path).sentence
    assert f'("***", "{"x" * 32}", "wish")' in sentence
    assert "a@b" not in sentence and "rare" not in sentence


@pytest.mark.parametrize(
    ("odd", "even", "waits"), [(9, 100, False), (10, 100, True), (10, 991, False), (10, 990, True)]
)
def test_below_one_percent_or_ten_rows_the_others_are_accepted(tmp_path, odd, even, waits):
    ws = workspace(tmp_path / "ws", "")
    path = land(ws, "events.csv", HEADER + events(odd, time="2024-03-01 10:00:{}") + events(even))
    file = take(ws.home, path)
    assert (file.status is FileStatus.WAITS) is waits
    if not waits:
        assert (file.accepted, file.reasons) == (even, {"timestamp_without_zone": odd})


def test_single_values_that_are_not_times_do_not_hold_back_a_file(tmp_path):
    ws = workspace(tmp_path / "ws", "")
    path = land(ws, "events.csv", HEADER + events(20, time="soon {}") + events(20))
    assert take(ws.home, path).quarantined == 20


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("u,,view,2024-03-01T10:00:00Z", "item_id_missing"),
        ("u,bread,,2024-03-01T10:00:00Z", "kind_missing"),
        ("u,bread,view,1970-01-01T00:00:00Z", "timestamp_too_early"),
    ],
)
def test_rows_that_no_setting_can_correct_are_quarantined(tmp_path, row, reason):
    ws = workspace(tmp_path / "ws", "")
    assert take(ws.home, land(ws, "events.csv", f"{HEADER}{row}\n")).reasons == {reason: 1}


def test_availability_in_words_waits_and_a_bad_price_does_not(tmp_path):
    ws = workspace(tmp_path / "ws", "")
    words = land(ws, "words.csv", ITEMS + "a,x,in stock\nb,y,sold out\n", "items")
    assert take(ws.home, words, table="items").error_id == "ingest.wrong_setting"
    ignored = '[sources.stock]\ntable = "items"\nconstants = { available = "true" }\n'
    assert take(ws.home, words, ignored, "items").accepted == 2
    prices = land(ws, "prices.csv", "item_id,price,available\na,12.-,no\nb,1,yes\n", "items")
    file = take(ws.home, prices, table="items")
    assert (file.accepted, file.emptied) == (2, {"price_unparsable": 1})
    rows = Workspace.open(ws.home).lake.read("items").sort("item_id")
    assert rows["available"].to_list() == [False, True]


def test_a_source_that_names_no_table_reads_events(tmp_path):
    ws = workspace(tmp_path / "ws", "")
    path = land(ws, "sold.csv", HEADER.replace("kind,", "") + "u,bread,2024-03-01 10:00\n")
    config = '[sources.sold]\ntimezone = "UTC"\nconstants = { kind = "purchase" }\n'
    file = take(ws.home, path, config)
    assert (file.source, file.accepted) == ("sold", 1)


def test_positions_without_a_mapping_are_ignored_unless_all_of_them_parse(tmp_path):
    ws = workspace(tmp_path / "ws", "")
    header, row = HEADER.replace("\n", ",position\n"), "u,bread,view,2024-03-01T10:00:0{0}Z,{0}\n"
    counted = land(ws, "counted.csv", header + "".join(map(row.format, range(3))))
    file = take(ws.home, counted)
    assert (file.accepted, file.ignored_columns) == (3, ("position",))
    sound = land(ws, "sound.csv", header + "".join(map(row.format, range(4, 7))))
    assert take(ws.home, sound).ignored_columns == ()
    mapped = land(ws, "mapped.csv", header + "".join(map(row.format, range(0, 9, 8))))
    declared = '[sources.e]\ncolumns = { position = "position" }\n'
    assert take(ws.home, mapped, declared).reasons == {"position_below_one": 1}
    assert ws.lake.read("events").select("position").drop_nulls().height == 4
