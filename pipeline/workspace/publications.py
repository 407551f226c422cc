"""Publication of a run or a patch: staging of its lists, their check, and its ledger entry.

Guarantees:

* Staging twice changes nothing.
* Lists go live only after they were read back as they were written.
* The row of a publication holds the head of the ledger, so a ledger that lost its end is found.
* `read_lists` returns lists as they went live.
* If a process is killed between the publication and its ledger entry, the next command appends it.
"""

from __future__ import annotations

import polars as pl

from pipeline import columns as c
from pipeline.errors import LakeError
from pipeline.serving import publish
from pipeline.workspace.ledger import PatchEntry, PublicationEntry, append_entry, entries_of
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace


def stage(ws: Workspace, name: str, lists: pl.DataFrame) -> None:
    """Write the lists of a publication that is not live yet, unless the same ones are there.

    Parameters
    ----------
    name
        Id of the publication.
    lists
        `user_id`, `position`, `item_id`, `score`, `slot`, `propensity`, `reason`.
    """
    # Compared first: a repeated attempt would rewrite the same rows as a new version of the table.
    if publish.lists_sum(_staged(ws, name)) != publish.lists_sum(lists):
        rows = publish.publication_rows(lists, name)
        ws.lake.replace_where("recommendations", rows, name)


def verify_staged(ws: Workspace, name: str, expected: str) -> None:
    """Read the lists back before they go live.

    Parameters
    ----------
    name
        Id of the publication.
    expected
        Checksum of the lists (`serving.publish.lists_sum`).

    Raises
    ------
    LakeError
        `publish.lists_damaged`.
    """
    if publish.lists_sum(_staged(ws, name)) != expected:
        raise LakeError(
            "publish.lists_damaged",
            f"the lists of publication {name} differ from the lists that were written; start the "
            "same command again",
        )


def _staged(ws: Workspace, name: str) -> pl.DataFrame:
    return ws.lake.read("recommendations", partitions=publish.of_publication(name))


def go_live(ws: Workspace, rows: pl.DataFrame) -> pl.DataFrame:
    """Commit the rows of publications, which makes their lists live.

    Parameters
    ----------
    rows
        Rows of `columns.PUBLICATIONS` without the head of the ledger.

    Returns
    -------
    The committed rows.
    """
    lines, last_sum = ws.ledger.head()
    rows = rows.with_columns(
        pl.lit(lines, pl.Int64).alias(c.LEDGER_LINES), pl.lit(last_sum).alias(c.LEDGER_SUM)
    )
    ws.lake.append("publications", rows)
    return rows


def read_lists(ws: Workspace, rows: pl.DataFrame) -> pl.DataFrame:
    """Read the lists of publications, and compare them with the checksums of their rows.

    Parameters
    ----------
    rows
        Rows of `columns.PUBLICATIONS`, such as those of a chain.

    Returns
    -------
    Rows of `columns.RECOMMENDATIONS`.

    Raises
    ------
    LakeError
        `lists.altered`: the lists of a publication are not those that went live.
    """
    lists = ws.lake.read("recommendations", partitions=publish.of_chain(rows))
    if (name := publish.first_altered(lists, rows)) is not None:
        raise LakeError(
            "lists.altered",
            f"the lists of publication {name} are not those that went live; restore the folder "
            "lake as a whole from one backup",
        )
    return lists


def reconcile(ws: Workspace) -> None:
    """Append the missing ledger entries of publications."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    # An entry must not outlast its row.
    ws.lake.acknowledge("publications")
    keys = {entry.key for entry in entries_of(ws.ledger)}
    # The row makes the lists live; a process may be killed before it appends the entry.
    for row in publications.iter_rows(named=True):
        if entry_key(row) not in keys:
            append_ledger_entry(ws, row)


def append_ledger_entry(ws: Workspace, row: publish.PublicationRow) -> None:
    """Append the entry of a publication.

    Parameters
    ----------
    ws
        Workspace.
    row
        Its row in ``publications``.
    """
    append_entry(ws.ledger, ledger_entry(ws, row))


def ledger_entry(ws: Workspace, row: publish.PublicationRow) -> PublicationEntry | PatchEntry:
    """Return the ledger entry of a publication.

    Parameters
    ----------
    row
        Its row in ``publications``: the entry follows from it and the run alone, so every process
        appends the same one.
    """
    fields = {
        "key": entry_key(row),
        "name": row[c.RECIPE],
        "run_id": row[c.RUN_ID],
        "as_of": row[c.AS_OF],
        "live_from": row[c.LIVE_FROM],
        "publication_id": row[c.PUBLICATION_ID],
        "generation": row[c.GENERATION],
        "model_version": row[c.MODEL_VERSION],
        "sums": row[c.SUMS],
    }
    if row[c.BASE] is not None:
        return PatchEntry(**fields, base=row[c.BASE])
    # The row has only the recipe's name. The run is pinned, so a retry appends the same recipe.
    recipe = Night.read(ws, ws.runs.open(row[c.RUN_ID])).recipes[row[c.RECIPE]]
    return PublicationEntry(**fields, recipe=recipe)


def entry_key(row: publish.PublicationRow) -> str:
    """Return the key of the ledger entry of a publication."""
    kind = "publication" if row[c.BASE] is None else "patch"
    return f"{kind}:{row[c.PUBLICATION_ID]}"
