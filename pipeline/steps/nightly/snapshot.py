"""Pins what a run reads, or finds the run that pinned it before.

Guarantees: every later task reads only what was pinned here, and each file of that was compared
with its checksum; a run that has decided stays what it is, whatever is ingested since; one that
has not goes on only while the lake is the one it pinned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import columns as c
from pipeline.base import AsOf, Progress, compact_instant, format_instant, silent
from pipeline.data.split import is_silent, last_event
from pipeline.errors import ConfigError, DataError
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe
from pipeline.serving.publish import live
from pipeline.stores.runs import Run
from pipeline.workspace import provenance
from pipeline.workspace.artifacts import SnapshotFile, Trigger
from pipeline.workspace.config import Config, dump
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import Champion
from pipeline.workspace.night import concluded, open_night
from pipeline.workspace.publications import reconcile
from pipeline.workspace.task_log import task_log
from pipeline.workspace.workspace import Workspace

_ASIDE = ("registry", "gc", "attribution", "drift", "policy")
TABLES = ("events", "items", "users", "quarantine", "batches")
"""Tables whose version a run pins."""


@dataclass(frozen=True)
class Started:
    """How a run begins.

    Attributes
    ----------
    run_id
        Empty when there is nothing to do.
    status
        ``new`` (also when an earlier attempt goes on), ``already_done``, ``nothing_to_do``; of a
        run that was requested also ``superseded``, see `requested`.
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
    progress: Progress = silent,
) -> Started:
    """Pin what the run reads, or find the run that pinned it before.

    First it completes what a killed process left undone between a swap and its ledger entry.

    Parameters
    ----------
    as_of
        The instant that bounds all data.
    recipes
        Names of configured recipes to train; ``None`` means all, and what tuning found. Baselines
        are always added.
    publish
        Whether a promotion goes live.
    trigger
        Why the run was requested.

    Raises
    ------
    DataError
        When no event lies before `as_of`.
    ConfigError
        When a named recipe is not configured.
    """
    with task_log("snapshot", as_of, progress=progress) as log:
        reconcile(ws)
        with ws.pinning():
            started = _started(ws, as_of, recipes, publish, trigger)
        log.run_id, log.rows, log.result = started.run_id, len(started.recipes), started.sentence
    return started


def _started(
    ws: Workspace,
    as_of: AsOf,
    names: Sequence[str] | None,
    publish: bool,
    trigger: Trigger | None,
) -> Started:
    configured = _configured(ws.config, names)
    settings = _settings_sum(ws.config, configured, publish)
    versions = {table: ws.lake.version(table) for table in TABLES}
    if (earlier := _earlier(ws, as_of, settings, versions)) is not None:
        return _started_before(ws, earlier)
    silence = _silence(ws, as_of)
    if silence:
        return Started("", "nothing_to_do", silence)
    for table, version in versions.items():
        ws.lake.verify(table, version)
    history = LedgerHistory.of(ws.ledger)
    champion, task = history.champion(as_of), history.last_task(as_of)
    competing = history.selected_recipes(configured, as_of)
    if names is None:
        competing = history.with_candidate(competing, as_of, champion)
    recipes, champion_name = _with_champion(competing, champion)
    live_row = live(ws.lake.read("publications"))
    file = SnapshotFile(
        as_of=as_of,
        versions=versions,
        settings=settings,
        config=ws.config,
        recipes=recipes,
        champion=champion,
        champion_name=champion_name,
        publish=publish,
        holdout_days=history.last_holdout_days(as_of),
        task=task,
        seed_sds=history.seed_sds(as_of, task, ws.config.recommend.length),
        weights=history.last_weights(as_of, ws.config.features),
        trigger=trigger,
        commit=provenance.commit(),
        libraries=provenance.libraries(),
        replay=live_row is not None and as_of <= live_row[c.AS_OF],
    )
    run_id = f"{compact_instant(as_of)}-{file.run_digest}"
    with ws.runs.open(run_id).draft("snapshot") as draft:
        draft.write(file)
    failpoint("snapshot_pinned")
    return Started(run_id, "new", f"run {run_id} begins", tuple(recipes))


def _settings_sum(config: Config, recipes: Iterable[str], publish: bool) -> str:
    """Return the sha256 of what the outcome depends on: not of display, retention or trigger."""
    decisive = {name: part for name, part in dump(config).items() if name not in _ASIDE}
    settings = {"config": decisive, "chosen": sorted(recipes), "publish": publish}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _earlier(
    ws: Workspace, as_of: AsOf, settings: str, versions: Mapping[str, int | None]
) -> Run | None:
    """Return the run that this start goes on with.

    A run that has decided stays what it is. One that has not, because it was killed or its data
    did not pass, goes on only while the lake holds the rows that it pinned: with a missing file
    delivered it is another run.
    """
    data = ("events", "items", "users")
    for run in reversed(ws.runs.starting_with(compact_instant(as_of))):
        if run.committed("snapshot") is None:
            continue
        pinned = run.read(SnapshotFile)
        if pinned.settings != settings or pinned.as_of != as_of:
            continue
        same = all(ws.lake.same_rows(t, pinned.versions[t], versions[t]) for t in data)
        if run.committed("gate") is not None or same:
            return run
    return None


def _started_before(ws: Workspace, run: Run) -> Started:
    names = tuple(open_night(ws, run.run_id).recipes)
    if (sentence := concluded(run)) is not None:
        return Started(run.run_id, "already_done", f"run {run.run_id} is done: {sentence}")
    return Started(run.run_id, "new", f"run {run.run_id} goes on where it stopped", names)


def _configured(config: Config, names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipes of the run by name: baselines first, then in the order of the config."""
    known: dict[str, Recipe] = dict(config.recipes)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(
            "recipe.unknown",
            f"no recipe is called {unknown[0]!r}; configured are {', '.join(known)}",
        )
    baselines = {n: r for n, r in known.items() if r.capabilities.baseline is not None}
    # A union keeps the place of its first operand's keys: baselines come first.
    return baselines | {n: r for n, r in known.items() if names is None or n in names}


def _with_champion(
    recipes: dict[str, Recipe], champion: Champion | None
) -> tuple[dict[str, Recipe], str | None]:
    """Add the champion's recipe, which may have left the config, and return its name."""
    if champion is None:
        return recipes, None
    for name, recipe in recipes.items():
        if recipe.hash == champion.recipe.hash:
            return recipes, name
    name = champion.name
    if name in recipes:  # the name now means other hyper-parameters
        name = f"{champion.name}@{champion.recipe.hash[:6]}"
    return {**recipes, name: champion.recipe}, name


def _silence(ws: Workspace, as_of: AsOf) -> str | None:
    """Return a sentence when nothing has happened for too long; raise when nothing ever did."""
    events = ws.lake.read("events", columns=[c.TIMESTAMP])
    if events.is_empty():
        raise DataError(
            "data.no_event", "it holds no event; run `nightjar ingest` first", where="the lake"
        )
    last = last_event(events, as_of)
    if not is_silent(last, as_of, ws.config.split):
        return None
    return (
        f"the last event before {format_instant(as_of)} is of {last:%Y-%m-%d}, "
        f"more than {ws.config.split.max_silence_days} days earlier"
    )
