"""Sandbox of a backtest: a workspace that receives past days one after another.

Guarantees:

* It has a lake, a ledger, a registry and runs of its own; the source workspace never changes.
* A day that is delivered twice is ingested once.
* Users keep their pseudonyms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, format_instant
from pipeline.data.ingest.events import event_rows, with_origin
from pipeline.data.split import before, ingested_by
from pipeline.data.synthetic_shift import exchanged, plant_shift
from pipeline.stores.batches import Batch, Batches
from pipeline.workspace.config import Composed, Config, RegistryConfig, SnapshotConfig
from pipeline.workspace.experiment_artifacts import BacktestPlanFile
from pipeline.workspace.workspace import Workspace

SOURCE: Final = "backtest"
_TEMPLATE: Final = """\
# A sandbox of `nightjar backtest`. It has the settings that its workspace had at the first call;
# this file is not read.
"""


def sandbox_config(config: Config) -> Config:
    """Return a sandbox's settings: lists are live from the as-of on, with a registry of its own."""
    publish = config.publish.model_copy(update={"live_from": "as_of"})
    own = {"publish": publish, "registry": RegistryConfig()}
    # The sandbox only receives what was known, so its runs read all that it has.
    return config.model_copy(update={**own, "snapshot": SnapshotConfig(known_by="now")})


@dataclass(frozen=True)
class BacktestSandbox:
    """Sandbox of one schedule.

    Attributes
    ----------
    source
        Workspace whose history is replayed.
    plan
        Pinned versions of the tables, settings, and the begin of the synthetic shift of taste.
    home
        Folder of the sandbox, created at first use.
    """

    source: Workspace
    plan: BacktestPlanFile = field(repr=False)
    home: Path

    @cached_property
    def ws(self) -> Workspace:
        """The sandbox as a workspace."""
        group = self.source.config.workspace.group
        made = Workspace.init(self.home, _TEMPLATE, group)
        # Not the config of the sandbox's file: all schedules run with the pinned one.
        return Workspace(made.home, Composed(self.plan.config, {}))

    def deliver(self, span: Interval) -> None:
        """Ingest what became known in a span, as one batch that arrives at its end.

        Parameters
        ----------
        span
            Half-open interval.
        """
        with self.ws.lake.lock("ingest"):
            batches = Batches(self.ws.lake)
            # A killed call may have left a batch half done.
            batches.recover()
            for catalogue in self.plan.catalogues:
                for table in catalogue.versions if catalogue.at == span.end else ():
                    rows = self.source.read_pinned(catalogue.versions, table)
                    if rows.height:
                        self._commit(batches, table, rows, span)
            new = self._known_at(span.end) & ~self._known_at(span.start)
            events = self.source.read_pinned(self.plan.versions, "events", where=new)
            if self.plan.plant_shift is not None and span.end > self.plan.plant_shift:
                events = plant_shift(events, self._pairs, self.plan.plant_shift)
            self._commit(batches, "events", events, span)

    def _known_at(self, instant: datetime) -> pl.Expr:
        """Select the events that were known at an instant."""
        known = before(instant)
        return known & ingested_by(instant) if self.plan.known.by == "as_of" else known

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
        assert self.plan.plant_shift is not None  # noqa: S101  (`deliver` checks it)
        columns = (c.ITEM_ID, c.TIMESTAMP)
        events = self.source.read_pinned(self.plan.versions, "events", columns)
        return exchanged(events, self.plan.plant_shift)
