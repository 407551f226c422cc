"""The night's end: mirror it into MLflow, build everybody's lists, put them before people.

The swap is one commit of `publications`; the ledger's line and MLflow's aliases follow from it and
are made good by whoever comes next, if a process dies in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline import columns as c
from pipeline.base import Progress, format_instant, silent
from pipeline.data.matrix import History
from pipeline.errors import LakeError
from pipeline.failpoints import failpoint
from pipeline.models.families import load
from pipeline.serving import publish as swap
from pipeline.serving.recommend import recommend as build_lists
from pipeline.steps.champion import PUBLICATION
from pipeline.steps.learn import (
    FALLBACK,
    promoted,
    read_scorer,
    read_split,
)
from pipeline.steps.mirror import point_aliases
from pipeline.steps.night import Night, open_night, read_pinned, register_folder
from pipeline.steps.run import Workspace
from pipeline.stores.runs import Ref


def recommend(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Build the lists of everybody, a few entries longer than they are shown."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("recommend")) is not None:
        return ref
    name = promoted(night)["recipe"]
    progress("recommend")
    history = History.from_arrays(night.run.arrays("refit", "history"))
    family = night.recipes[FALLBACK].model_dump()["family"]
    users = read_pinned(ws, night, "users", columns=[c.USER_ID])[c.USER_ID]
    config = night.config
    lists = build_lists(
        read_scorer(night.run, "refit"),
        load(family, night.run.arrays("refit", "fallback")),
        history,
        set(users) - set(history.user_ids.tolist()),
        swap.unavailable(read_pinned(ws, night, "items")),
        repeat=read_split(night.run).policy == "repeat",
        reasons=(name, FALLBACK),
        length=config.recommend.length + config.publish.reserve,
    )
    with night.run.draft("recommend") as draft:
        draft.frame("lists", lists)
        draft.rows = lists[c.USER_ID].n_unique()
    failpoint("lists_written")
    return night.run.ref("recommend")


def publish(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Ref:
    """Put the lists before people; a replay, or a night told not to publish, moves nothing."""
    night = open_night(ws, run_id)
    if (ref := night.run.committed("publish")) is not None:
        return ref
    promoted(night)
    still = "the night is a replay" if night.replay else None
    still = still or (None if night.publish else "the night was told not to publish")
    row: dict[str, Any] | None = None
    if still is None:
        progress("publish")
        row = _swap(ws, night)
        point_aliases(ws)
        failpoint("alias")
    with night.run.draft("publish") as draft:
        draft.json(
            "publication",
            {
                "moved": row is not None,
                "why": still,
                c.PUBLICATION_ID: None if row is None else row[c.PUBLICATION_ID],
                c.GENERATION: None if row is None else row[c.GENERATION],
            },
        )
        draft.rows = 0 if row is None else night.run.manifest("recommend")["rows"]
    return night.run.ref("publish")


def reconcile(ws: Workspace) -> None:
    """Write the ledger's lines of swaps whose process died before it could."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    known = {entry["key"] for entry in ws.ledger.entries()}
    for row in publications.iter_rows(named=True):
        if _ledger_key(row) not in known:
            _record(ws, Night.read(ws.runs.open(row[c.RUN_ID])), row)


def publication_id(run_id: str) -> str:
    """Name the publication of a run."""
    return f"p-{run_id}"


def _swap(ws: Workspace, night: Night) -> dict[str, Any]:
    run, name = night.run, publication_id(night.run.run_id)
    pin = _pin(ws, night)
    items = ws.lake.empty("items")
    if pin[c.CATALOGUE_VERSION] is not None:
        items = ws.lake.read("items", version=pin[c.CATALOGUE_VERSION])
    lists = swap.trim(
        run.frame("recommend", "lists"), swap.unavailable(items), night.config.recommend.length
    )
    facts = {
        c.PUBLICATION_ID: name,
        c.MODEL_VERSION: str(run.json(register_folder(run), "mlflow")["version"]),
        c.RUN_ID: run.run_id,
        c.RECIPE: promoted(night)["recipe"],
        c.CATALOGUE_VERSION: pin[c.CATALOGUE_VERSION],
        c.RULES_HASH: hashlib.sha256(b"").hexdigest()[:12],  # no rules are declared yet
        c.SUMS: swap.lists_sum(lists),
    }
    with ws.lake.lock("publish"):
        publications = ws.lake.read("publications")
        row = swap.next_row(
            publications,
            facts,
            as_of=night.as_of,
            live_from=datetime.fromisoformat(pin[c.LIVE_FROM]),
        )
        failpoint("checked")
        if row is not None:
            there = ws.lake.read("recommendations", where=swap.of_publication(name))
            if swap.lists_sum(there) != facts[c.SUMS]:
                rows = swap.publication_rows(lists, name)
                ws.lake.replace_where("recommendations", rows, c.PUBLICATION_ID, name)
            failpoint("staged")
            _refuse_damaged(ws, name, facts[c.SUMS])
            failpoint("before_swap")
            ws.lake.append("publications", row)
            failpoint("swapped")
        live = row if row is not None else publications
        mine = live.filter(live[c.PUBLICATION_ID] == name).row(0, named=True)
        _record(ws, night, mine)
        failpoint("ledger")
    return mine


def _refuse_damaged(ws: Workspace, name: str, expected: str) -> None:
    """Read the lists back before anybody is sent to them."""
    there = ws.lake.read("recommendations", where=swap.of_publication(name))
    if swap.lists_sum(there) != expected:
        raise LakeError(f"the lists of publication {name} did not come back as they were written")


def _pin(ws: Workspace, night: Night) -> dict[str, Any]:
    """Fix, once for all attempts, the catalogue that the lists obey and when they go live."""
    if night.run.committed("publish-pin") is None:
        by_clock = night.config.publish.live_from == "clock"
        live_from = datetime.now(UTC) if by_clock else night.as_of
        with night.run.draft("publish-pin") as draft:
            draft.json(
                "pin",
                {
                    c.CATALOGUE_VERSION: ws.lake.version("items"),
                    c.LIVE_FROM: live_from.isoformat(),
                },
            )
    pinned: dict[str, Any] = night.run.json("publish-pin", "pin")
    return pinned


def _ledger_key(row: Mapping[str, Any]) -> str:
    return f"{PUBLICATION}:{row[c.PUBLICATION_ID]}"


def _record(ws: Workspace, night: Night, row: Mapping[str, Any]) -> None:
    """Write the swap into the ledger; the same line whoever writes it."""
    recipe = night.recipes[row[c.RECIPE]]
    ws.ledger.append(
        _ledger_key(row),
        PUBLICATION,
        {
            "name": row[c.RECIPE],
            "recipe": recipe.model_dump(mode="json"),
            "run_id": row[c.RUN_ID],
            "as_of": format_instant(row[c.AS_OF]),
            "live_from": format_instant(row[c.LIVE_FROM]),
            "publication_id": row[c.PUBLICATION_ID],
            "generation": row[c.GENERATION],
            "model_version": row[c.MODEL_VERSION],
        },
    )
