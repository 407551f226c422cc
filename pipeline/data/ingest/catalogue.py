"""Items and users: parsing, validation and upsert by id.

Guarantees: a later file replaces the values of its columns and keeps those of other columns.
"""

from __future__ import annotations

import json
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.events import ValidatedRows, normalised
from pipeline.data.ingest.quarantine import bad_rows
from pipeline.data.ingest.times import read_times
from pipeline.data.sources.config import Source
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.validate.rules import (
    LARGEST,
    MAX_ID_BYTES,
    has_controls,
    id_bytes,
    names_of,
    unprintables,
)

KEYS: Final = {"items": c.ITEM_ID, "users": c.USER_ID}
_SCHEMAS: Final = {"items": c.ITEMS, "users": c.USERS}
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "t", "1", "yes", "y"), True),
    **dict.fromkeys(("false", "f", "0", "no", "n"), False),
}
_TYPED: Final = (c.PRICE, c.AVAILABLE, c.CREATED_AT)


def validate_catalogue(text: pl.DataFrame, source: Source, *, name: str) -> ValidatedRows:
    """Parse and validate rows of items or users.

    Categories are a JSON list or one text. A title with control characters counts as missing.

    Parameters
    ----------
    text
        `AT_LINE` and String columns, from `sources.read`.
    source
        Config of the source, with its table.
    name
        The file's name, for errors.

    Returns
    -------
    Rows with the file's columns: those of the table in its dtypes, features as text.

    Raises
    ------
    MappingError
        `ingest.naive_times`: `created_at` without a time zone.
    """
    key = KEYS[source.table]
    typed = _type(text, source, name)
    size = id_bytes(key)
    checks = {
        f"{key}_missing": pl.col(key).is_null(),
        f"{key}_empty": size == 0,
        f"{key}_too_long": size > MAX_ID_BYTES,
        f"{key}_unprintable": unprintables(key) > 0,
    }
    if c.PRICE in typed.columns:
        checks[f"{c.PRICE}_negative"] = pl.col(c.PRICE) < 0
        checks[f"{c.PRICE}_too_large"] = pl.col(c.PRICE).abs() > LARGEST
    flags = typed.select(
        *(check.fill_null(False).alias(reason) for reason, check in checks.items()),
        *(
            (typed[column].is_null() & text[column].is_not_null()).alias(f"{column}_unparsable")
            for column in _TYPED
            if column in text.columns
        ),
    )
    bad = flags.select(pl.any_horizontal(pl.all())).to_series()
    rejected = bad_rows(text.filter(bad), names_of(flags.filter(bad)))
    good, emptied = _without_hostile_titles(typed.filter(~bad))
    return ValidatedRows(good, rejected, emptied)


def upsert(
    table: str, current: pl.DataFrame, rows: pl.DataFrame, *, replace: bool
) -> tuple[pl.DataFrame, int]:
    """Update a table with the rows of a file.

    Parameters
    ----------
    table
        `items` or `users`.
    current
        The table before the file.
    rows
        Good rows of the file, with pseudonyms; of rows with one id the last counts. Columns that
        the file lacks keep their values.
    replace
        Items only: the file is the full catalogue, so items that it lacks become unavailable.

    Returns
    -------
    The new table, sorted by id, and the number of duplicate rows in the file.
    """
    key = KEYS[table]
    current = pl.concat([pl.DataFrame(schema=_SCHEMAS[table]), current], how="diagonal")
    fresh = rows.drop(AT_LINE).unique(subset=key, keep="last", maintain_order=True)
    # Ids are unique on both sides, and the result is sorted: the order of joins does not matter.
    kept = current.join(fresh, on=key, how="anti")
    lacking = [name for name in current.columns if name not in fresh.columns]
    updated = fresh.join(current.select(key, *lacking), on=key, how="left")
    if table == "items":
        given = pl.lit(True) if c.AVAILABLE in lacking and replace else pl.col(c.AVAILABLE)
        # A full catalogue makes its items available again; else the stored value is kept.
        updated = updated.with_columns(given.fill_null(True).alias(c.AVAILABLE))
        if replace:
            kept = kept.with_columns(pl.lit(False).alias(c.AVAILABLE))
    return pl.concat([kept, updated], how="diagonal").sort(key), rows.height - fresh.height


def _without_hostile_titles(rows: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Empty titles with control characters, such as terminal codes; return their number, too."""
    if c.TITLE not in rows.columns:
        return rows, {}
    hostile = rows.select(has_controls(c.TITLE).fill_null(False)).to_series()
    if not hostile.any():
        return rows, {}
    kept = pl.when(~hostile).then(pl.col(c.TITLE)).alias(c.TITLE)
    return rows.with_columns(kept), {f"{c.TITLE}_unprintable": int(hostile.sum())}


def _type(text: pl.DataFrame, source: Source, name: str) -> pl.DataFrame:
    key = KEYS[source.table]
    typed = text.with_columns(normalised(text[key]).alias(key))
    if source.table == "users":
        return typed
    if c.PRICE in text.columns:
        # The cast accepts the text "nan", which is not a price.
        price = pl.col(c.PRICE).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
        typed = typed.with_columns(price)
    if c.AVAILABLE in text.columns:
        word = pl.col(c.AVAILABLE).str.strip_chars().str.to_lowercase()
        typed = typed.with_columns(
            word.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        )
    if c.CREATED_AT in text.columns:
        typed = typed.with_columns(read_times(text, c.CREATED_AT, source, name))
    if c.CATEGORIES in text.columns:
        lists = [_categories(value) for value in text[c.CATEGORIES]]
        typed = typed.with_columns(pl.Series(c.CATEGORIES, lists, dtype=pl.List(pl.String)))
    return typed


def _categories(value: str | None) -> list[str] | None:
    if value is None or not value.lstrip().startswith("["):
        return None if value is None else [value]
    try:
        return [str(category) for category in json.loads(value) if category is not None]
    except (ValueError, RecursionError):  # deep nesting exceeds json's recursion limit
        return [value]
