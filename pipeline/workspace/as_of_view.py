"""What is known at an instant: to a night what it pinned, to a pass what the lake holds.

Promises: no event at or after the instant is seen, and no line of the ledger that a night wrote for
a later one; who asks again about a night gets what it saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import parse_instant, to_utc
from pipeline.data.split import before
from pipeline.workspace.config import Config
from pipeline.workspace.history import DECISION
from pipeline.workspace.night import Night, read_pinned
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class Lately:
    """A view of a workspace.

    Attributes
    ----------
    at
        The instant.
    night
        Whose view it is; ``None`` for a pass, which sees the newest.
    config
        The night's own, else the workspace's.
    """

    ws: Workspace
    at: datetime
    night: Night | None
    config: Config

    @classmethod
    def now(cls, ws: Workspace, at: datetime) -> Lately:
        """Return what a pass knows."""
        return cls(ws, to_utc(at), None, ws.config)

    @classmethod
    def of(cls, ws: Workspace, night: Night) -> Lately:
        """Return what a night knows."""
        return cls(ws, night.as_of, night, night.config)

    def events(self, columns: Sequence[str], where: pl.Expr) -> pl.DataFrame:
        """Read events before the instant."""
        return self.table("events", columns, where & before(self.at))

    def table(
        self, name: str, columns: Sequence[str], where: pl.Expr | None = None
    ) -> pl.DataFrame:
        """Read a table that a night pins."""
        if self.night is not None:
            return read_pinned(self.ws, self.night, name, columns=columns, where=where)
        return self.ws.lake.read(name, columns=columns, where=where)

    def publications(self) -> pl.DataFrame:
        """Read what went live before the instant."""
        rows = self.ws.lake.read("publications")
        return rows.filter(rows[c.LIVE_FROM] < self.at)

    def decisions(self) -> list[Mapping[str, Any]]:
        """Return the ledger's lines of nights that a night or pass at the instant comes after.

        Oldest first; of two nights for one as-of the later one. A pass comes after a night for its
        very instant, a night does not come after itself.
        """
        nights: dict[datetime, Mapping[str, Any]] = {}
        for entry in self.ws.ledger.entries():
            if entry["type"] != DECISION:
                continue
            as_of = parse_instant(entry["as_of"])
            if as_of < self.at or (self.night is None and as_of == self.at):
                nights[as_of] = entry
        return [nights[as_of] for as_of in sorted(nights)]
