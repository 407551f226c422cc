"""The report of the quarantine has each file with its reasons, counts and masked examples."""

from __future__ import annotations

import pytest

from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.steps.ingest.quarantine import quarantined
from pipeline.workspace.child_process import Child
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, workspace
from tests.raising import raises


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setattr(Child, "call", parsed_here)
    ws = workspace(tmp_path / "ws")
    much = [f"{n},anna,bread,much,2024-03-01" for n in range(5)]
    land(ws, "orders-1.csv", orders(*much, "6,anna,,1,2024-03-01"))
    land(ws, "orders-2.csv", orders("7,\x1banna,bread,1,2024-03-01", "8,bert,milk,1,2024-03-01"))
    ingest_landed(ws, AT)
    return ws


def test_each_file_has_its_reasons_with_counts_and_examples(ws):
    report = quarantined(ws)
    assert [(x.file, x.reason, x.rows) for x in report] == [
        ("orders-2.csv", "user_id_unprintable", 1),
        ("orders-1.csv", "value_unparsable", 5),
        ("orders-1.csv", "item_id_missing", 1),
    ]
    assert report[0].examples == ((2, '{"user_id":"***"}'),)
    assert report[1].examples == tuple((line, '{"value":"much"}') for line in (2, 3, 4))
    assert "anna" not in "".join(x.text() for x in report)


def test_one_file_is_named_by_its_name_or_digest(ws):
    one = quarantined(ws, "orders-1.csv")
    assert {x.file for x in one} == {"orders-1.csv"}
    assert quarantined(ws, one[0].batch_id) == one
    with raises("quarantine.unknown_file"):
        quarantined(ws, "orders-3.csv")


def test_an_empty_quarantine_has_no_rows(tmp_path):
    assert quarantined(workspace(tmp_path / "empty")) == ()
