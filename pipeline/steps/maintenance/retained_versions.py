"""Versions of the lake that runs, experiments and live lists pin.

Guarantees: the pins of a running run are always included; an unreadable file raises, so that
nothing is removed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from pipeline import columns as c
from pipeline.serving.retire import last_bases
from pipeline.steps.experiments.backtest.backtest import FOLDER as BACKTESTS
from pipeline.steps.experiments.calibration.calibrate import FOLDER as CALIBRATIONS
from pipeline.steps.experiments.tuning.report import FOLDER as STUDIES
from pipeline.steps.nightly.snapshot import TABLES
from pipeline.stores.pruning import last_activity
from pipeline.stores.runs import Runs
from pipeline.stores.studies.store import FILE, Studies
from pipeline.workspace.artifacts import SnapshotFile, Versions
from pipeline.workspace.experiment_artifacts import (
    BacktestPlanFile,
    CalibrationFile,
    CalibrationPlanFile,
)
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.release_artifacts import PinFile
from pipeline.workspace.workspace import Workspace

_DATA: Final = ("events", "items", "users")
_REREAD: Final = (*_DATA, "batches")
"""Tables whose pinned versions are read even after the decision of a run. Quarantine is not among
them, because its rows are deleted after some days."""


def pinned(ws: Workspace, at: datetime) -> Mapping[str, frozenset[int]]:
    """Return the versions that must stay readable.

    Parameters
    ----------
    ws
        The workspace; the caller holds the lock `PINS`, so no run pins a version meanwhile.
    at
        Instant from which ages are measured, in UTC.

    Returns
    -------
    Mapping
        Versions by table; tables without pins are missing.
    """
    pins: defaultdict[str, set[int]] = defaultdict(set)
    for versions, tables in (*_runs(ws, at), *_plans(ws, at), *_studies(ws), *_catalogues(ws)):
        for table in tables:
            if (version := versions[table]) is not None:
                pins[table].add(version)
    return {table: frozenset(versions) for table, versions in pins.items()}


_Pins = Iterator[tuple[Versions, Iterable[str]]]


def _runs(ws: Workspace, at: datetime) -> _Pins:
    since = at - timedelta(days=ws.config.gc.nights_days)
    # The runs of the last two bases, and the run that decided last, keep their pins at any age.
    kept = set(last_bases(ws.lake.read("publications"))[c.RUN_ID])
    if (last := LedgerHistory.of(ws.ledger).last_decision(at)) is not None:
        kept.add(last.run_id)
    for run in ws.runs.starting_with(""):
        snapshot = run.find(SnapshotFile)
        if snapshot is None:
            continue
        # Before its decision a run may still read any table.
        tables: tuple[str, ...] = TABLES
        if run.committed("gate") is not None:
            stays = run.run_id in kept or last_activity(run, "snapshot") >= since
            tables = _REREAD if stays else ()
        yield snapshot.versions, tables
        if tables and (pin := run.find(PinFile)) is not None:
            yield {"items": pin.catalogue_version}, ["items"]


def _catalogues(ws: Workspace) -> _Pins:
    """Yield the catalogues of the live lists and of the previous ones."""
    for version in last_bases(ws.lake.read("publications"))[c.CATALOGUE_VERSION]:
        yield {"items": version}, ["items"]


def _plans(ws: Workspace, at: datetime) -> _Pins:
    """Yield the pins of calibrations and backtests that may continue."""
    since = at - timedelta(days=ws.config.gc.nights_days)
    # Both read their plan again when they resume. Only a finished calibration reads no table again.
    for run in Runs(ws.home / CALIBRATIONS).starting_with(""):
        plan = run.find(CalibrationPlanFile)
        if plan and not run.has(CalibrationFile) and last_activity(run, plan.STEP) >= since:
            yield plan.versions, _DATA
    for folder in ws.home.glob(f"{BACKTESTS}/*"):
        run = Runs(folder).open(BacktestPlanFile.STEP)
        backtest = run.find(BacktestPlanFile)
        if backtest and last_activity(run, backtest.STEP) >= since:
            yield backtest.versions, _DATA
            for catalogue in backtest.catalogues:
                yield catalogue.versions, catalogue.versions


def _studies(ws: Workspace) -> _Pins:
    """Yield the pins of studies: each may be continued at any time."""
    if (ws.home / STUDIES / FILE).exists():
        with Studies(ws.home / STUDIES) as studies:
            for facts in studies.facts():
                yield facts["versions"], _DATA
