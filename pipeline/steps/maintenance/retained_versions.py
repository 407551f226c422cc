"""Which versions of the lake are pinned, and by whom: nights, experiments, what is live.

Promises: what a night at work has pinned is always among them; what cannot be read is an error, and
no reason to take anything away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline import columns as c
from pipeline.serving.retire import last_bases
from pipeline.steps.experiments.backtest.backtest import FOLDER as BACKTESTS
from pipeline.steps.experiments.calibration.calibrate import FOLDER as CALIBRATIONS
from pipeline.steps.experiments.calibration.calibrate import RESULT
from pipeline.steps.experiments.calibration.fits import PLAN
from pipeline.steps.experiments.tuning.report import FOLDER as STUDIES
from pipeline.steps.nightly.snapshot import TABLES
from pipeline.stores.pruning import worked_on
from pipeline.stores.runs import Runs
from pipeline.stores.studies.store import FILE, Studies
from pipeline.workspace.history import last_judged
from pipeline.workspace.workspace import Workspace

_DATA: Final = ("events", "items", "users")
_RETOLD: Final = (*_DATA, "batches")
"""Tables that something reads at their pinned version once a night has decided: quarantine is not
among them, and its rows leave after some days."""


def pinned(ws: Workspace, at: datetime) -> Mapping[str, frozenset[int]]:
    """Return the versions of each table that must stay readable."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for versions in (*_nights(ws, at), *_plans(ws, at), *_studies(ws), *_catalogues(ws)):
        for table, version in versions:
            if version is not None:
                found[table].add(version)
    return {table: frozenset(versions) for table, versions in found.items()}


_Versions = Iterable[tuple[str, int | None]]


def _nights(ws: Workspace, at: datetime) -> Iterator[_Versions]:
    since = at - timedelta(days=ws.config.gc.nights_days)
    lasting = _lasting(ws, at)
    for run in ws.runs.starting_with(""):
        if run.committed("snapshot") is None:
            continue
        tables: tuple[str, ...] = TABLES
        if run.committed("gate") is not None:
            stays = run.run_id in lasting or worked_on(run, "snapshot") >= since
            tables = _RETOLD if stays else ()
        yield _of(run.json("snapshot", "snapshot")["versions"], tables)
        if tables and run.committed("publish-pin") is not None:
            yield [("items", run.json("publish-pin", "pin")[c.CATALOGUE_VERSION])]


def _lasting(ws: Workspace, at: datetime) -> set[str]:
    """Return the runs that keep what they pinned, whatever their age."""
    found = set(last_bases(ws.lake.read("publications"))[c.RUN_ID])
    judged = last_judged(ws.ledger.entries(), at)
    return found if judged is None else found | {judged[1]}


def _catalogues(ws: Workspace) -> Iterator[_Versions]:
    """Yield the catalogues of the live lists, and of those before them."""
    for row in last_bases(ws.lake.read("publications")).iter_rows(named=True):
        yield [("items", row[c.CATALOGUE_VERSION])]


def _plans(ws: Workspace, at: datetime) -> Iterator[_Versions]:
    """Yield what calibrations and backtests have pinned that may still go on."""
    since = at - timedelta(days=ws.config.gc.nights_days)
    calibrations = Runs(ws.home / CALIBRATIONS).starting_with("")
    backtests = [Runs(folder).open(PLAN) for folder in ws.home.glob(f"{BACKTESTS}/*")]
    for run in (*calibrations, *backtests):
        if run.committed(PLAN) is None or run.committed(RESULT) is not None:
            continue
        if worked_on(run, PLAN) >= since:
            yield _of(run.json(PLAN, PLAN)["versions"], _DATA)


def _studies(ws: Workspace) -> Iterator[_Versions]:
    """Yield what studies have pinned: each may go on whenever somebody asks."""
    if (ws.home / STUDIES / FILE).exists():
        with Studies(ws.home / STUDIES) as studies:
            for facts in studies.facts():
                yield _of(facts["versions"], _DATA)


def _of(versions: Mapping[str, Any], tables: Iterable[str]) -> _Versions:
    return [(table, versions[table]) for table in tables]
