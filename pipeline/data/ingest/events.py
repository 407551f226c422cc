"""Events: text -> typed, judged, identified, told from their duplicates.

Every row ends in exactly one place: accepted, quarantined or a duplicate. Of two events with one
identity the first counts; a later one that says something else is no duplicate, but quarantined.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.data.ingest.config import IngestConfig
from pipeline.data.ingest.quarantine import bad_rows
from pipeline.data.ingest.times import read_times
from pipeline.data.sources.config import EVENT_COLUMNS, Source
from pipeline.data.sources.mapping import AT_LINE
from pipeline.data.validate.rules import MAX_ID_BYTES, controls, id_bytes, row_reasons
from pipeline.errors import UnsafeInputError

IDENTITY: Final = (c.EVENT_ID, c.EVENT_DAY)
"""What makes two events the same one."""
CONTENT: Final = (c.EVENT_DAY, *EVENT_COLUMNS)
"""What an event says, its identity included."""
CONFLICT: Final = "event_id_conflict"
"""Reason of an event whose identity belongs to another one that says something else."""
_TYPED: Final = (c.VALUE, c.TIMESTAMP, c.POSITION, c.PUBLICATION_ID)
_IDS: Final = (c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.PUBLICATION_ID)
_TO_BE_DERIVED: Final = "?"
_CONTENT: Final = "#content"


@dataclass(frozen=True)
class ValidatedRows:
    """Rows after judgement.

    Attributes
    ----------
    good
        Typed rows in the order of the file, user ids still raw.
    bad
        `AT_LINE`, `raw`, `reasons` of the others.
    """

    good: pl.DataFrame
    bad: pl.DataFrame

    @classmethod
    def joined(
        cls, parts: Iterable[ValidatedRows], *, name: str, broken: int, most: int
    ) -> ValidatedRows:
        """Join the parts of one file, of which there is at least one.

        Raises `UnsafeInputError` if more than `most` rows are bad, those counted that are `broken`
        and in no part.
        """
        judged: list[ValidatedRows] = []
        for part in parts:
            judged.append(part)
            broken += part.bad.height
            if broken > most:
                raise UnsafeInputError(
                    "ingest.too_many_bad_rows", f"has more than {most:,} bad rows", where=name
                )
        return cls(
            pl.concat((one.good for one in judged), how="diagonal"),
            pl.concat(one.bad for one in judged),
        )


def validate_events(
    text: pl.DataFrame, source: Source, config: IngestConfig, *, at: datetime, name: str
) -> ValidatedRows:
    """Type and judge rows of events.

    Parameters
    ----------
    text
        `AT_LINE` and String columns of events, as `sources.read` yields them.
    at
        Instant of the ingest; a later event is bad.
    name
        The file's name, for the sentence of `MappingError`.

    A missing value is 1, except that of a rating. A negative value of a kind that counts is a
    `return` of its magnitude. An `event_id` that is missing stays null: `derive_ids` fills it.
    """
    typed = _type(text, source, config, name)
    judged = typed.with_columns(pl.col(c.EVENT_ID).fill_null(_TO_BE_DERIVED))
    reasons = row_reasons(judged, at=at, kinds=config.kinds)
    lost = pl.DataFrame([typed[name].is_null() & text[name].is_not_null() for name in _TYPED])
    bad = (reasons.list.len() > 0) | lost.select(pl.any_horizontal(pl.all())).to_series()
    named = _named(reasons.filter(bad), lost.filter(bad))
    return ValidatedRows(typed.filter(~bad), bad_rows(text.filter(bad), named))


def with_pseudonyms(rows: pl.DataFrame, pseudonyms: Mapping[str, str]) -> pl.DataFrame:
    """Put pseudonyms in the place of raw user ids; one that is not there is an error."""
    pseudonym = pl.col(c.USER_ID).replace_strict(pseudonyms, return_dtype=pl.String)
    return rows.with_columns(pseudonym) if rows.height else rows


def derive_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Give an id to each event that has none.

    It is a hash of the row's content (pseudonym included, so that it tells nothing outside this
    workspace) and of its ordinal among the equal rows of the file: a re-ordered copy of the file
    yields the same ids, and two equal events stay two.
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


def split_duplicates(rows: pl.DataFrame, known: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the events that are new, and those whose identity was there before.

    Parameters
    ----------
    rows
        Events with ids; of equal identities the first row is the new one.
    known
        The columns `IDENTITY` of the lake's events on the days of `rows`.
    """
    dated = rows.with_columns(pl.col(c.TIMESTAMP).dt.date().alias(c.EVENT_DAY))
    is_first = dated.select(pl.struct(IDENTITY).is_first_distinct()).to_series()
    fresh, repeats = dated.filter(is_first), dated.filter(~is_first)
    if known.height:
        again = fresh.join(known, on=IDENTITY, how="semi", maintain_order="left")
        fresh = fresh.join(known, on=IDENTITY, how="anti", maintain_order="left")
        repeats = pl.concat([again, repeats])
    return fresh, repeats


def conflicting(repeats: pl.DataFrame, firsts: pl.DataFrame) -> pl.DataFrame:
    """Return the repeats that say something else than the first event of their identity.

    Parameters
    ----------
    repeats
        As `split_duplicates` returns them.
    firsts
        The columns `CONTENT` of the events that count.
    """
    return repeats.join(firsts, on=CONTENT, how="anti", nulls_equal=True, maintain_order="left")


def conflict_rows(conflicts: pl.DataFrame) -> pl.DataFrame:
    """Return events that conflict as `ValidatedRows.bad` has its rows."""
    text = conflicts.select(AT_LINE, *(pl.col(name).cast(pl.String) for name in EVENT_COLUMNS))
    return bad_rows(text, pl.Series([[CONFLICT]] * text.height, dtype=pl.List(pl.String)))


def on_days(rows: pl.DataFrame) -> pl.Expr:
    """Return the condition for events of the lake on the days of `rows`."""
    return pl.col(c.EVENT_DAY).is_in(rows[c.TIMESTAMP].dt.date().unique().to_list())


def with_origin(rows: pl.DataFrame, *, source: str, batch_id: str) -> pl.DataFrame:
    """Say of each row which file it came from, so that several files can be told apart."""
    return rows.with_columns(pl.lit(source).alias(c.SOURCE), pl.lit(batch_id).alias(c.BATCH_ID))


def by_file(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the key of each file that has rows -> its rows, in their order."""
    parts = rows.partition_by(c.BATCH_ID, maintain_order=True, as_dict=True)
    return {batch_id: part for (batch_id,), part in parts.items()}


def event_rows(fresh: pl.DataFrame, *, at: datetime) -> pl.DataFrame:
    """Return rows of `columns.EVENTS`, given events that know their file."""
    instant = pl.lit(at).cast(c.INSTANT).alias(c.INGESTED_AT)
    return fresh.with_columns(instant).select(c.EVENTS.names())


def normalised(text: pl.Series) -> pl.Series:
    """Return ids in Unicode's NFC: two spellings of one id are one id."""
    if text.str.len_bytes().sum() == text.str.len_chars().sum():
        return text
    return text.str.normalize("NFC")


def _type(text: pl.DataFrame, source: Source, config: IngestConfig, name: str) -> pl.DataFrame:
    number = pl.col(c.VALUE).str.strip_chars().cast(pl.Float64, strict=False).fill_nan(None)
    rating = (pl.col(c.KIND) == c.Kind.RATING).fill_null(False)
    frame = text.with_columns(
        *(normalised(text[column]).alias(column) for column in _IDS),
        pl.when(pl.col(c.VALUE).is_not_null()).then(number).when(~rating).then(1.0),
        read_times(text, c.TIMESTAMP, source, name),
        pl.col(c.POSITION).str.strip_chars().cast(pl.Int32, strict=False),
    ).with_columns(
        pl.when(id_bytes(c.PUBLICATION_ID) <= MAX_ID_BYTES, controls(c.PUBLICATION_ID) == 0).then(
            pl.col(c.PUBLICATION_ID)
        )
    )
    returned = pl.col(c.KIND).is_in([*config.quantity_kinds, c.Kind.RETURN.value])
    negative = returned & (pl.col(c.VALUE) < 0)
    return frame.with_columns(
        pl.when(negative).then(pl.lit(c.Kind.RETURN.value)).otherwise(pl.col(c.KIND)).alias(c.KIND),
        pl.when(negative).then(-pl.col(c.VALUE)).otherwise(pl.col(c.VALUE)).alias(c.VALUE),
    )


def _named(reasons: pl.Series, lost: pl.DataFrame) -> pl.Series:
    """Put "unparsable" in the place of "missing" for values that are there and cannot be read."""
    named = pl.col(c.REASONS)
    for column in lost.columns:
        others = named.list.filter(pl.element() != f"{column}_missing")
        unparsed = pl.concat_list(others, pl.lit(f"{column}_unparsable"))
        named = pl.when(pl.col(column)).then(unparsed).otherwise(named)
    return lost.with_columns(reasons).select(named).to_series()


def _content(rows: pl.DataFrame) -> pl.Series:
    """Spell out what an event is, unambiguously: each part after its length."""
    # Numbers by their bits: how a library prints them may change. Adding 0.0 unites the two zeros.
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
    spelled = [
        pl.concat_str(pl.col(p).str.len_bytes().cast(pl.String), pl.lit(":"), pl.col(p)).fill_null(
            "-"
        )
        for p in parts.columns
    ]
    return parts.select(pl.concat_str(spelled).alias(_CONTENT)).to_series()
