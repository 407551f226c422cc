"""How rows are taken in."""

from __future__ import annotations

from pydantic import Field

from pipeline import columns as c
from pipeline.base import Frozen
from pipeline.data.sources.config import Limits


class IngestConfig(Frozen):
    """Kinds of events, and limits of files."""

    kinds: tuple[str, ...] = Field(
        default=tuple(kind.value for kind in c.Kind),
        min_length=1,
        description="Kinds of events that are known; another one is quarantined.",
    )
    quantity_kinds: tuple[str, ...] = Field(
        default=(c.Kind.PURCHASE.value,),
        description="Kinds whose value is a quantity: a negative one is a return.",
    )
    files_per_pass: int = Field(
        default=1000,
        ge=1,
        description="Files of a table that one pass over landing/ takes in, the oldest first; the "
        "others wait for the next pass.",
    )
    rows_per_commit: int = Field(
        default=200_000,
        ge=1,
        description="Small files are put together until they have so many rows, and taken in with "
        "one commit.",
    )
    limits: Limits = Field(default=Limits(), description="What no file may exceed.")
