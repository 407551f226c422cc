"""Pins the versions that a run reads, or finds the run that pinned them before.

Guarantees: later tasks read only the pinned versions, and the checksums of their files are verified
here. A run that has decided is never changed by later data; an undecided run continues only while
the lake holds the rows that it pinned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Progress, compact_instant, format_instant, silent
from pipeline.data.split import SplitConfig, before, ingested_by, is_silent, last_event
from pipeline.errors import ConfigError, DataError, nearest
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe
from pipeline.serving.publish import live
from pipeline.steps.diagnostics.night_estimate import (
    estimate_night,
    refuse_night,
)
from pipeline.steps.feedback.decisions import recover_ledger
from pipeline.steps.nightly.known import known_at
from pipeline.stores.runs import Run
from pipeline.stores.vault import verify_vault
from pipeline.workspace import provenance
from pipeline.workspace.artifacts import Known, SnapshotFile, Trigger
from pipeline.workspace.config import Config, dump
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import Champion
from pipeline.workspace.night import concluded, open_night
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_ASIDE = ("registry", "gc", "locks", "attribution", "drift", "policy", "schedule")
"""Sections of the config that do not change the outcome of a run that was started."""
TABLES = ("events", "items", "users", "quarantine", "batches")
"""Tables whose versions a run pins."""


@dataclass(frozen=True)
class Started:
    """Start of a run.

    Attributes
    ----------
    run_id
        Empty if there is nothing to do.
    status
        ``new`` (also if an earlier attempt continues), ``already_done``, ``nothing_to_do``; for a
        requested run also ``superseded``, see `requested`.
    recipes
        Names of the recipes to train, baselines first.
    """

    run_id: str
    status: str
    sentence: str
    recipes: tuple[str, ...] = ()


def snapshot(
    ws: Workspace,
    as_of: AsOf,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    trigger: Trigger | None = None,
    airflow_run: str | None = None,
    progress: Progress = silent,
) -> Started:
    """Start a run, or find the run that an earlier call started.

    Parameters
    ----------
    ws
        Workspace.
    as_of
        Instant that bounds all data of the run.
    recipes
        Names of configured recipes to train; ``None`` means all and the newest tuned one. Baselines
        and the champion's recipe are always added.
    publish
        Whether a promotion goes live.
    trigger
        Decision of the policy that requested the run.
    airflow_run
        Address of the run in Airflow, to which MLflow links.
    progress
        Receives short texts.

    Returns
    -------
    Run id, status and recipes.

    Raises
    ------
    DataError
        `data.no_event`: the lake holds no event.
    ConfigError
        `recipe.unknown`: a named recipe is not configured.
    ResourceError
        `memory.night_too_large`: a task would need more memory than is free.
    """
    with task_log("snapshot", as_of, progress=progress) as log:
        ws.compare_stores()
        verify_vault(ws.vault_file)  # takes seconds, too long for a pass
        # A process killed between a publication and its ledger entry would hide the champion.
        recover_ledger(ws)
        # `gc` must not remove a version between its look-up and the commit of the snapshot.
        with ws.pinning():
            origin = {"trigger": trigger, "airflow_run": airflow_run}
            started = _started(ws, as_of, recipes, publish, origin, log.progress)
        log.run_id, log.rows, log.result = started.run_id, len(started.recipes), started.sentence
    return started


def _started(
    ws: Workspace,
    as_of: AsOf,
    names: Sequence[str] | None,
    publish: bool,
    origin: Mapping[str, Any],
    progress: Progress,
) -> Started:
    configured = _configured(ws.config, names)
    settings = _settings_sum(ws.config, configured, publish)
    newest = {table: ws.lake.version(table) for table in TABLES}
    ws.lake.acknowledge(*TABLES)  # no later commit may get the number of a pinned version
    known, versions = known_at(ws, as_of, ws.config.snapshot.known_by or "now", newest)
    if (earlier := _run_to_continue(ws, as_of, settings, known, versions)) is not None:
        return _started_before(ws, earlier)
    where = ingested_by(as_of) if known.by == "as_of" else None
    columns = [c.TIMESTAMP, c.USER_ID, c.ITEM_ID]
    events = ws.lake.read("events", columns=columns, where=where)
    if silence := _silence(events, as_of, ws.config.split):
        return Started("", "nothing_to_do", silence)
    # A flipped bit in a data file would read as another value, without any error.
    for table, version in versions.items():
        ws.lake.verify(table, version)
    history = LedgerHistory.of(ws.ledger)
    champion = history.champion(as_of)
    pinned = history.pinned(as_of, ws.config.split.min_users)
    competing = history.selected_recipes(configured, as_of)
    # Names select recipes for one run; only a full run evaluates candidates of earlier searches.
    if names is None:
        after = timedelta(days=ws.config.schedule.select_again_days)
        again = history.selected_again(configured, as_of, after)
        competing = history.with_candidates(competing, as_of, champion, again)
    recipes, champion_name = _with_champion(competing, champion)
    weights = history.last_weights(as_of, ws.config.features)
    _refuse(ws.config, events.filter(before(as_of)), recipes, progress, first=weights is None)
    live_row = live(ws.lake.read("publications"))
    file = SnapshotFile(
        as_of=as_of,
        versions=versions,
        known=known,
        settings=settings,
        config=ws.config,
        recipes=recipes,
        champion=champion,
        champion_name=champion_name,
        publish=publish,
        pinned=pinned,
        seed_sds=history.seed_sds(as_of, pinned.task, ws.config.recommend.length),
        weights=weights,
        commit=provenance.commit(),
        libraries=provenance.libraries(),
        replay=live_row is not None and as_of <= live_row[c.AS_OF],
        lake=ws.lake.id,
        **origin,
    )
    run_id = f"{compact_instant(as_of)}-{file.run_digest}"
    with ws.runs.open(run_id).draft("snapshot") as draft:
        draft.write(file)
    failpoint("snapshot_pinned")
    return Started(run_id, "new", f"run {run_id} is started", tuple(recipes))


def _refuse(
    config: Config,
    events: pl.DataFrame,
    recipes: Mapping[str, Recipe],
    progress: Progress,
    *,
    first: bool,
) -> None:
    """Raise if a task would need more memory than is free."""
    users, items = events[c.USER_ID].n_unique(), events[c.ITEM_ID].n_unique()
    counts = {"events": events.height, "users": users, "items": items}
    estimates = estimate_night(recipes, config.train, first=first, **counts)
    refuse_night(estimates, config.train, progress)


def _settings_sum(config: Config, recipes: Iterable[str], publish: bool) -> str:
    """Return the sha256 of the settings that the outcome depends on."""
    decisive = {name: part for name, part in dump(config).items() if name not in _ASIDE}
    settings = {"config": decisive, "chosen": sorted(recipes), "publish": publish}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _run_to_continue(
    ws: Workspace, as_of: AsOf, settings: str, known: Known, versions: Mapping[str, int | None]
) -> Run | None:
    """Return the run of an earlier start that this start continues; None to begin a new run."""
    # It has the same as-of and settings. If it has not decided yet (it was killed, or its data
    # failed the checks), the lake must also hold the same rows as when it began: once another file
    # was ingested, a new run begins.
    data = ("events", "items", "users")
    # Several runs may have this as-of, with other settings or data: the newest match continues.
    for run in reversed(ws.runs.starting_with(compact_instant(as_of))):
        if run.committed("snapshot") is None:
            continue
        pinned = run.read(SnapshotFile)
        if pinned.settings != settings or pinned.as_of != as_of:
            continue
        same = pinned.known.by == known.by
        same = same and all(ws.lake.same_rows(t, pinned.versions[t], versions[t]) for t in data)
        if run.committed("gate") is not None or same:
            return run
    return None


def _started_before(ws: Workspace, run: Run) -> Started:
    names = tuple(open_night(ws, run.run_id).recipes)
    if (sentence := concluded(run)) is not None:
        return Started(run.run_id, "already_done", f"run {run.run_id} is done: {sentence}")
    return Started(run.run_id, "new", f"run {run.run_id} continues", names)


def _configured(config: Config, names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipes of the run by name: baselines first, then in the order of the config."""
    known: dict[str, Recipe] = dict(config.recipes)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(
            "recipe.unknown",
            f"unknown recipe {unknown[0]!r}{nearest(unknown[0], known)}. Configured: "
            f"{', '.join(known)}",
        )
    baselines = {n: r for n, r in known.items() if r.capabilities.baseline is not None}
    # The union of dicts keeps the order of the first one: baselines come first.
    return baselines | {n: r for n, r in known.items() if names is None or n in names}


def _with_champion(
    recipes: dict[str, Recipe], champion: Champion | None
) -> tuple[dict[str, Recipe], str | None]:
    """Add the champion's recipe, which the config may not contain any more; return its name."""
    if champion is None:
        return recipes, None
    for name, recipe in recipes.items():
        if recipe.hash == champion.recipe.hash:
            return recipes, name
    name = champion.name
    if name in recipes:  # the config uses the name for other hyperparameters now
        name = f"{champion.name}@{champion.recipe.hash[:6]}"
    return {**recipes, name: champion.recipe}, name


def _silence(events: pl.DataFrame, as_of: AsOf, config: SplitConfig) -> str | None:
    """Return a sentence if the last event is too old; raises `DataError` without any event."""
    if events.is_empty():
        raise DataError(
            "data.no_event", "has no events; run `nightjar ingest` first", where="the lake"
        )
    last = last_event(events, as_of)
    if not is_silent(last, as_of, config):
        return None
    return (
        f"the last event before {format_instant(as_of)} is of {last:%Y-%m-%d}, more than "
        f"split.max_silence_days = {config.max_silence_days} days earlier; ingest newer events, or "
        "give an as-of that is not so late"
    )
