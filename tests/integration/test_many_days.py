"""A lake with ten years of days: time and memory of a pass follow its events, not the days."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.stores import disk
from pipeline.workspace.workspace import Workspace

DAYS = 3650
END = datetime(2025, 1, 1, tzinfo=UTC)


PEAK = """
import sys
from pathlib import Path
from pipeline.base import as_of
from pipeline.steps.ingest.ingest import ingest_landed
from pipeline.workspace.workspace import Workspace

ingest_landed(Workspace.open(Path(sys.argv[1])), as_of(sys.argv[2]))
status = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""
"""Prints the peak memory of a process that ingests, in kB."""


def land(home, name, first_day, days, each=1):
    day = pl.int_range(days * each, eager=True) // each
    number = pl.int_range(days * each, eager=True)
    events = pl.select(
        pl.format("{}-{}", pl.lit(name), number).alias(c.EVENT_ID),
        pl.format("user {}", number % 50).alias(c.USER_ID),
        pl.format("item {}", day % 20).alias(c.ITEM_ID),
        pl.lit("view").alias(c.KIND),
        (pl.lit(first_day) + pl.duration(days=day)).alias(c.TIMESTAMP),
    )
    path = home / "landing" / "events" / f"{name}.csv"
    events.write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    os.utime(path, (0, 0))


@pytest.fixture
def hashed(monkeypatch):
    """Return the paths whose checksum is computed."""
    paths = []
    compute = disk.sha256

    def record(path):
        paths.append(path)
        return compute(path)

    monkeypatch.setattr(disk, "sha256", record)
    return paths


def test_a_pass_reads_only_the_days_of_its_events(tmp_path, hashed, monkeypatch):
    ws = Workspace.init(tmp_path / "shop")
    land(ws.home, "years", END - timedelta(days=DAYS), DAYS)
    assert ingest_landed(ws, END).accepted == DAYS
    assert len(ws.lake.files("events")) == DAYS
    land(ws.home, "today", END, 1)
    assert ingest_landed(ws, END + timedelta(days=1)).accepted == 1
    land(ws.home, "tomorrow", END + timedelta(days=1), 1)
    # A new process: nothing is remembered. It checks the files of the last commit.
    hashed.clear()
    monkeypatch.setattr(disk, "_SUMS", {})
    ws = Workspace.open(ws.home)
    assert ingest_landed(ws, END + timedelta(days=2)).accepted == 1
    data = [path for path in hashed if path.parent.name.startswith(f"{c.EVENT_DAY}=")]
    assert 1 <= len(data) <= 2
    assert len(hashed) < 40
    assert ws.lake.read("events", columns=[c.TIMESTAMP]).height == DAYS + 2


def peak_memory(home, days, each):
    """Ingest `each` events on each of `days` days in a new process; return its peak in bytes."""
    ws = Workspace.init(home)
    land(ws.home, "years", END - timedelta(days=days), days, each=each)
    command = [sys.executable, "-c", PEAK, str(ws.home), END.isoformat()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert Workspace.open(ws.home).lake.read("events", columns=[c.KIND]).height == days * each
    return int(done.stdout.splitlines()[-1]) * 1024


def test_the_memory_of_a_pass_does_not_grow_with_the_days(tmp_path):
    # The libraries alone take 140 to 240 MB, by the machine's page cache: hence a difference.
    peak = peak_memory(tmp_path / "shop", DAYS, each=30)
    same_rows_on_few_days = peak_memory(tmp_path / "peer", 30, each=DAYS)
    assert peak - same_rows_on_few_days < 48 << 20
