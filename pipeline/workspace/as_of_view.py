"""As-of view of a workspace: a nightly run reads its pinned versions, a feedback pass the current.

Guarantees: no event at or after the instant is seen, and no decision of a later run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf
from pipeline.data.split import before
from pipeline.workspace.config import Config
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import DecisionEntry
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class AsOfView:
    """A view of a workspace.

    Attributes
    ----------
    at
        The instant.
    night
        The run whose view it is; ``None`` for a feedback pass.
    config
        The run's own, else the workspace's.
    """

    ws: Workspace
    at: AsOf
    night: Night | None
    config: Config

    @classmethod
    def now(cls, ws: Workspace, at: AsOf) -> AsOfView:
        """Return the view of a feedback pass."""
        return cls(ws, at, None, ws.config)

    @classmethod
    def of(cls, night: Night) -> AsOfView:
        """Return the view of a nightly run."""
        return cls(night.ws, night.as_of, night, night.config)

    @cached_property
    def history(self) -> LedgerHistory:
        """The ledger as it is when this is first used."""
        return LedgerHistory.of(self.ws.ledger) if self.night is None else self.night.history

    def events(self, columns: Sequence[str], where: pl.Expr) -> pl.DataFrame:
        """Read events before the instant."""
        return self.table("events", columns, where & before(self.at))

    def table(
        self, name: str, columns: Sequence[str], where: pl.Expr | None = None
    ) -> pl.DataFrame:
        """Read a table that a nightly run pins."""
        if self.night is not None:
            return self.night.table(name, columns=columns, where=where)
        return self.ws.lake.read(name, columns=columns, where=where)

    def publications(self) -> pl.DataFrame:
        """Read what went live before the instant."""
        rows = self.ws.lake.read("publications")
        return rows.filter(rows[c.LIVE_FROM] < self.at)

    def decisions(self) -> tuple[DecisionEntry, ...]:
        """Return the decisions before this view, oldest first.

        A pass comes after a run for its very instant; a run does not come after itself.
        """
        before = self.at if self.night is not None else self.at + JUST_AFTER
        return self.history.decisions_before(before)
