"""Comparison of the stores of a workspace: one that is older than another, or foreign, is an error.

A copy that was not taken in one instant, or a backup of one store, leaves such a workspace. Without
these checks rows would be lost, users would get a second pseudonym, and decisions would be taken
without the earlier ones.

Guarantees: nothing here writes; work of another process between two reads is not an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.columns import BatchStatus
from pipeline.errors import LakeError, StorageError
from pipeline.stores.batches import APP, FILES, files_number
from pipeline.stores.lake import SCHEMAS, Lake
from pipeline.stores.ledger import Ledger
from pipeline.stores.vault import count_users, vault_ids

_COUNTS = {
    "events": c.ACCEPTED,
    "items": c.ACCEPTED,
    "users": c.ACCEPTED,
    "quarantine": c.QUARANTINED,
}
"""Column of `batches` with the number of rows that a file adds to a table."""


def compare_stores(lake: Lake, ledger: Ledger, vault: Path) -> None:
    """Compare lake, ledger and vault with each other.

    Parameters
    ----------
    lake
        Open intents are carried out first (`Batches.recover`), or belong to a running ingest.
    ledger
        Ledger of the workspace.
    vault
        File of the vault.

    Raises
    ------
    StorageError
        As the functions below.
    """
    compare_batches(lake)  # opens most of the tables
    compare_tables(lake)
    compare_vault(lake, vault)
    compare_ledger(lake, ledger)


def compare_tables(lake: Lake) -> None:
    """Compare the lakes in which the tables were created; copies of a workspace have one lake.

    Raises
    ------
    LakeError
        ``lake.other_table``: a table comes from another workspace.
    """
    own = lake.id
    owners = {table: lake.owner(table) for table in SCHEMAS if table != "batches"}
    owners = {table: owner for table, owner in owners.items() if owner}
    foreign = [table for table, owner in owners.items() if owner != own]
    if own and foreign:
        # The id is that of `batches`, so the others differ if that table was replaced.
        named = ["batches"] if len(foreign) == len(owners) > 1 else foreign
        raise LakeError(
            "lake.other_table",
            f"lake table {', '.join(named)} comes from another workspace than the other tables; "
            "restore the folder lake as a whole from one backup",
        )


def refuse_other_workspace(lake: Lake, created_in: str, run_id: str) -> None:
    """Raise if a run read another lake.

    Parameters
    ----------
    lake
        Lake of the workspace.
    created_in
        Id of the lake that the run read; "" if it had none.
    run_id
        Name of the run's folder.

    Raises
    ------
    StorageError
        ``run.other_workspace``
    """
    if created_in and created_in != lake.id:
        raise StorageError(
            "run.other_workspace",
            f"run {run_id} belongs to another workspace: it read another lake; move its folder "
            "out of runs/",
        )


def compare_batches(lake: Lake) -> None:
    """Compare the number of the last ingest of each table with `batches`.

    Raises
    ------
    LakeError
        ``lake.batches_behind``: a table has a number that `batches` does not have, so that the next
        files would get numbers that are taken; ``lake.table_behind``: a table lacks the rows of a
        file that is done; ``lake.other_copy``: a table was written after other files.
    """
    # In this order: an ingest writes its number to `batches`, then to the tables, then `done`.
    done = lake.read("batches", where=pl.col(c.STATUS) == BatchStatus.DONE)
    numbers = {table: lake.last_txns(table, APP, FILES) for table in _COUNTS}
    batches = lake.read("batches", columns=[c.SEQ, c.BATCH_ID])
    last = _newest(batches, c.SEQ)
    for table, (written, files) in numbers.items():
        number = written or 0
        if number > last:
            raise LakeError(
                "lake.batches_behind",
                f"lake table batches ends at file {last}, but table {table} has rows up to file "
                f"{number}: batches is older, and {number - last} files are missing in it; restore "
                "the folder lake as a whole from one backup",
            )
        of_table = pl.lit(True) if table == "quarantine" else pl.col(c.TABLE) == table
        needed = _newest(done.filter(of_table & (pl.col(_COUNTS[table]) > 0)), c.SEQ)
        if number < needed:
            raise LakeError(
                "lake.table_behind",
                f"lake table {table} has rows up to file {number}, but batches has file {needed} "
                f"as done: {table} is older, and rows are missing in it; restore the folder lake "
                "as a whole from one backup",
            )
        if files is not None and files != files_number(batches, number):
            raise LakeError(
                "lake.other_copy",
                f"lake table {table} was last written after other files than the {number} first "
                "ones of batches: one of the two comes from another copy of this workspace; "
                "restore the folder lake as a whole from one backup",
            )


def compare_vault(lake: Lake, vault: Path) -> None:
    """Compare the vault, and the number of its users, with those of the last ingest.

    Parameters
    ----------
    lake
        Its table `batches` has the id and the number.
    vault
        File of the vault; its key is not needed.

    Raises
    ------
    StorageError
        ``vault.behind``: users of the lake are missing; ``vault.other``: it is another vault.
    """
    # The vault after the lake: pseudonyms are committed before the rows that use them.
    batches = lake.read("batches", columns=[c.SEQ, c.VAULT_ID, c.VAULT_USERS])
    last = batches.filter(pl.col(c.SEQ) == pl.col(c.SEQ).max())
    noted = _newest(last, c.VAULT_USERS)
    count = count_users(vault) if noted else 0
    if count < noted:
        raise StorageError(
            "vault.behind",
            f"the vault {vault} has {count:,} users, but it had {noted:,} at the last ingest: "
            f"{noted - count:,} users of the lake are missing in it; restore it from a backup that "
            "is not older than the lake. A new vault would give these users other pseudonyms",
        )
    if noted and last[c.VAULT_ID][0] not in vault_ids(vault):
        raise StorageError(
            "vault.other",
            f"the vault {vault} is not the one that the last ingest used: it gives the users of "
            "the lake other pseudonyms; restore the vault of this workspace from a backup that is "
            "not older than the lake",
        )


def compare_ledger(lake: Lake, ledger: Ledger) -> None:
    """Compare the ledger with the last publication.

    Parameters
    ----------
    lake
        Each row of its table `publications` has the head of the ledger just before it.
    ledger
        May have more lines.

    Raises
    ------
    StorageError
        ``ledger.behind``: lines are missing at its end; ``ledger.other``: it has other lines;
        as `Ledger.entries`.
    LakeError
        ``lake.lost``, ``lake.publications_behind``: the lake is older than the ledger;
        ``lake.other_copy``: it has another publication than the ledger.
    """
    # Before the lake: the entry of a publication is appended after its row.
    entries = ledger.entries()
    # Only entries of publications and patches have a generation.
    generation = max((entry.get(c.GENERATION, 0) for entry in entries), default=0)
    if entries and lake.version("batches") is None:
        raise LakeError(
            "lake.lost",
            f"the ledger has entries, but the lake {lake.root} has no batches; restore the lake "
            "from a backup",
        )
    publications = lake.read("publications").sort(c.GENERATION)
    last = _last_publication(publications)
    if generation > last[c.GENERATION]:
        raise LakeError(
            "lake.publications_behind",
            f"lake table publications ends at generation {last[c.GENERATION]}, but the ledger "
            f"{ledger.path} has generation {generation}: the lake is older; restore the folder "
            "lake as a whole from a backup that is not older than the ledger",
        )
    # An id follows from as-of and recipe, so that a copy may have other lists of one id.
    columns = (c.GENERATION, c.PUBLICATION_ID, c.SUMS)
    published = set(publications.select(columns).iter_rows())
    for entry in entries:
        if c.GENERATION in entry and tuple(map(entry.get, columns)) not in published:
            raise LakeError(
                "lake.other_copy",
                f"generation {entry[c.GENERATION]} of lake table publications has other lists than "
                f"the ledger {ledger.path} names: one of the two comes from another copy of this "
                "workspace; restore the whole workspace from one backup",
            )
    # A ledger that was written again may lack lines that no other store has.
    accepted = max((entry.get("accepted_generation", 0) for entry in entries), default=0)
    if last[c.GENERATION] <= accepted:
        return
    # Again: lines may have been appended before that publication.
    entries, lines = ledger.entries(), last[c.LEDGER_LINES]
    if len(entries) < lines:
        raise StorageError(
            "ledger.behind",
            f"the ledger {ledger.path} has {len(entries):,} lines, but it had {lines:,} when "
            f"publication {last[c.PUBLICATION_ID]} went live: {lines - len(entries):,} lines are "
            "missing at its end; run `nightjar repair ledger`, or restore it from a backup that is "
            "not older than the lake",
        )
    if lines and entries[lines - 1]["sha256"] != last[c.LEDGER_SUM]:
        raise StorageError(
            "ledger.other",
            f"the ledger {ledger.path} has another line {lines:,} than when publication "
            f"{last[c.PUBLICATION_ID]} went live; run `nightjar repair ledger`, "
            "or restore it from a backup of this workspace",
        )


def refuse_cut_ledger(ledger: Ledger) -> None:
    """Raise if the ledger has lost lines at its end; append entries of killed processes before.

    Raises
    ------
    StorageError
        ``ledger.behind``; as `Ledger.entries`.
    """
    if lines := ledger.lines_cut():
        raise StorageError(
            "ledger.behind",
            f"the ledger {ledger.path} has lost {lines:,} lines at its end, which "
            f"{ledger.path.with_suffix('.head').name} counts; run `nightjar repair ledger`, or "
            "restore both files from a backup that is not older than the lake",
        )


def _last_publication(rows: pl.DataFrame) -> dict[str, Any]:
    if rows.height:
        return rows.row(-1, named=True)
    return {c.GENERATION: 0, c.LEDGER_LINES: 0}


def _newest(rows: pl.DataFrame, column: str) -> int:
    """Return the maximum of a column; 0 without rows."""
    highest = rows[column].max()
    return highest if isinstance(highest, int) else 0
