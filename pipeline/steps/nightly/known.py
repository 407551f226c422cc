"""Data that a backdated run reads: the present rows of the lake, or those of the as-of.

Guarantees: by `as_of`, no row that was ingested after the as-of is read, and items and users have
the columns of the table versions of that instant. Where the lake does not hold these, or arrival
times are those of a bulk load, `now` applies, and the reason is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from pipeline import columns as c
from pipeline.base import AsOf
from pipeline.data.split import before, share_soon
from pipeline.errors import LakeError
from pipeline.number_text import share
from pipeline.stores.batches import APP, MERGED, Batches
from pipeline.workspace.artifacts import Known, Versions
from pipeline.workspace.config import KnownBy
from pipeline.workspace.workspace import Workspace

SOON: Final = timedelta(days=7)
"""Longest time from an event to its ingest that counts as soon."""
LEAST_SHARE: Final = 0.5
"""Share of the events that must have been ingested soon; with a smaller one they were loaded in
bulk, and the time of their ingest is not that of their arrival."""


def known_at(
    ws: Workspace, at: AsOf, known_by: KnownBy, versions: Mapping[str, int | None]
) -> tuple[Known, Versions]:
    """Choose between the present data and those of the as-of, and return the versions to read.

    Parameters
    ----------
    ws
        Workspace.
    at
        As-of instant.
    known_by
        Choice of the config.
    versions
        Newest version of each table.

    Returns
    -------
    The choice that applies with its reason, and `versions` with those of items and users replaced.
    """
    if known_by == "now":
        return Known(by="now", reason="as configured"), dict(versions)
    columns = [c.TIMESTAMP, c.INGESTED_AT]
    soon = share_soon(ws.lake.read("events", columns=columns, where=before(at)), SOON)
    arrived = f"{share(soon)} of the events before it were ingested within {SOON.days} days"
    if soon < LEAST_SHARE:
        reason = f"{arrived}, {share(LEAST_SHARE)} are needed: the history was loaded in bulk"
        return Known(by="now", reason=reason), dict(versions)
    try:
        own = catalogue_at(ws, at)
    except LakeError as error:
        if error.id != "lake.version_vacuumed":
            raise
        return Known(by="now", reason=error.sentence), dict(versions)
    return Known(by="as_of", reason=arrived), {**versions, **own}


def catalogue_at(ws: Workspace, at: AsOf) -> dict[str, int | None]:
    """Return the versions of items and users of an instant; None before the first file.

    Parameters
    ----------
    ws
        Workspace.
    at
        Files that were ingested later do not count.

    Raises
    ------
    LakeError
        `lake.version_vacuumed`: `gc` has removed one of the versions.
    """
    batches = Batches(ws.lake)
    return {t: ws.lake.version_of(t, APP, batches.last_known(t, at)) for t in MERGED}
