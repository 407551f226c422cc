"""Pinned data that experiments train on: events before an instant, and the cleaned tables.

Guarantees: rows are read as a nightly run of that instant reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.clean import CleanConfig
from pipeline.data.split import before
from pipeline.data.windows import cleaned
from pipeline.workspace.config import Config, dump
from pipeline.workspace.config_errors import Tree
from pipeline.workspace.workspace import Workspace

_COLUMNS: Final = (c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)


def data_sections(config: Config) -> Tree:
    """Return the sections of the config that decide the data and the metric of a window."""
    sections = dump(config)
    return {name: sections[name] for name in ("clean", "features", "split", "recommend")}


@dataclass(frozen=True)
class LearningData:
    """Tables of a workspace at pinned versions."""

    ws: Workspace
    versions: Mapping[str, int | None]

    def events(self, end: datetime) -> pl.DataFrame:
        """Return the events before an instant, with the columns that recipes are trained on."""
        return self.ws.read_pinned(self.versions, "events", _COLUMNS, before(end))

    def catalogue(self, config: CleanConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the cleaned items and users."""
        items, _ = cleaned("items", self.ws.read_pinned(self.versions, "items"), config.items)
        users, _ = cleaned("users", self.ws.read_pinned(self.versions, "users"), config.users)
        return items, users
