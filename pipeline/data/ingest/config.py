"""Config of the ingest."""

from __future__ import annotations

from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.sources.config import Limits


class IngestConfig(Frozen):
    """Kinds of events, sizes of a pass, and limits of files."""

    kinds: tuple[str, ...] = Field(
        default=tuple(kind.value for kind in c.Kind),
        min_length=1,
        description="Allowed kinds of events; events of other kinds are quarantined.",
    )
    quantity_kinds: tuple[str, ...] = Field(
        default=(c.Kind.PURCHASE.value,),
        description="Kinds whose value is a quantity; a negative quantity becomes a return.",
    )
    missing_ids: tuple[str, ...] = Field(
        default=(
            "nan",
            "NaN",
            "null",
            "NULL",
            "None",
            "undefined",
            "\\N",
            "(not set)",
            "N/A",
        ),
        description="Texts of ids that mean that there is none: such a row is quarantined, like "
        "one with an empty id.",
    )
    files_per_pass: int = Field(
        default=1000,
        ge=1,
        description="Maximum number of files per table in one pass over landing/, the oldest "
        "first; the others wait for the next pass.",
    )
    rows_per_commit: int = Field(
        default=200_000,
        ge=1,
        description="Number of rows up to which small files share one commit.",
    )
    limits: Limits = Field(
        default=Limits(), description="Limits of a file and of the process that reads it."
    )


class PrivacyConfig(Frozen):
    """Values of delivered files that are stored in another form."""

    derive_event_ids: bool = Field(
        default=False,
        description="Store a keyed hash of each event id instead of the id, for shops whose event "
        "ids contain ids of users. Choose before the first event is ingested: a later change is "
        "refused.",
    )
