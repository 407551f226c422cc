"""Sample lists: the lists of a few users under two versions, by title, for a visual comparison.

Guarantees: users have letters, never ids; the sample covers the range from the least to the most
alike lists.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline import number_text
from pipeline.data.matrix import History
from pipeline.report.pair import Entry, Sample
from pipeline.serving.churn import churn
from pipeline.serving.publish import first_entries, of_publication, unavailable
from pipeline.serving.recommend import model_lists
from pipeline.workspace.run_files import read_scorer, read_split
from pipeline.workspace.versions import Version
from pipeline.workspace.workspace import Workspace

FIRST: Final = 10
"""Entries of a list that are shown and compared."""
_WHERE: Final = (("least alike", 0.0), ("average", 0.5), ("most alike", 1.0))


def samples(ws: Workspace, left: Version, right: Version) -> tuple[str, tuple[Sample, ...]]:
    """Return sample lists of users who have a list of both versions.

    Parameters
    ----------
    left, right
        Lists are those that were live; of a version that never was, those of its refit.

    Returns
    -------
    One sentence about all lists, and at most three samples from the least to the most alike.
    """
    first, second = _lists(ws, left), _lists(ws, right)
    users = sorted(set(first[c.USER_ID]) & set(second[c.USER_ID]))
    if not users:
        return "No user has a list of both versions.", ()
    share = churn(first, second, users, k=FIRST).overlap or 0.0
    about = (
        f"{len(users):,} users have a list of both versions; the first {FIRST} entries share "
        f"{number_text.share(share)} on average. ● marks an item in both lists."
    )
    history = right.night.run.arrays("refit", "history")
    counts = dict(zip(history["user_ids"].tolist(), np.diff(history["indptr"]), strict=True))
    titles = {**_titles(left), **_titles(right)}
    shown = []
    for letter, (label, user) in zip("ABC", _spread(first, second, users), strict=False):
        before, after = (
            lists.filter(lists[c.USER_ID] == user).sort(c.POSITION)[c.ITEM_ID].to_list()
            for lists in (first, second)
        )
        events = f"{counts.get(user, 0):,} events until {right.night.as_of:%Y-%m-%d}"
        sides = (_entries(before, after, titles), _entries(after, before, titles))
        shown.append(Sample(f"User {letter}", f"{label} of all; {events}", *sides))
    return about, tuple(shown)


def _lists(ws: Workspace, version: Version) -> pl.DataFrame:
    """Return `user_id`, `position`, `item_id` of a version's lists, the first entries."""
    if version.publication is not None:
        name = version.publication.publication_id
        rows = ws.lake.read(
            "recommendations", partitions=of_publication(name), where=first_entries(name, FIRST)
        )
        # Entries of other slots do not come from the version's model.
        rows = rows.filter(rows[c.SLOT] == c.Slot.MODEL.value)
        return rows.select(c.USER_ID, c.POSITION, c.ITEM_ID)
    run = version.night.run
    return model_lists(
        read_scorer(run, "refit").score,
        History.from_arrays(run.arrays("refit", "history")),
        unavailable(run.frame("features", "items")),
        repeat=read_split(run).task == "repeat",
        length=FIRST,
    )


def _spread(left: pl.DataFrame, right: pl.DataFrame, users: list[str]) -> list[tuple[str, str]]:
    """Pick (label, user) from the least to the most alike lists; each user once."""
    both = left.join(right.select(c.USER_ID, c.ITEM_ID), on=[c.USER_ID, c.ITEM_ID], how="inner")
    common = dict(both.group_by(c.USER_ID).len().iter_rows())
    # By id among equals, so that the sample is reproducible.
    ranked = sorted(users, key=lambda user: (common.get(user, 0), user))
    # Keyed by user: with few users two places may be the same one.
    picked = {ranked[round(where * (len(ranked) - 1))]: label for label, where in _WHERE}
    return [(label, user) for user, label in picked.items()]


def _entries(items: list[str], others: list[str], titles: dict[str, str]) -> tuple[Entry, ...]:
    return tuple(Entry(titles.get(item, item), item in others) for item in items)


def _titles(version: Version) -> dict[str, str]:
    items = version.night.run.frame("features", "items").select(c.ITEM_ID, c.TITLE).drop_nulls()
    return dict(items.iter_rows())
