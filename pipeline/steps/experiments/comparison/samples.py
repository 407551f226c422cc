"""A few people's lists under two versions, as titles, for a person to judge by eye.

Promises: people have letters, and nobody's id is told; who is shown depends on how much the two
lists differ, so that a page shows the range and not only what looks well; the lists are those that
people saw, and of a version that was never shown, those of its refit.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.data.matrix import History
from pipeline.report.pair import Entry, Sample
from pipeline.serving.churn import churn
from pipeline.serving.publish import first_entries, unavailable
from pipeline.serving.recommend import model_lists
from pipeline.workspace.run_files import read_scorer, read_split
from pipeline.workspace.versions import Version
from pipeline.workspace.workspace import Workspace

FIRST: Final = 10
"""Entries of a list that are shown, and that lists are likened by."""
_WHERE: Final = (("least alike", 0.0), ("middling", 0.5), ("most alike", 1.0))


def samples(ws: Workspace, left: Version, right: Version) -> tuple[str, tuple[Sample, ...]]:
    """Return what there is to say of all lists, and a few people's lists side by side."""
    first, second = _lists(ws, left), _lists(ws, right)
    people = sorted(set(first[c.USER_ID]) & set(second[c.USER_ID]))
    if not people:
        return "Nobody has a list of both.", ()
    share = churn(first, second, people, k=FIRST).overlap or 0.0
    about = (
        f"{len(people):,} people have a list of both; the first {FIRST} entries share "
        f"{100 * share:.0f} % on average. ● stands in both lists."
    )
    names = {**_titles(left), **_titles(right)}
    counts = _events(right)
    shown = []
    for letter, (word, user) in zip("ABC", _spread(first, second, people), strict=False):
        before, after = _first(first, user), _first(second, user)
        person = f"{word} of all; {counts.get(user, 0):,} events until {right.night.as_of:%Y-%m-%d}"
        shown.append(
            Sample(
                f"Person {letter}",
                person,
                _named(before, after, names),
                _named(after, before, names),
            )
        )
    return about, tuple(shown)


def _lists(ws: Workspace, version: Version) -> pl.DataFrame:
    """Return `user_id`, `position`, `item_id` of the lists that a model made, the first entries."""
    if version.publication is not None:
        where = first_entries(version.publication.publication_id, FIRST)
        rows = ws.lake.read("recommendations", where=where)
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


def _spread(left: pl.DataFrame, right: pl.DataFrame, people: list[str]) -> list[tuple[str, str]]:
    """Pick people from the least to the most alike lists: (word, user), nobody twice."""
    both = left.join(right.select(c.USER_ID, c.ITEM_ID), on=[c.USER_ID, c.ITEM_ID], how="inner")
    common = dict(both.group_by(c.USER_ID).len().iter_rows())
    ranked = sorted(people, key=lambda user: (common.get(user, 0), user))
    picked = {ranked[round(where * (len(ranked) - 1))]: word for word, where in _WHERE}
    return [(word, user) for user, word in picked.items()]


def _first(lists: pl.DataFrame, user: str) -> list[str]:
    return lists.filter(lists[c.USER_ID] == user).sort(c.POSITION)[c.ITEM_ID].to_list()


def _named(items: list[str], others: list[str], names: dict[str, str]) -> tuple[Entry, ...]:
    return tuple(Entry(names.get(item, item), item in others) for item in items)


def _titles(version: Version) -> dict[str, str]:
    items = version.night.run.frame("features", "items").select(c.ITEM_ID, c.TITLE).drop_nulls()
    return dict(items.iter_rows())


def _events(version: Version) -> dict[str, int]:
    """Count the events of each person in the full window."""
    history = version.night.run.arrays("refit", "history")
    counts = np.diff(history["indptr"]).tolist()
    return dict(zip(history["user_ids"].tolist(), counts, strict=True))
