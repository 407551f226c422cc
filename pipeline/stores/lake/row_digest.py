"""Digest of the rows of a commit, which its log entry holds beside the names of its files.

If a writer is killed before it stores the checksums of its files, the digest shows whether they
still hold its rows.

Guarantees: the order of rows, columns and files does not matter, nor does a column without a value.
A digest of another version of polars, which may hash differently, equals none.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import polars as pl

from pipeline.stores.lake.tables import PARTITIONS, SCHEMAS, partition_values

ROWS: Final = "nightjar.rows"
"""Name of the digest in the information of a commit."""
SLICE: Final = 50_000
"""Number of rows that are hashed or written at a time."""
MAINTENANCE: Final = "maintenance"
"""Stands for the digest of a commit that merges or deletes rows, so has no rows of its own."""


def row_digest(rows: pl.DataFrame) -> str:
    """Return the digest of rows, partition column included."""
    used = _used(rows)
    # By slices: the hashes of all columns of all rows would need as much memory as the rows.
    total = sum(int(part.select(used).hash_rows().sum()) for part in rows.iter_slices(SLICE))
    return f"{pl.__version__} {rows.height} {total % 2**64}"


def read_files(folder: Path, table: str, files: Collection[str]) -> pl.DataFrame:
    """Read data files without comparing their checksums.

    Parameters
    ----------
    folder
        Folder of the table.
    table
        Name of the table.
    files
        Paths relative to the folder.
    """
    frames = [pl.DataFrame(schema=SCHEMAS[table])]
    for file in files:
        frame = pl.read_parquet(folder / file, glob=False, hive_partitioning=False)
        if column := PARTITIONS.get(table):
            value = partition_values(table, [file])[0]
            frame = frame.with_columns(pl.lit(value, SCHEMAS[table][column]).alias(column))
        frames.append(frame)
    return pl.concat(frames, how="diagonal_relaxed")


def are_among(rows: pl.DataFrame, others: pl.DataFrame) -> bool:
    """Return whether each row is among other rows.

    Parameters
    ----------
    rows, others
        Rows of one table; a column that one of them lacks is null there.
    """
    both = pl.concat([rows, others], how="diagonal_relaxed")
    hashes = both.select(_used(both)).hash_rows()
    return hashes.head(rows.height).is_in(hashes.tail(others.height).implode()).all()


def _used(rows: pl.DataFrame) -> list[str]:
    """Return the columns with a value; a write adds the columns of the table that its rows lack."""
    return sorted(name for name in rows.columns if rows[name].null_count() < rows.height)
