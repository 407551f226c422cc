"""Items and users: parsing, validation and upsert by id.

Guarantees: a later file replaces the values of its columns and keeps those of other columns; a
value that cannot be read never drops its row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.events import ValidatedRows
from pipeline.data.ingest.ids import read_ids
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
_EARLIER: Final = "#earlier"
_SCHEMAS: Final = {"items": c.ITEMS, "users": c.USERS}
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "t", "1", "yes", "y"), True),
    **dict.fromkeys(("false", "f", "0", "no", "n"), False),
}


def validate_catalogue(text: pl.DataFrame, source: Source, missing: Sequence[str]) -> ValidatedRows:
    """Parse and validate rows of items or users.

    Categories are a JSON list or one text. A price, availability or `created_at` that is invalid,
    and a title with control characters, count as missing.

    Parameters
    ----------
    text
        `AT_LINE` and String columns, from `sources.read`.
    source
        Config of the source, with its table.
    missing
        Words for a missing id.

    Returns
    -------
    Rows with the file's columns: those of the table in its dtypes, features as text.
    """
    key = KEYS[source.table]
    typed, flags, changed = read_ids(text, (key,), missing)
    checks = {
        f"{key}_missing": pl.col(key).is_null(),
        f"{key}_too_long": id_bytes(key) > MAX_ID_BYTES,
        f"{key}_unprintable": unprintables(key) > 0,
    }
    checked = typed.select(check.fill_null(False).alias(name) for name, check in checks.items())
    flags = pl.concat([checked, flags], how="horizontal")
    bad = flags.select(pl.any_horizontal(pl.all())).to_series()
    rejected = bad_rows(text.filter(bad), names_of(flags.filter(bad)))
    text, typed = text.filter(~bad), typed.filter(~bad)
    if source.table == "users":
        return ValidatedRows(typed, rejected, rejected.clear(), changed)
    typed, invalid = _fields(text, typed, source)
    odd = invalid.select(pl.any_horizontal(pl.all())).to_series()
    emptied = bad_rows(text.filter(odd), names_of(invalid.filter(odd)))
    return ValidatedRows(typed, rejected, emptied, changed)


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
        # A full catalogue makes its items available again; else the stored value is kept, also
        # where the file has none that can be read.
        earlier = current.select(key, pl.col(c.AVAILABLE).alias(_EARLIER))
        updated = updated.join(earlier, on=key, how="left").with_columns(
            pl.coalesce(given, _EARLIER, True).alias(c.AVAILABLE)
        )
        updated = updated.drop(_EARLIER)
        if replace:
            kept = kept.with_columns(pl.lit(False).alias(c.AVAILABLE))
    return pl.concat([kept, updated], how="diagonal").sort(key), rows.height - fresh.height


def _fields(
    text: pl.DataFrame, typed: pl.DataFrame, source: Source
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Type the optional columns of items; return one flag per reason why a value is missing."""
    # The first one, which is never true, gives the others their length.
    flags = {"none": pl.repeat(False, text.height, eager=True)}
    if c.PRICE in text.columns:
        # The cast accepts the text "nan", which is not a price.
        number = text[c.PRICE].str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
        flags[f"{c.PRICE}_unparsable"] = number.is_null() & text[c.PRICE].is_not_null()
        flags[f"{c.PRICE}_negative"] = number < 0
        flags[f"{c.PRICE}_too_large"] = number > LARGEST
        valid = pl.when(number.is_between(0, LARGEST)).then(number).alias(c.PRICE)
        typed = typed.with_columns(valid)
    if c.AVAILABLE in text.columns:
        word = text[c.AVAILABLE].str.strip_chars().str.to_lowercase()
        known = word.replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
        flags[f"{c.AVAILABLE}_unparsable"] = known.is_null() & word.is_not_null()
        typed = typed.with_columns(known)
    if c.CREATED_AT in text.columns:
        times, causes = read_times(text[c.CREATED_AT], source)
        causes = causes.fill_null("unparsable")
        lost = times.is_null() & text[c.CREATED_AT].is_not_null()
        for cause in causes.filter(lost).unique().sort():
            flags[f"{c.CREATED_AT}_{cause}"] = lost & (causes == cause)
        typed = typed.with_columns(times)
    if c.CATEGORIES in text.columns:
        lists = [_categories(value) for value in text[c.CATEGORIES]]
        typed = typed.with_columns(pl.Series(c.CATEGORIES, lists, dtype=pl.List(pl.String)))
    if c.TITLE in text.columns:
        # Such as terminal codes.
        hostile = text.select(has_controls(c.TITLE).fill_null(False)).to_series()
        flags[f"{c.TITLE}_unprintable"] = hostile
        typed = typed.with_columns(pl.when(~hostile).then(pl.col(c.TITLE)).alias(c.TITLE))
    return typed, pl.DataFrame({name: flag.fill_null(False) for name, flag in flags.items()})


def _categories(value: str | None) -> list[str] | None:
    if value is None or not value.lstrip().startswith("["):
        return None if value is None else [value]
    try:
        return [str(category) for category in json.loads(value) if category is not None]
    except (ValueError, RecursionError):  # deep nesting exceeds json's recursion limit
        return [value]
