"""As-of view of a workspace: a nightly run reads its pinned versions, a feedback pass current ones.

Guarantees: no event at or after the instant is read, and no decision of a later run.
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
        The as-of instant.
    night
        The nightly run; ``None`` for a feedback pass.
    config
        Settings of the run, else of the workspace.
    """

    ws: Workspace
    at: AsOf
    night: Night | None
    config: Config

    @classmethod
    def now(cls, ws: Workspace, at: AsOf) -> AsOfView:
        """Return the view of a feedback pass.

        Parameters
        ----------
        at
            Instant of the pass.
        """
        return cls(ws, at, None, ws.config)

    @classmethod
    def of(cls, night: Night) -> AsOfView:
        """Return the view of a nightly run."""
        return cls(night.ws, night.as_of, night, night.config)

    @cached_property
    def history(self) -> LedgerHistory:
        """The ledger at the first use of this property."""
        # A run keeps one history for all its readers, so the ledger is parsed once per task.
        return LedgerHistory.of(self.ws.ledger) if self.night is None else self.night.history

    def events(self, columns: Sequence[str], where: pl.Expr) -> pl.DataFrame:
        """Read events before the instant.

        Parameters
        ----------
        where
            Further filter.
        """
        return self.table("events", columns, where & before(self.at))

    def table(
        self, name: str, columns: Sequence[str], where: pl.Expr | None = None
    ) -> pl.DataFrame:
        """Read a table.

        Parameters
        ----------
        name
            ``events``, ``items`` or ``users``.
        where
            Filter that the lake applies while it reads.
        """
        if self.night is not None:
            return self.night.table(name, columns=columns, where=where)
        return self.ws.lake.read(name, columns=columns, where=where)

    def publications(self) -> pl.DataFrame:
        """Read the publications that went live before the instant."""
        # Not pinned: publications are only appended, and later ones are filtered.
        rows = self.ws.lake.read("publications")
        return rows.filter(rows[c.LIVE_FROM] < self.at)

    def decisions(self) -> tuple[DecisionEntry, ...]:
        """Return the decisions of earlier runs, oldest first.

        A nightly run gets those with an earlier as-of. A feedback pass also gets the decision of a
        run whose as-of is the instant of the pass.
        """
        before = self.at if self.night is not None else self.at + JUST_AFTER
        return self.history.decisions_before(before)
