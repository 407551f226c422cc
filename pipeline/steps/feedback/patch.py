"""Patches: new lists for the users with events that their lists do not contain.

Guarantees: the id of a patch follows from its base, the files in the lake and the newest event that
was read, so a second attempt finds the files of one that was killed. Nothing here changes live
lists.
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
from pipeline.data.windows import weigh_users
from pipeline.models.families import load
from pipeline.serving.foldin import Seen, end_of, histories, new_since, of_users, patch_id
from pipeline.serving.publish import Patch, PublicationRow, trim, unavailable
from pipeline.serving.recommend import ListRules, user_lists
from pipeline.stores.batches import Batches
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.night import Night, last_file
from pipeline.workspace.release_artifacts import PatchFile
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
    """Make new lists for the users with events that the lists of a chain do not contain.

    Parameters
    ----------
    night
        Run that made the base of the chain.
    behind
        Newest row of the chain.
    at
        Exclusive end of the events, UTC.
    catalogue
        Version of the items whose availability the lists obey.
    progress
        Receives short texts.

    Returns
    -------
    The patch, or the reason why there is none.
    """
    name, lake = behind[c.RECIPE], night.ws.lake
    if not night.recipes[name].capabilities.fold_in:
        return (
            f"the live model ({name}, version {behind[c.MODEL_VERSION]}) cannot fold in: lists "
            "stay until the next nightly run"
        )
    seen, version = events_in(night, behind), lake.version("events")
    arrived = Batches(lake).arrived_since(seen.seq)
    fresh = lake.read(
        "events",
        version=version,
        columns=[c.USER_ID, c.TIMESTAMP, c.BATCH_ID],
        where=before(at) & new_since(arrived, seen.until),
    )
    if fresh.is_empty():
        return "no user has new events"
    users = fresh[c.USER_ID].unique().to_list()
    progress(f"fold in: {count_users(len(users))}")
    newest = last_event(fresh, at)
    # Folding in needs the full history of a user, not only the new events.
    events = lake.read(
        "events", version=version, columns=WEIGHED, where=before(at) & of_users(users)
    )
    own = _histories(night, events, newest)
    if own is None:
        return (
            f"all new events of {count_users(len(users))} are for items unknown to the live model: "
            "lists stay until the next nightly run"
        )
    # The newest file with a new event, not the newest file of the lake: equal data, equal id.
    files = fresh[c.BATCH_ID].unique().sort().to_list()
    seq = max((arrived[name] for name in files if name in arrived), default=seen.seq)
    # The newest row of a chain is a patch, or the base itself.
    base = behind[c.BASE] or behind[c.PUBLICATION_ID]
    patch = patch_id(base, seq, catalogue, newest)
    gone = unavailable(night.ws.read_pinned({"items": catalogue}, "items"))
    made = _lists(night, name, own, gone)
    return Patch(
        publication_id=patch,
        at=keep_seen(night, patch, Seen(seq, at), own.n_users, made).until,
        catalogue_version=catalogue,
        lists=trim(made, gone, night.config.recommend.length),
        users=own.n_users,
        outside=len(users) - own.n_users,
        files=tuple(files),
    )


def count_users(users: int) -> str:
    """Return a number of users in words."""
    return "1 user" if users == 1 else f"{users:,} users"


def events_in(night: Night, row: PublicationRow) -> Seen:
    """Return the events that the lists of a publication contain.

    Parameters
    ----------
    night
        Run that made the base.
    row
        Row of the base, or of a patch of it.

    Returns
    -------
    Last file and exclusive end.
    """
    if row[c.BASE] is None:
        return Seen(last_file(night.ws, night.snapshot), night.as_of)
    return _read(night, row[c.PUBLICATION_ID])


def _histories(night: Night, events: pl.DataFrame, newest: datetime) -> History | None:
    """Return the histories of the users; ``None`` if all their items are unknown to the model."""
    # Cleaning takes its bounds from the run's own window; without cleaning it is not read.
    pinned = night.events(*WEIGHED) if night.config.clean.events else events
    return histories(
        weigh_users(events, pinned, night.config.windows),
        History.from_arrays(night.run.arrays(REFIT, "history")),
        end_of(newest, night.as_of),
    )


def keep_seen(
    night: Night, patch: str, seen: Seen, users: int, made: pl.DataFrame | None = None
) -> Seen:
    """Store the events that a patch contains, or return those that an earlier attempt stored.

    Parameters
    ----------
    night
        Run that made the base.
    patch
        Id of the patch.
    seen
        Events that its lists contain.
    users
        Number of users with a list in it.
    made
        Its lists with their spare entries; ``None`` if it only removes entries.
    """
    # The first attempt counts: a later one has a later instant, but the lists of the same events.
    step = f"{STEP}/{patch}"
    if night.run.committed(step) is None:
        with night.run.draft(step) as draft:
            draft.write(PatchFile(seen))
            if made is not None:
                draft.frame("lists", made)
            draft.rows = users
    return _read(night, patch)


def _read(night: Night, patch: str) -> Seen:
    return night.run.read(PatchFile, f"{STEP}/{patch}").root


def _lists(night: Night, recipe: str, own: History, gone: list[str]) -> pl.DataFrame:
    rules = ListRules(
        unavailable=gone,
        repeat=read_split(night.run).task == "repeat",
        length=night.config.recommend.length + night.config.publish.spare_items,
        reasons=(recipe, FALLBACK),
    )
    fallback = load(night.recipes[FALLBACK].family, night.run.arrays(REFIT, "fallback"))
    return user_lists(read_scorer(night.run, REFIT).fold_in, fallback, own, rules)
