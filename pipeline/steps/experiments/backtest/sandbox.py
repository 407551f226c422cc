"""A workspace of a backtest: past days are delivered to it one after another, as if they came now.

Promises: it has a lake, a ledger, a registry and runs of its own, and nothing of the workspace that
it was made from moves; a day that is delivered twice is there once; people keep their pseudonyms.
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
# A sandbox of `nightjar backtest`. Its settings are those of the workspace it was made from, as
# they were then; what stands here is not read.
"""


def sandbox_config(config: Config) -> Config:
    """Return a sandbox's settings: lists live from each as-of, a registry of its own."""
    publish = config.publish.model_copy(update={"live_from": "as_of"})
    return config.model_copy(update={"publish": publish, "registry": RegistryConfig()})


@dataclass(frozen=True)
class BacktestSandbox:
    """One policy's world.

    Attributes
    ----------
    source
        Whose history it lives through.
    versions
        Table -> the version that is read there.
    home
        The folder of the sandbox; made when it is first used.
    config
        Its settings.
    plant
        From when on taste is another one, ``None`` for never.
    """

    source: Workspace
    versions: Mapping[str, int | None]
    home: Path
    config: Config = field(repr=False)
    plant: datetime | None = None

    @cached_property
    def ws(self) -> Workspace:
        """The workspace itself."""
        made = Workspace.init(self.home, _TEMPLATE)
        return Workspace(made.home, Composed(self.config, {}))

    def deliver(self, span: Interval, *, catalogue: bool) -> None:
        """Take in what happened in a span, as one batch that arrives at its end.

        Parameters
        ----------
        catalogue
            Items and users come along, as the source knows them today.

        """
        with self.ws.lake.lock("ingest"):
            batches = Batches(self.ws.lake)
            batches.recover()
            for table in ("items", "users") if catalogue else ():
                rows = self._read(table)
                if rows.height:
                    self._commit(batches, table, rows, span)
            events = self._read("events", between(span))
            if self.plant is not None and span.end > self.plant:
                events = plant_shift(events, self._pairs, self.plant)
            self._commit(batches, "events", events, span)

    def _commit(self, batches: Batches, table: str, rows: pl.DataFrame, span: Interval) -> None:
        name = f"{table}-{format_instant(span.end)}"
        key = hashlib.sha256(name.encode()).hexdigest()
        if batches.seen(table, key):
            return
        if table == "events":
            rows = event_rows(with_origin(rows, source=SOURCE, batch_id=key), at=span.end)
        batch = Batch(key, table, SOURCE, name, rows.height, rows.height, 0, 0, 0, 0, span.end)
        batches.commit([batch], rows if rows.height else None, self.ws.lake.empty("quarantine"))

    def _read(self, table: str, where: pl.Expr | None = None) -> pl.DataFrame:
        return self.source.read_pinned(self.versions, table, where=where)

    @cached_property
    def _pairs(self) -> dict[str, str]:
        assert self.plant is not None  # noqa: S101  (asked for from `deliver` alone)
        columns = (c.ITEM_ID, c.TIMESTAMP)
        events = self.source.read_pinned(self.versions, "events", columns)
        return exchanged(events, self.plant)
