"""What every publication needs, of a run or a patch: lists staged and read back, a ledger entry.

Guarantees: staging twice changes nothing; no user is sent to lists that were not read back as they
were written; the entry of a publication whose process died is written by the next command.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c
from pipeline.errors import LakeError
from pipeline.serving import publish as swap
from pipeline.workspace.ledger import PatchEntry, PublicationEntry, append_entry, entries_of
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace


def stage(ws: Workspace, name: str, lists: pl.DataFrame) -> None:
    """Write the lists of a publication that is not live, unless they are there."""
    if swap.lists_sum(_staged(ws, name)) != swap.lists_sum(lists):
        rows = swap.publication_rows(lists, name)
        ws.lake.replace_where("recommendations", rows, c.PUBLICATION_ID, name)


def verify_staged(ws: Workspace, name: str, expected: str) -> None:
    """Read the lists back before they go live; raises `LakeError` if they differ."""
    if swap.lists_sum(_staged(ws, name)) != expected:
        raise LakeError(
            "publish.lists_damaged",
            f"the lists of publication {name} did not come back as they were written",
        )


def _staged(ws: Workspace, name: str) -> pl.DataFrame:
    return ws.lake.read("recommendations", where=swap.of_publication(name))


def reconcile(ws: Workspace) -> None:
    """Append the entries of publications whose process died before it could."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    keys = {entry.key for entry in entries_of(ws.ledger)}
    for row in publications.iter_rows(named=True):
        if _key(row) not in keys:
            append_ledger_entry(ws, row)


def append_ledger_entry(ws: Workspace, row: swap.PublicationRow) -> None:
    """Append the entry of a publication; the same whichever process appends it."""
    fields = {
        "key": _key(row),
        "name": row[c.RECIPE],
        "run_id": row[c.RUN_ID],
        "as_of": row[c.AS_OF],
        "live_from": row[c.LIVE_FROM],
        "publication_id": row[c.PUBLICATION_ID],
        "generation": row[c.GENERATION],
        "model_version": row[c.MODEL_VERSION],
    }
    if row[c.BASE] is not None:
        append_entry(ws.ledger, PatchEntry(**fields, base=row[c.BASE]))
        return
    recipe = Night.read(ws, ws.runs.open(row[c.RUN_ID])).recipes[row[c.RECIPE]]
    append_entry(ws.ledger, PublicationEntry(**fields, recipe=recipe))


def _key(row: swap.PublicationRow) -> str:
    kind = "publication" if row[c.BASE] is None else "patch"
    return f"{kind}:{row[c.PUBLICATION_ID]}"
