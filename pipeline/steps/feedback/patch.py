"""Patches: new lists for the users with events that their lists do not know.

Guarantees: a patch follows from its base, the files that the lake holds and the newest event that
was read, so an attempt that died is found again by its name; nothing here changes live lists.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.data.features import WEIGHED
from pipeline.data.matrix import History
from pipeline.data.split import before, last_event
from pipeline.data.windows import of_people as weighed
from pipeline.models.families import load
from pipeline.serving.foldin import Seen, end_of, histories, new_since, of_people, patch_id
from pipeline.serving.publish import Patch, PublicationRow, unavailable
from pipeline.serving.recommend import ListRules, people_lists
from pipeline.stores.batches import Batches
from pipeline.workspace.artifacts import REFIT, PatchFile
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import FALLBACK, read_scorer, read_split

STEP: Final = "foldin"


def make_patch(
    night: Night,
    behind: PublicationRow,
    at: datetime,
    *,
    catalogue: int | None,
    progress: Progress,
) -> Patch | str:
    """Fold in the users with events before `at` that the lists of a chain do not know.

    Parameters
    ----------
    night
        Run that made the chain's base.
    behind
        The newest row of the chain.
    catalogue
        Version of the items whose availability the lists obey.
    """
    name, lake = behind[c.RECIPE], night.ws.lake
    if not night.recipes[name].capabilities.fold_in:
        return (
            f"the live model ({name}, version {behind[c.MODEL_VERSION]}) cannot fold in: people "
            "keep their lists until the next night"
        )
    seen, version = seen_by(night, behind), lake.version("events")
    arrived = Batches(lake).arrived_since(seen.seq)
    fresh = lake.read(
        "events",
        version=version,
        columns=[c.USER_ID, c.TIMESTAMP, c.BATCH_ID],
        where=before(at) & new_since(arrived, seen.until),
    )
    if fresh.is_empty():
        return "nobody did anything that their list does not know"
    people = fresh[c.USER_ID].unique().to_list()
    progress(f"fold in: {counted(len(people))}")
    newest = last_event(fresh, at)
    events = lake.read(
        "events", version=version, columns=WEIGHED, where=before(at) & of_people(people)
    )
    own = _histories(night, events, newest)
    if own is None:
        return (
            f"{counted(len(people))} did something, with items alone that the live model does not "
            "know: lists stay until the next night"
        )
    files = fresh[c.BATCH_ID].unique().sort().to_list()
    seq = max((arrived[name] for name in files if name in arrived), default=seen.seq)
    base = behind[c.BASE] or behind[c.PUBLICATION_ID]
    patch = patch_id(base, seq, catalogue, newest)
    return Patch(
        publication_id=patch,
        at=_written(night, patch, Seen(seq, at), own.n_users).until,
        catalogue_version=catalogue,
        lists=_lists(night, name, own, catalogue),
        users=own.n_users,
        outside=len(people) - own.n_users,
        files=tuple(files),
    )


def counted(people: int) -> str:
    """Count people in words."""
    return "1 person" if people == 1 else f"{people:,} people"


def seen_by(night: Night, row: PublicationRow) -> Seen:
    """Return what the lists of a publication know: of a base or of a patch of it."""
    if row[c.BASE] is None:
        version = night.snapshot.versions["events"]
        return Seen(Batches(night.ws.lake).last_at(version), night.as_of)
    return _read(night, row[c.PUBLICATION_ID])


def _histories(night: Night, events: pl.DataFrame, newest: datetime) -> History | None:
    """Return the users' events as the run's model reads them, ``None`` if it knows no item."""
    pinned = night.events(*WEIGHED) if night.config.clean.events else events
    return histories(
        weighed(events, pinned, night.config.windows),
        History.from_arrays(night.run.arrays(REFIT, "history")),
        end_of(newest, night.as_of),
    )


def _written(night: Night, patch: str, seen: Seen, users: int) -> Seen:
    """Store what a patch knows, or return what an earlier attempt stored."""
    step = f"{STEP}/{patch}"
    if night.run.committed(step) is None:
        with night.run.draft(step) as draft:
            draft.write(PatchFile(seen))
            draft.rows = users
    return _read(night, patch)


def _read(night: Night, patch: str) -> Seen:
    return night.run.read(PatchFile, f"{STEP}/{patch}").root


def _lists(night: Night, recipe: str, own: History, catalogue: int | None) -> pl.DataFrame:
    rules = ListRules(
        unavailable=unavailable(night.ws.read_pinned({"items": catalogue}, "items")),
        repeat=read_split(night.run).task == "repeat",
        length=night.config.recommend.length,
        reasons=(recipe, FALLBACK),
    )
    fallback = load(night.recipes[FALLBACK].family, night.run.arrays(REFIT, "fallback"))
    return people_lists(read_scorer(night.run, REFIT).fold_in, fallback, own, rules)
