"""Events: parsing, validation, ids, duplicates and conflicts.

Guarantees: each row is accepted, quarantined or a duplicate, and only one of these; of several
events with one identity the first counts; a later one with other content is quarantined.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.ids import normalised, read_ids
from pipeline.data.ingest.quarantine import bad_rows
from pipeline.data.ingest.times import read_times
from pipeline.data.sources.config import EVENT_COLUMNS, Source
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.validate.rules import (
    MAX_ID_BYTES,
    id_bytes,
    names_of,
    row_reasons,
    unprintables,
)
from pipeline.errors import UnsafeInputError

IDENTITY: Final = (c.EVENT_ID, c.EVENT_DAY)
"""Identity of an event: two events with equal values are the same one."""
CONTENT: Final = (c.EVENT_DAY, *EVENT_COLUMNS)
"""Content of an event, identity included."""
CONFLICT: Final = "event_id_conflict"
"""Reason of an event whose identity belongs to an earlier event with other content."""
_TYPED: Final = (c.VALUE, c.TIMESTAMP, c.POSITION, c.PUBLICATION_ID)
_IDS: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID)
_TO_BE_DERIVED: Final = "?"
_CONTENT: Final = "#content"


@dataclass(frozen=True)
class ValidatedRows:
    """Rows after validation.

    Attributes
    ----------
    good
        Typed rows in the order of the file, with raw user ids.
    bad
        `AT_LINE`, `raw`, `reasons` of the others.
    emptied
        The same for good rows of which an optional field counts as missing.
    changed
        Kind of change of an id, such as ``item_id_float`` -> rows with it.
    """

    good: pl.DataFrame
    bad: pl.DataFrame
    emptied: pl.DataFrame
    changed: Counter[str]

    @classmethod
    def joined(
        cls, parts: Iterable[ValidatedRows], *, name: str, broken: int, most: int
    ) -> ValidatedRows:
        """Join the parts of one file.

        Parameters
        ----------
        parts
            At least one part, in the order of the file.
        name
            The file's name, for errors.
        broken
            Number of rows that could not be split into fields; they are in no part.
        most
            Maximum number of bad and broken rows.

        Raises
        ------
        UnsafeInputError
            `ingest.too_many_bad_rows`.
        """
        validated: list[ValidatedRows] = []
        for part in parts:
            validated.append(part)
            broken += part.bad.height
            if broken > most:
                raise UnsafeInputError(
                    "ingest.too_many_bad_rows",
                    f"has more than {most:,} bad rows; correct the file, or raise "
                    "ingest.limits.max_bad_rows",
                    where=name,
                )
        return cls(
            pl.concat((part.good for part in validated), how="diagonal"),
            pl.concat(part.bad for part in validated),
            pl.concat(part.emptied for part in validated),
            sum((part.changed for part in validated), Counter()),
        )


def validate_events(
    text: pl.DataFrame, source: Source, config: IngestConfig, *, at: datetime
) -> ValidatedRows:
    """Parse and validate rows of events.

    A missing value is 1, except for ratings. A negative value of a quantity kind becomes a
    `return` of its magnitude. A missing `event_id` stays null until `derive_ids`.

    Parameters
    ----------
    text
        `AT_LINE` and String columns of events, from `sources.read`.
    source
        Config of the source: time zone, unit or format.
    config
        Allowed kinds, quantity kinds and words for a missing id.
    at
        Instant of the ingest; a later event is bad.
    """
    times, causes = read_times(text[c.TIMESTAMP], source)
    with_ids, flags, changed = read_ids(text, _IDS, config.missing_ids)
    typed = _type(with_ids.with_columns(times), config)
    # An id that is derived later must not count as missing here.
    typed_rows = typed.with_columns(pl.col(c.EVENT_ID).fill_null(_TO_BE_DERIVED))
    reasons = row_reasons(typed_rows, at=at, kinds=config.kinds)
    unparsable = pl.DataFrame([typed[name].is_null() & text[name].is_not_null() for name in _TYPED])
    failed = pl.concat([unparsable, flags], how="horizontal")
    bad = (reasons.list.len() > 0) | failed.select(pl.any_horizontal(pl.all())).to_series()
    named = _named(reasons.filter(bad), unparsable.filter(bad), causes.filter(bad))
    named = named.list.concat(names_of(flags.filter(bad)))
    rejected = bad_rows(text.filter(bad), named)
    return ValidatedRows(typed.filter(~bad), rejected, rejected.clear(), changed)


def with_pseudonyms(rows: pl.DataFrame, pseudonyms: Mapping[str, str]) -> pl.DataFrame:
    """Replace raw user ids by pseudonyms.

    Parameters
    ----------
    rows
        Rows with `user_id`.
    pseudonyms
        Raw id → pseudonym for all of them; a missing one is a polars error.
    """
    pseudonym = pl.col(c.USER_ID).replace_strict(pseudonyms, return_dtype=pl.String)
    return rows.with_columns(pseudonym) if rows.height else rows


def with_event_ids(rows: pl.DataFrame, derive: Callable[[str], str]) -> pl.DataFrame:
    """Replace delivered event ids by derived ones; a missing id stays null.

    Parameters
    ----------
    rows
        Rows with `event_id`.
    derive
        Derived id of a delivered one.
    """
    derived = [None if event is None else derive(event) for event in rows[c.EVENT_ID]]
    return rows.with_columns(pl.Series(c.EVENT_ID, derived, dtype=pl.String))


def derive_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Derive an id for each event without one.

    The id is a hash of the row's other columns and of its ordinal among equal rows of the file, so
    a re-ordered copy of the file gives the same ids, and two equal events stay two. The columns
    contain the pseudonym, so the id is of no use outside the workspace.
    """
    missing = rows[c.EVENT_ID].is_null()
    if not missing.any():
        return rows
    contents = _content(rows.filter(missing)).to_frame()
    ordinal = pl.int_range(pl.len()).over(_CONTENT)
    ids = [
        "d" + hashlib.sha256(f"{ordinal}|{content}".encode()).hexdigest()[:32]
        for ordinal, content in contents.select(ordinal, _CONTENT).iter_rows()
    ]
    return rows.with_columns(rows[c.EVENT_ID].scatter(missing.arg_true(), ids))


def split_duplicates(
    rows: pl.DataFrame, existing: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Separate new events from those with an identity that already exists.

    Parameters
    ----------
    rows
        Events with ids; of several rows with one identity the first is the new one.
    existing
        Columns `IDENTITY` of the lake's events on the days of `rows`.

    Returns
    -------
    New events and repeated ones, both with `event_day`.
    """
    dated = rows.with_columns(pl.col(c.TIMESTAMP).dt.date().alias(c.EVENT_DAY))
    fresh, repeats = dated, dated.clear()
    # Ids are usually unique, and then no row needs to be copied.
    if dated[c.EVENT_ID].n_unique() < dated.height:
        is_first = dated.select(pl.struct(IDENTITY).is_first_distinct()).to_series()
        fresh, repeats = dated.filter(is_first), dated.filter(~is_first)
    if existing.height:
        again = fresh.join(existing, on=IDENTITY, how="semi", maintain_order="left")
        fresh = fresh.join(existing, on=IDENTITY, how="anti", maintain_order="left")
        repeats = pl.concat([again, repeats])
    return fresh, repeats


def conflicting(repeats: pl.DataFrame, firsts: pl.DataFrame) -> pl.DataFrame:
    """Select the repeated events whose content differs from the first event of their identity.

    Parameters
    ----------
    repeats
        Repeated events from `split_duplicates`.
    firsts
        Columns `CONTENT` of the first events.
    """
    return repeats.join(firsts, on=CONTENT, how="anti", nulls_equal=True, maintain_order="left")


def conflict_rows(conflicts: pl.DataFrame) -> pl.DataFrame:
    """Convert conflicting events to bad rows, in the form of `ValidatedRows.bad`."""
    text = conflicts.select(AT_LINE, *(pl.col(name).cast(pl.String) for name in EVENT_COLUMNS))
    return bad_rows(text, pl.Series([[CONFLICT]] * text.height, dtype=pl.List(pl.String)))


def on_days(rows: pl.DataFrame) -> pl.Expr:
    """Return the condition for the lake's events on the days of `rows`."""
    return pl.col(c.EVENT_DAY).is_in(rows[c.TIMESTAMP].dt.date().unique().to_list())


def with_origin(rows: pl.DataFrame, *, source: str, batch_id: str) -> pl.DataFrame:
    """Add the origin of the rows, so that rows of several files can be combined.

    Parameters
    ----------
    rows
        Rows of one file.
    source
        Name of the file.
    batch_id
        sha256 of the file's bytes.
    """
    return rows.with_columns(pl.lit(source).alias(c.SOURCE), pl.lit(batch_id).alias(c.BATCH_ID))


def by_file(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return `batch_id` -> rows of that file, in their order."""
    parts = rows.partition_by(c.BATCH_ID, maintain_order=True, as_dict=True)
    return {batch_id: part for (batch_id,), part in parts.items()}


def event_rows(fresh: pl.DataFrame, *, at: datetime) -> pl.DataFrame:
    """Return rows of `columns.EVENTS`.

    Parameters
    ----------
    fresh
        New events with their origin from `with_origin`.
    at
        Instant of the ingest, in UTC.
    """
    instant = pl.lit(at).cast(c.INSTANT).alias(c.INGESTED_AT)
    return fresh.with_columns(instant).select(c.EVENTS.names())


def _type(text: pl.DataFrame, config: IngestConfig) -> pl.DataFrame:
    number = pl.col(c.VALUE).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
    rating = (pl.col(c.KIND) == c.Kind.RATING).fill_null(False)
    frame = text.with_columns(
        normalised(text[c.PUBLICATION_ID]),
        pl.when(pl.col(c.VALUE).is_not_null()).then(number).when(~rating).then(1.0),
        pl.col(c.POSITION).str.strip_chars().cast(pl.Int32, strict=False),
    ).with_columns(
        pl.when(
            id_bytes(c.PUBLICATION_ID) <= MAX_ID_BYTES, unprintables(c.PUBLICATION_ID) == 0
        ).then(pl.col(c.PUBLICATION_ID))
    )
    returned = pl.col(c.KIND).is_in([*config.quantity_kinds, c.Kind.RETURN.value])
    # Shops export returns as negative quantities of a purchase.
    negative = returned & (pl.col(c.VALUE) < 0)
    return frame.with_columns(
        pl.when(negative).then(pl.lit(c.Kind.RETURN.value)).otherwise(pl.col(c.KIND)).alias(c.KIND),
        pl.when(negative).then(-pl.col(c.VALUE)).otherwise(pl.col(c.VALUE)).alias(c.VALUE),
    )


def _named(reasons: pl.Series, unparsable: pl.DataFrame, causes: pl.Series) -> pl.Series:
    """Replace the reason "missing" by "unparsable", or the cause of a time, for values present."""
    named = pl.col(c.REASONS)
    for column in unparsable.columns:
        others = named.list.filter(pl.element() != f"{column}_missing")
        cause = pl.lit("unparsable")
        if column == c.TIMESTAMP:
            cause = pl.lit(causes).fill_null("unparsable")
        unparsed = pl.concat_list(others, pl.concat_str(pl.lit(f"{column}_"), cause))
        named = pl.when(pl.col(column)).then(unparsed).otherwise(named)
    return unparsable.with_columns(reasons).select(named).to_series()


def _content(rows: pl.DataFrame) -> pl.Series:
    """Serialise each event without its id, with the length before each part."""
    # Numbers by their bits, since the printed form depends on the library. Adding 0.0 turns -0.0
    # into 0.0.
    bits = (rows[c.VALUE].to_numpy() + 0.0).view(np.int64)
    parts = rows.select(
        c.USER_ID,
        c.ITEM_ID,
        c.KIND,
        pl.Series(c.VALUE, bits).cast(pl.String),
        pl.col(c.TIMESTAMP).to_physical().cast(pl.String),
        c.PUBLICATION_ID,
        pl.col(c.POSITION).cast(pl.String),
    )
    # The lengths make it unambiguous: "ab", "c" differs from "a", "bc".
    spelled = [
        pl.concat_str(pl.col(p).str.len_bytes().cast(pl.String), pl.lit(":"), pl.col(p)).fill_null(
            "-"
        )
        for p in parts.columns
    ]
    return parts.select(pl.concat_str(spelled).alias(_CONTENT)).to_series()
