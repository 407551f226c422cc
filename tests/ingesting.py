"""A small workspace that takes files in, and looks into its lake."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipeline import columns as c
from pipeline.workspace.workspace import Workspace

AT = datetime(2024, 3, 10, tzinfo=UTC)
CONFIG = """
[sources.orders]
table = "events"
path = "orders*"
constants = { kind = "purchase" }
timezone = "UTC"
skip_when = { customer = [""], n = ["0"] }

[sources.orders.columns]
event_id = "line"
user_id = "customer"
item_id = "sku"
value = "n"
timestamp = "ordered"
"""


def workspace(home: Path, config: str = CONFIG) -> Workspace:
    return Workspace.init(home, config)


def land(ws: Workspace, name: str, data: bytes | str, table: str = "events") -> Path:
    """Put a file into the landing folder, written long before any test's instant."""
    path = ws.home / "landing" / table / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def orders(*lines: str) -> str:
    return "line,customer,sku,n,ordered,note\n" + "".join(f"{line},x\n" for line in lines)


def state(ws: Workspace) -> dict[str, list[tuple[object, ...]]]:
    """All that the lake holds of files, users by their raw ids, in a fixed order."""
    rows: dict[str, list[tuple[object, ...]]] = {}
    for table in ("events", "items", "users", "quarantine", "batches"):
        frame = ws.lake.read(table)
        if c.USER_ID in frame.columns and frame.height:
            raw = ws.vault.reveal(frame[c.USER_ID].unique().to_list())
            frame = frame.with_columns(pl.col(c.USER_ID).replace_strict(raw))
        # They depend on the workspace and on the files that share a commit, not on the files.
        frame = frame.drop(c.VAULT_ID, c.VAULT_USERS, strict=False)
        rows[table] = sorted(map(repr, frame.rows()))
    return rows
