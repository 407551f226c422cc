"""Sandbox of a backtest: a workspace that receives past days one after another.

Guarantees:

* It has a lake, a ledger, a registry and runs of its own; the source workspace never changes.
* A day that is delivered twice is ingested once.
* Users keep their pseudonyms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, format_instant
from pipeline.data.ingest.events import event_rows, with_origin
from pipeline.data.split import between
from pipeline.data.synthetic_shift import exchanged, plant_shift
from pipeline.stores.batches import Batch, Batches
from pipeline.workspace.config import Composed, Config, RegistryConfig
from pipeline.workspace.workspace import Workspace

SOURCE: Final = "backtest"
_TEMPLATE: Final = """\
# A sandbox of `nightjar backtest`. It has the settings that its workspace had at the first call;
# this file is not read.
"""


def sandbox_config(config: Config) -> Config:
    """Return a sandbox's settings: lists are live from the as-of on, with a registry of its own."""
    publish = config.publish.model_copy(update={"live_from": "as_of"})
    return config.model_copy(update={"publish": publish, "registry": RegistryConfig()})


@dataclass(frozen=True)
class BacktestSandbox:
    """Sandbox of one schedule.

    Attributes
    ----------
    source
        Workspace whose history is replayed.
    versions
        Table -> version that is read there.
    home
        Folder of the sandbox, created at first use.
    config
        Its settings.
    plant
        Begin of the synthetic shift of taste, or None.
    """

    source: Workspace
    versions: Mapping[str, int | None]
    home: Path
    config: Config = field(repr=False)
    plant: datetime | None = None

    @cached_property
    def ws(self) -> Workspace:
        """The sandbox as a workspace."""
        group = self.source.config.workspace.group
        made = Workspace.init(self.home, _TEMPLATE, group)
        # Not the config of the sandbox's file: all schedules run with the pinned one.
        return Workspace(made.home, Composed(self.config, {}))

    def deliver(self, span: Interval, *, catalogue: bool) -> None:
        """Ingest the events of a span, as one batch that arrives at its end.

        Parameters
        ----------
        span
            Half-open interval of event timestamps.
        catalogue
            True to ingest items and users, too, at their pinned versions.
        """
        with self.ws.lake.lock("ingest"):
            batches = Batches(self.ws.lake)
            # A killed call may have left a batch half done.
            batches.recover()
            for table in ("items", "users") if catalogue else ():
                rows = self.source.read_pinned(self.versions, table)
                if rows.height:
                    self._commit(batches, table, rows, span)
            events = self.source.read_pinned(self.versions, "events", where=between(span))
            if self.plant is not None and span.end > self.plant:
                events = plant_shift(events, self._pairs, self.plant)
            self._commit(batches, "events", events, span)

    def _commit(self, batches: Batches, table: str, rows: pl.DataFrame, span: Interval) -> None:
        name = f"{table}-{format_instant(span.end)}"
        # The key names table and end of the span: a second delivery finds the batch of the first.
        key = hashlib.sha256(name.encode()).hexdigest()
        if batches.seen(table, key):
            return
        if table == "events":
            rows = event_rows(with_origin(rows, source=SOURCE, batch_id=key), at=span.end)
        # An empty span is a batch, too: the next call must see that it was delivered.
        batch = Batch(
            key, table, SOURCE, name, rows.height, rows.height, 0, 0, 0, 0, "", 0, span.end
        )
        batches.commit([batch], rows if rows.height else None, self.ws.lake.empty("quarantine"))

    @cached_property
    def _pairs(self) -> dict[str, str]:
        assert self.plant is not None  # noqa: S101  (`deliver` checks it)
        columns = (c.ITEM_ID, c.TIMESTAMP)
        events = self.source.read_pinned(self.versions, "events", columns)
        return exchanged(events, self.plant)
