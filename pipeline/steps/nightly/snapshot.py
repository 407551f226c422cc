"""The night's first step: pin what it sees, or find the night that pinned it before.

Promises: everything after `snapshot` reads only what was pinned here, and each file of that was
compared with its sum; a night that has decided stays what it is, however much has been ingested
since; one that has not goes on only while the lake is the one it pinned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline import columns as c
from pipeline.base import (
    Progress,
    compact_instant,
    format_instant,
    silent,
    to_utc,
)
from pipeline.data.split import is_silent, last_event
from pipeline.errors import ConfigError, DataError
from pipeline.failpoints import failpoint
from pipeline.models.contract import Recipe
from pipeline.serving.publish import live
from pipeline.stores.runs import Run
from pipeline.workspace import provenance
from pipeline.workspace.config import Config, dump
from pipeline.workspace.history import (
    Champion,
    accepted_before,
    last_block_days,
    last_policy,
    last_weights,
    recalled,
    seed_spreads,
    with_candidate,
)
from pipeline.workspace.night import concluded, open_night
from pipeline.workspace.publications import reconcile
from pipeline.workspace.workspace import Workspace

_ASIDE = ("registry", "gc", "answers", "drift", "policy")
TABLES = ("events", "items", "users", "quarantine", "batches")
"""Tables whose version a night pins."""


@dataclass(frozen=True)
class Started:
    """How a night begins.

    Attributes
    ----------
    run_id
        Empty when there is nothing to do.
    status
        ``new`` (also when an earlier attempt goes on), ``already_done``, ``nothing_to_do``; of a
        night that was asked for also ``superseded``, see `wake`.
    recipes
        Names of the recipes to train, baselines first.
    """

    run_id: str
    status: str
    sentence: str
    recipes: tuple[str, ...] = ()


def snapshot(
    ws: Workspace,
    as_of: datetime,
    *,
    recipes: Sequence[str] | None = None,
    publish: bool = True,
    asked: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Started:
    """Pin what the night sees, or find the night that pinned it before.

    First it makes good what a killed process left undone between a swap and its ledger line.

    Parameters
    ----------
    as_of
        The instant that decides everything, UTC.
    recipes
        Names of configured recipes to train; ``None`` means all, and what tuning found. Baselines
        always ride along.
    publish
        Whether a promotion goes before people.
    asked
        Why it was asked for: the ``policy``'s ruling and the ``drift`` it saw, as JSON.

    Raises
    ------
    DataError
        When no event lies before `as_of`.
    ConfigError
        When a named recipe is not configured.
    """
    as_of = to_utc(as_of)
    reconcile(ws)
    with ws.pinning():
        return _snapshot(ws, as_of, recipes, publish, asked, progress)


def _snapshot(
    ws: Workspace,
    as_of: datetime,
    recipes: Sequence[str] | None,
    publish: bool,
    asked: Mapping[str, Any] | None,
    progress: Progress,
) -> Started:
    chosen = _chosen(ws.config, recipes)
    config = dump(ws.config)
    digest = _settings_sum(config, chosen, publish)
    versions = {table: ws.lake.version(table) for table in TABLES}
    if (earlier := _earlier(ws, as_of, digest, versions)) is not None:
        return _started_before(ws, earlier)
    silence = _silence(ws, as_of)
    if silence:
        return Started("", "nothing_to_do", silence)
    progress(f"snapshot of {format_instant(as_of)}")
    for table, version in versions.items():
        ws.lake.verify(table, version)
    entries = ws.ledger.entries()
    accepted = accepted_before(entries, as_of)
    champion = accepted[-1] if accepted else None
    competing = recalled(chosen, entries, as_of)
    if recipes is None:
        competing = with_candidate(competing, entries, as_of, champion)
    trained, champion_name = _with_champion(competing, champion)
    policy = last_policy(entries, as_of)
    facts: dict[str, Any] = {
        "as_of": format_instant(as_of),
        "versions": versions,
        "settings": digest,
        "config": config,
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in trained.items()},
        "champion": champion.to_dict() if champion else None,
        "champion_name": champion_name,
        "publish": publish,
        "block_days": last_block_days(entries, as_of),
        "policy": policy,
        "taus": seed_spreads(entries, as_of, policy, ws.config.recommend.length),
        "weights": last_weights(entries, as_of, config["features"]),
    }
    run_id = f"{compact_instant(as_of)}-{_short_sum(facts)}"
    now_live = live(ws.lake.read("publications"))
    # Not part of the run's identity: why it was asked for, what the code and its libraries were,
    # and whether it may move anything.
    facts["asked"] = asked
    facts["commit"] = provenance.commit()
    facts["libraries"] = provenance.libraries()
    facts["replay"] = now_live is not None and as_of <= now_live[c.AS_OF]
    run = ws.runs.open(run_id)
    with run.draft("snapshot") as draft:
        draft.json("snapshot", facts)
    failpoint("snapshot_pinned")
    return Started(run_id, "new", f"run {run_id} begins", tuple(trained))


def _settings_sum(config: dict[str, Any], chosen: dict[str, Recipe], publish: bool) -> str:
    """Sum what a night's outcome depends on: not where it is shown, how long it is kept, or why."""
    decisive = {name: part for name, part in config.items() if name not in _ASIDE}
    settings = {"config": decisive, "chosen": sorted(chosen), "publish": publish}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _earlier(
    ws: Workspace, as_of: datetime, digest: str, versions: dict[str, int | None]
) -> Run | None:
    """Find the run that this start goes on with.

    A night that has decided stays what it is. One that has not, because it was killed or its data
    did not pass, goes on only while the lake holds the rows that it pinned: with a missing file
    delivered it is another night.
    """
    data = ("events", "items", "users")
    for run in reversed(ws.runs.starting_with(compact_instant(as_of))):
        if run.committed("snapshot") is None:
            continue
        facts = run.json("snapshot", "snapshot")
        if facts["settings"] != digest or facts["as_of"] != format_instant(as_of):
            continue
        same = all(ws.lake.same_rows(t, facts["versions"][t], versions[t]) for t in data)
        if run.committed("gate") is not None or same:
            return run
    return None


def _started_before(ws: Workspace, run: Run) -> Started:
    night = open_night(ws, run.run_id)
    if (how := concluded(run)) is not None:
        return Started(run.run_id, "already_done", f"run {run.run_id} is done: {how}")
    names = tuple(night.recipes)
    return Started(run.run_id, "new", f"run {run.run_id} goes on where it stopped", names)


def _chosen(config: Config, names: Sequence[str] | None) -> dict[str, Recipe]:
    """Return the recipes of the night by name: baselines first, then in the order of the config."""
    known: dict[str, Recipe] = dict(config.recipes)
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(f"no recipe is called {unknown[0]!r}; configured are {', '.join(known)}")
    baselines = {n: r for n, r in known.items() if r.capabilities.baseline is not None}
    learned = {n: r for n, r in known.items() if n not in baselines}
    if names is not None:
        learned = {n: r for n, r in learned.items() if n in names}
    return {**baselines, **learned}


def _with_champion(
    chosen: dict[str, Recipe], champion: Champion | None
) -> tuple[dict[str, Recipe], str | None]:
    """Add the champion's recipe, which may have left the config, and say what it is called."""
    if champion is None:
        return chosen, None
    for name, recipe in chosen.items():
        if recipe.hash == champion.recipe.hash:
            return chosen, name
    name = champion.name
    if name in chosen:  # the name now means other hyper-parameters
        name = f"{champion.name}@{champion.recipe.hash[:6]}"
    return {**chosen, name: champion.recipe}, name


def _silence(ws: Workspace, as_of: datetime) -> str | None:
    """Return a sentence when nothing has happened for too long; raise when nothing ever did."""
    events = ws.lake.read("events", columns=[c.TIMESTAMP])
    if events.is_empty():
        raise DataError("it holds no event; run `nightjar ingest` first", where="the lake")
    last = last_event(events, as_of)
    if not is_silent(last, as_of, ws.config.split):
        return None
    return (
        f"the last event before {format_instant(as_of)} is of {last:%Y-%m-%d}, "
        f"more than {ws.config.split.max_silence_days} days earlier"
    )


def _short_sum(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
