"""Content of a workspace as multisets of entries, and a reader that polls the live lists.

Guarantees: lake, runs and ledger are only read.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import plain
from pipeline.errors import NightjarError
from pipeline.serving.publish import chain, first_altered, live, of_chain
from pipeline.steps.lists import history, lists
from pipeline.stores.lake import Lake
from pipeline.testing.chaos.synthetic_shop import Entry
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace

_LEFTOVERS: Final = ("scratch/*", "lake/_spool/*", "runs/**/.draft-*", "landing/events/*")
"""Patterns of files that must be gone when a pass or a run has ended."""
_DERIVED: Final = r"^d[0-9a-f]{32}$"
"""Event id that the lake derived for an event without one."""


class Reader:
    """A thread that reads the live lists repeatedly inside a ``with`` block.

    Attributes
    ----------
    reads
        Number of reads.
    errors
        One sentence per read that failed, that returned damaged lists, or that returned an earlier
        generation than the read before.
    """

    def __init__(self, home: Path) -> None:
        self.reads = 0
        self.errors: list[str] = []
        self._home = home
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="reader", daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        generation = 0
        while not self._stop.wait(0.01):
            self.reads += 1
            try:
                seen, whole = _read_lists(self._home)
            except NightjarError as error:
                self.errors.append(f"a reader failed: {error.sentence}")
                continue
            if not whole:
                self.errors.append(f"a reader got damaged lists of generation {seen}")
            if seen < generation:
                self.errors.append(f"a reader got generation {seen} after {generation}")
            generation = seen


def _read_lists(home: Path) -> tuple[int, bool]:
    """Return the live generation, and True if the lists of its chain match their checksums."""
    lake = Lake(home / "lake")  # opened anew, as a reader in another process would
    publications = lake.read("publications")
    base = live(publications)
    if base is None:
        return 0, True
    rows = chain(publications, base[c.PUBLICATION_ID])
    shown = lake.read("recommendations", partitions=of_chain(rows))
    return int(rows[c.GENERATION][-1]), first_altered(shown, rows) is None


def lake_entries(home: Path) -> Counter[Entry]:
    """Return the rows of the lake in the form of `ExpectedState.entries`, and leftover files."""
    ws = Workspace.open(home)
    events = ws.lake.read("events")
    # Pseudonyms are random per workspace: rows are compared by raw ids, and of event ids that hash
    # a pseudonym only the absence is compared.
    raw = ws.vault.reveal(events[c.USER_ID].unique().to_list())
    shown = events.select(
        pl.when(pl.col(c.EVENT_ID).str.contains(_DERIVED))
        .then(pl.lit(""))
        .otherwise(pl.col(c.EVENT_ID))
        .alias(c.EVENT_ID),
        pl.col(c.USER_ID).replace_strict(raw),
        c.ITEM_ID,
        c.KIND,
        pl.col(c.VALUE).cast(pl.Int64).cast(pl.String),
        pl.col(c.TIMESTAMP).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    entries: Counter[Entry] = Counter(("event", *row) for row in shown.iter_rows())
    for digest in ws.lake.read("quarantine")[c.BATCH_ID]:
        entries["quarantined", digest] += 1
    batches = ws.lake.read("batches").filter(
        (pl.col(c.STATUS) == c.BatchStatus.DONE) & (pl.col(c.TABLE) == "events")
    )
    counts = batches.select(c.BATCH_ID, c.ROWS, c.ACCEPTED, c.QUARANTINED, c.DUPLICATES, c.SKIPPED)
    entries.update(("file", *row) for row in counts.iter_rows())
    return entries + _leftover_files(home)


def published_entries(home: Path) -> Counter[Entry]:
    """Return the results of runs and passes: lists, publications, ledger, aliases, versions."""
    ws = Workspace.open(home)
    entries: Counter[Entry] = Counter(("list", *row) for row in lists(ws, None).iter_rows())
    entries.update(("publication", *row) for row in ws.lake.read("publications").iter_rows())
    lines = (json.dumps(plain(entry), sort_keys=True) for entry in history(ws))
    entries.update(("ledger", line) for line in lines)
    entries.update(("alias", *pair) for pair in registry(ws).aliases().items())
    entries.update(("shown", *version) for version in registry(ws).shown())
    return entries + _leftover_files(home)


def _leftover_files(home: Path) -> Counter[Entry]:
    """Return files that no pass and no run may leave behind."""
    return Counter(
        ("left behind", path.relative_to(home).as_posix())
        for pattern in _LEFTOVERS
        for path in home.glob(pattern)
    )
