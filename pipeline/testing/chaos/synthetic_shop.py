"""A synthetic shop: its files, some of them invalid, and the expected state of the lake.

Guarantees: all content follows from a seed. The expected state is computed with dicts and counters,
independently of the lake, and has the status of each row of each file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from pipeline import columns as c

START: Final = datetime(2024, 1, 1, 9, tzinfo=UTC)
FIRST_NIGHT: Final = START + timedelta(days=42)
NIGHT: Final = START + timedelta(days=49)
CONFIG: Final = """\
[sources.shop]
table = "events"
path = "*"
skip_when = { note = ["test"] }

[split]
task = "discovery"

[publish]
live_from = "as_of"

# Few files with many invalid rows: the default limits would stop every run.
[validate]
quarantine_budget = 1.0
volume = { day_factor = 1e6, week_factor = 1e6 }

# The gate is not under test here: with so few users the default rules would never promote.
[gate]
min_users = 10
min_nonzero = 2
slice_users = 1000
refresh_margin = 1.0
refresh_errors = 100.0
level_margin = 0.99
floor_margin = 0.99
anchor_margin = 0.99

[recipes.als]
family = "als"
factors = 4
iterations = 3
"""
_USERS: Final = 60
_ITEMS: Final = 30
_NOTE: Final = "note"
_FIELDS: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP, _NOTE)
_GOOD, _BAD, _SKIPPED = "good", "bad", "skipped"

Entry = tuple[object, ...]
"""An entry of a multiset: its kind, then its values."""


@dataclass(frozen=True)
class Row:
    """A line of a file, and its status if the file had no other line."""

    fields: tuple[str, ...]
    status: str = _GOOD

    @property
    def content(self) -> tuple[str, ...]:
        """The fields without the event id and the note."""
        return self.fields[1:6]


@dataclass
class ExpectedState:
    """Expected content of the lake.

    Attributes
    ----------
    with_id
        (event id, day) -> content of the events that were delivered with an id.
    without_id
        Number of events that were delivered without an id, by content.
    batches
        sha256 of a file -> number of all, accepted, quarantined, duplicate and skipped rows.
    """

    with_id: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    without_id: Counter[tuple[str, ...]] = field(default_factory=Counter)
    batches: dict[str, tuple[int, int, int, int, int]] = field(default_factory=dict)

    def take(self, data: bytes, rows: Sequence[Row]) -> None:
        """Add the rows of a file; equal bytes add nothing.

        Parameters
        ----------
        data
            Bytes of the file.
        rows
            Its rows, in their order.
        """
        digest = hashlib.sha256(data).hexdigest()
        if digest in self.batches:
            return
        statuses: Counter[str] = Counter()
        equal: Counter[tuple[str, ...]] = Counter()
        for row in rows:
            statuses[self._status_of(row, equal)] += 1
        counts = ("accepted", _BAD, "duplicate", _SKIPPED)
        self.batches[digest] = (len(rows), *(statuses[name] for name in counts))  # type: ignore[assignment]

    def _status_of(self, row: Row, equal: Counter[tuple[str, ...]]) -> str:
        if row.status != _GOOD:
            return row.status
        if not row.fields[0]:
            # Equal rows of one file are counted: the lake derives their ids from this ordinal.
            equal[row.content] += 1
            if equal[row.content] <= self.without_id[row.content]:
                return "duplicate"
            self.without_id[row.content] += 1
            return "accepted"
        key = (row.fields[0], row.content[-1][:10])
        if key in self.with_id:
            return "duplicate" if self.with_id[key] == row.content else _BAD
        self.with_id[key] = row.content
        return "accepted"

    def entries(self) -> Counter[Entry]:
        """Return events, quarantined rows by file, and files with their counts."""
        entries: Counter[Entry] = Counter()
        entries.update(("event", name, *content) for (name, _), content in self.with_id.items())
        entries.update(("event", "", *content) for content in self.without_id.elements())
        for digest, counts in self.batches.items():
            entries["quarantined", digest] += counts[2]
            entries["file", digest, *counts] += 1
        return +entries  # drops files without quarantined rows


class Shop:
    """Writes files to the landing folder and updates the expected state.

    Parameters
    ----------
    seed
        Seed of all content.
    expected
        Expected state of the lake so far.
    """

    def __init__(self, seed: int, expected: ExpectedState | None = None) -> None:
        self._random = np.random.default_rng(seed)
        self._past: list[list[Row]] = []
        self.expected = expected or ExpectedState()

    def first(self, home: Path) -> None:
        """Land the catalogue and all events before the first nightly run."""
        lines = [f"i{n},Item {n},{'false' if n % 10 == 9 else 'true'}" for n in range(_ITEMS)]
        text = "\n".join([f"{c.ITEM_ID},{c.TITLE},{c.AVAILABLE}", *lines, ""])
        _put(home / "landing" / "items" / "items.csv", text.encode(), 0)
        self._land(home, "first", self._days(START, FIRST_NIGHT), ".csv")

    def batch(self, home: Path) -> int:
        """Land some files of the week before the second run; return the number of new ones."""
        fresh = int(self._random.integers(3, 6))
        week = self._days(FIRST_NIGHT, NIGHT)
        for part in np.array_split(self._random.permutation(len(week)), fresh):
            # Each file gets rows that no other file has, because files of equal bytes count as one.
            rows = [week[n] for n in part[: int(self._random.integers(1, 15))]]
            rows += [self._unusual_row(rows) for _ in range(int(self._random.integers(1, 4)))]
            self._land(home, f"shop-{len(self._past)}", rows, self._suffix())
        for _ in range(int(self._random.integers(0, 3))):
            again = list(self._past[int(self._random.integers(len(self._past)))])
            self._random.shuffle(again)
            self._land(home, f"again-{len(self._past)}", again, self._suffix())
        return fresh

    def _days(self, start: datetime, end: datetime) -> list[Row]:
        rows = []
        for day in range((end - start).days):
            for user in np.flatnonzero(self._random.random(_USERS) < 0.3):
                at = start + timedelta(days=day, seconds=int(self._random.integers(0, 50_000)))
                # A pattern to learn: users with an even number buy even items, the others odd ones.
                item = 2 * int(self._random.integers(0, _ITEMS // 2)) + int(user % 2)
                rows.append(self._row(f"u{user}", f"i{item}", at))
        return rows

    def _row(self, user: str, item: str, at: datetime) -> Row:
        name = f"e{self._random.integers(1 << 60)}" if self._random.random() < 0.7 else ""
        return Row((name, user, item, "purchase", "1", at.strftime("%Y-%m-%dT%H:%M:%SZ"), ""))

    def _unusual_row(self, rows: Sequence[Row]) -> Row:
        """Return a row that is invalid, late, a duplicate, or in conflict with another one."""
        row = rows[int(self._random.integers(len(rows)))]
        name, user, item, kind, value, at, note = row.fields
        if row.status != _GOOD:
            return row
        return (
            Row((name, user, item, kind, "two", at, note), _BAD),
            Row((name, "", item, kind, value, at, note), _BAD),
            Row((name, user, item, kind, value, "2031-01-01T00:00:00Z", note), _BAD),
            Row((name, user, item, kind, value, at, "test"), _SKIPPED),
            Row((name, user, item, kind, value, "2023" + at[4:], note)),
            Row((name, user, item, kind, "3", at, note)),
            row,
        )[int(self._random.integers(7))]

    def _suffix(self) -> str:
        return (".csv", ".csv.gz", ".jsonl", ".jsonl.gz")[int(self._random.integers(4))]

    def _land(self, home: Path, name: str, rows: list[Row], suffix: str) -> None:
        if ".csv" in suffix:
            text = "\n".join([",".join(_FIELDS), *(",".join(r.fields) for r in rows), ""])
        else:
            text = "".join(
                json.dumps(dict(zip(_FIELDS, row.fields, strict=True))) + "\n" for row in rows
            )
        # gzip writes the time into its header, with which equal content would give other bytes.
        data = gzip.compress(text.encode(), mtime=0) if suffix.endswith(".gz") else text.encode()
        self._past.append(rows)
        _put(home / "landing" / "events" / (name + suffix), data, len(self._past))
        self.expected.take(data, rows)


def _put(path: Path, data: bytes, order: int) -> None:
    """Write a file with a modification time long before any run, ordered by `order`."""
    path.write_bytes(data)
    moment = START.timestamp() + order
    os.utime(path, (moment, moment))
