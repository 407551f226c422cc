"""What every publication needs, a night's and a patch's: lists staged and read back, a ledger line.

Promises: staging twice changes nothing; nobody is sent to lists that did not come back as they were
written; a swap whose process died before it could tell the ledger is told by whoever comes next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import format_instant
from pipeline.errors import LakeError
from pipeline.serving import publish as swap
from pipeline.workspace.history import PATCH, PUBLICATION
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace


def stage(ws: Workspace, name: str, lists: pl.DataFrame) -> None:
    """Write the lists of a publication that is not live, unless they are there."""
    if swap.lists_sum(_there(ws, name)) != swap.lists_sum(lists):
        rows = swap.publication_rows(lists, name)
        ws.lake.replace_where("recommendations", rows, c.PUBLICATION_ID, name)


def refuse_damaged(ws: Workspace, name: str, expected: str) -> None:
    """Read the lists back before anybody is sent to them."""
    if swap.lists_sum(_there(ws, name)) != expected:
        raise LakeError(f"the lists of publication {name} did not come back as they were written")


def _there(ws: Workspace, name: str) -> pl.DataFrame:
    return ws.lake.read("recommendations", where=swap.of_publication(name))


def reconcile(ws: Workspace) -> None:
    """Write the ledger's lines of swaps whose process died before it could."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    known = {entry["key"] for entry in ws.ledger.entries()}
    for row in publications.iter_rows(named=True):
        if _key(row) not in known:
            record(ws, row)


def record(ws: Workspace, row: Mapping[str, Any]) -> None:
    """Write a swap into the ledger; the same line whoever writes it."""
    told = {
        "name": row[c.RECIPE],
        "run_id": row[c.RUN_ID],
        "as_of": format_instant(row[c.AS_OF]),
        "live_from": format_instant(row[c.LIVE_FROM]),
        "publication_id": row[c.PUBLICATION_ID],
        "generation": row[c.GENERATION],
        "model_version": row[c.MODEL_VERSION],
    }
    if row[c.BASE] is not None:
        ws.ledger.append(_key(row), PATCH, {**told, "base": row[c.BASE]})
        return
    recipe = Night.read(ws.runs.open(row[c.RUN_ID])).recipes[row[c.RECIPE]]
    ws.ledger.append(_key(row), PUBLICATION, {**told, "recipe": recipe.model_dump(mode="json")})


def _key(row: Mapping[str, Any]) -> str:
    kind = PUBLICATION if row[c.BASE] is None else PATCH
    return f"{kind}:{row[c.PUBLICATION_ID]}"
