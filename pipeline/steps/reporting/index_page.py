"""Page of all nights, `reports/index.html` of the workspace.

Guarantees: a run without files keeps its row, from the ledger; the page has no ids of users; it is
drawn at the end of every night, also of one that published nothing, and after each fold-in, so that
its lists are the live ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from pipeline import columns as c
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.lift import Lift, chained
from pipeline.evaluation.prequential import ALL
from pipeline.report.headline import NightFacts, headline, night_headline
from pipeline.report.night import PastRun
from pipeline.report.nights import NightRow, UserList, nights_page
from pipeline.report.titles import LiftName
from pipeline.serving.publish import chain, live, newest, of_chain, of_these_users
from pipeline.steps.reporting.page_files import PAGE, draw_page, write_atomically
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import REFIT, SnapshotFile, ValidationFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import DecisionEntry
from pipeline.workspace.lifts import registered_figures
from pipeline.workspace.night import Night
from pipeline.workspace.release_artifacts import ColdCheckFile, VersionFiguresFile
from pipeline.workspace.run_files import training_costs
from pipeline.workspace.workspace import Workspace

INDEX: Final = "reports/index.html"
_NIGHTS: Final = 90
"""Number of nights on the page; a page of each earlier one remains in its folder."""
_FIRST: Final = 10
"""Entries of a list that are shown."""


def draw_reports(night: Night) -> None:
    """Draw the page of a run, and that of all nights."""
    draw_page(night.run)
    draw_index(night.ws)


def draw_index(ws: Workspace) -> Path:
    """Draw the page of all nights, and return its path."""
    history = LedgerHistory.of(ws.ledger)
    entries = history.decisions[-_NIGHTS:]
    rows = list(_refused(ws, {entry.run_id for entry in history.decisions}))
    rows += [_decided(ws, history, entry, newest=entry is entries[-1]) for entry in entries]
    # A stable sort: a refused night comes before the result of the one that repeats it.
    rows.sort(key=lambda row: row.as_of)
    metric = metric_name(NDCG, ws.config.recommend.length)
    earlier = len(history.decisions) - len(entries) + max(0, len(rows) - _NIGHTS)
    page = nights_page(
        rows[-_NIGHTS:],
        _lists(ws),
        metric,
        _size(ws.home),
        ws.config.gate.refresh_margin,
        earlier=earlier,
    )
    path = ws.home / INDEX
    write_atomically(path, page.encode())
    return path


def _decided(
    ws: Workspace, history: LedgerHistory, entry: DecisionEntry, *, newest: bool
) -> NightRow:
    run = ws.runs.open(entry.run_id)
    figures = registered_figures(run) or VersionFiguresFile()
    there = run.committed("gate") is not None  # else its files are gone, and the ledger remains
    row = NightRow(
        as_of=entry.as_of,
        headline=headline(_facts(run, history, entry)),
        lifts=_lifts(entry, figures),
        over_first=_over_first(history, entry, figures),
        live=next((row for row in entry.live if row.slice == ALL), None),
        drift=None if entry.drift is None else entry.drift.status.value.replace("_", " "),
    )
    if not there:
        return row
    return replace(
        row,
        # The lifts over earlier scorers are computed from frames: only for the newest run.
        headline=night_headline(run) if newest else row.headline,
        seconds=sum(cost.fit_seconds for cost in training_costs(run).values()),
        size=_size(run.folder),
        address=f"../runs/{run.run_id}/{PAGE}",
    )


def _facts(run: Run, history: LedgerHistory, entry: DecisionEntry) -> NightFacts:
    changed, before = history.decision_of(entry.run_id), history.champion(entry.as_of)
    cold = run.find(ColdCheckFile) if run.committed("cold_check") is not None else None
    return NightFacts(
        run_id=entry.run_id,
        as_of=entry.as_of,
        data_since=None if before is None else before.as_of,
        publishes=True,
        decision=entry.decision if changed is None else changed.decision,
        cold_fault=None if cold is None else cold.fault,
        published=history.publication_of(entry.run_id) is not None,
    )


def _lifts(entry: DecisionEntry, figures: VersionFiguresFile) -> dict[LiftName, PastRun]:
    lifts: dict[LiftName, Lift | None] = {
        "over_baseline": figures.over_baseline,
        "over_before": figures.over_before,
    }
    return {name: _past(entry, lift.interval) for name, lift in lifts.items() if lift is not None}


def _over_first(
    history: LedgerHistory, entry: DecisionEntry, figures: VersionFiguresFile
) -> PastRun | None:
    """Return the lift of the run's version over version 1: 0 for version 1 itself."""
    published = history.publication_of(entry.run_id)
    if published is None:
        return None
    if published.model_version == "1":
        return _past(entry, (0.0, None, None))
    product = chained(figures.links) if figures.links else None
    return None if product is None else _past(entry, product)


def _past(entry: DecisionEntry, lift: tuple[float, float | None, float | None]) -> PastRun:
    decision = entry.decision
    facts = (entry.as_of, decision.kind, str(decision.recipe), entry.holdout_days)
    return PastRun(*facts, None, None, None, *lift)


def _refused(ws: Workspace, decided: Iterable[str]) -> Iterator[NightRow]:
    """Yield the runs that a failed check of the data stopped."""
    for run in ws.runs.starting_with(""):
        if run.run_id in decided or run.committed("validate") is None:
            continue
        if run.read(ValidationFile).failed:
            as_of = run.read(SnapshotFile).as_of
            address = f"../runs/{run.run_id}/{PAGE}"
            there = (run.folder / PAGE).is_file()
            size = _size(run.folder)
            yield NightRow(
                as_of, night_headline(run), size=size, address=address if there else None
            )


def _size(folder: Path) -> int:
    """Return the bytes of all files; a file that is removed meanwhile does not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            about = path.lstat()
        except FileNotFoundError:
            continue
        total += 0 if path.is_dir() else about.st_size
    return total


def _lists(ws: Workspace) -> tuple[UserList, ...]:
    """Return live lists of three users: with many, a median number of, and few events."""
    base = live(ws.lake.read("publications"))
    if base is None:
        return ()
    run = ws.runs.open(base[c.RUN_ID])
    if run.committed(REFIT) is None:  # its files are gone
        return ()
    arrays = run.arrays(REFIT, "history")
    counts = dict(zip(arrays["user_ids"].tolist(), np.diff(arrays["indptr"]), strict=True))
    # By id among equals, so that the sample is reproducible.
    ranked = sorted(counts, key=lambda user: (-counts[user], user))
    places = {"most events": 0, "median number of events": len(ranked) // 2, "fewest events": -1}
    # Keyed by user: with few users two places may be the same one.
    users = {ranked[at]: label for label, at in places.items()} if ranked else {}
    rows = chain(ws.lake.read("publications"), base[c.PUBLICATION_ID])
    lists = ws.lake.read("recommendations", partitions=of_chain(rows), where=of_these_users(users))
    lists = newest(lists, rows).sort(c.POSITION)
    items = ws.lake.read("items", columns=[c.ITEM_ID, c.TITLE]).drop_nulls()
    titles = dict(items.iter_rows())
    # A user who was erased has events in the window, but no list any more.
    there = {user: entries for user in users if (entries := _entries(lists, user))}
    return tuple(
        UserList(
            f"User {letter}",
            f"{users[user]} in the training: {counts[user]:,}; {_origin(rows, lists, user)}",
            _named(entries, titles),
        )
        for letter, (user, entries) in zip("ABC", there.items(), strict=False)
    )


def _origin(rows: pl.DataFrame, lists: pl.DataFrame, user: str) -> str:
    """Return the instant from which a user's list is live, and whether events were folded in."""
    own = lists.filter(lists[c.USER_ID] == user)
    row = rows.join(own, on=c.PUBLICATION_ID, how="semi").row(0, named=True)
    folded = "" if row[c.BASE] is None else ", new events folded in"
    return f"live from {row[c.LIVE_FROM]:%Y-%m-%d %H:%M}{folded}"


def _named(items: Sequence[str], titles: Mapping[str, str]) -> tuple[str, ...]:
    """Return the titles of items; equal ones of several items are followed by the item's id."""
    counts = Counter(titles.get(item) for item in items)
    return tuple(
        item if title is None else f"{title} ({item})" if counts[title] > 1 else title
        for item, title in ((item, titles.get(item)) for item in items)
    )


def _entries(lists: pl.DataFrame, user: str) -> list[str]:
    return lists.filter(lists[c.USER_ID] == user)[c.ITEM_ID].to_list()[:_FIRST]
