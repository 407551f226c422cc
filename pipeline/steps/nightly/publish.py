"""The night's end: build everybody's lists, put them before people.

The swap is one commit of `publications`, with a patch in it for whoever did something while the
night was at work; the ledger's lines and MLflow's aliases follow from it and are made good by
whoever comes next, if a process dies in between.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress, silent
from pipeline.failpoints import failpoint
from pipeline.serving import publish as swap
from pipeline.steps.feedback.patch import NoPatch, make_patch
from pipeline.stores.runs import Ref
from pipeline.workspace.night import Night, open_night, register_folder
from pipeline.workspace.publications import record, refuse_damaged, stage
from pipeline.workspace.registry import point_aliases
from pipeline.workspace.run_files import promoted
from pipeline.workspace.workspace import Workspace


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
        row = _swap(ws, night, progress)
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


def publication_id(run_id: str) -> str:
    """Name the publication of a run."""
    return f"p-{run_id}"


def _swap(ws: Workspace, night: Night, tell: Progress) -> dict[str, Any]:
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
    with ws.lake.lock("publish", wait=True):
        publications = ws.lake.read("publications")
        row = swap.next_row(
            publications,
            facts,
            as_of=night.as_of,
            live_from=datetime.fromisoformat(pin[c.LIVE_FROM]),
        )
        failpoint("checked")
        if row is not None:
            stage(ws, name, lists)
            rows = _caught_up(ws, night, publications, row, tell)
            failpoint("staged")
            for one in rows.iter_rows(named=True):
                refuse_damaged(ws, one[c.PUBLICATION_ID], one[c.SUMS])
            failpoint("before_swap")
            ws.lake.append("publications", rows)
            failpoint("swapped")
            publications = pl.concat([publications, rows])
        chain = swap.chain(publications, name)
        for one in chain.iter_rows(named=True):
            record(ws, one)
        failpoint("ledger")
    return chain.row(0, named=True)


def _caught_up(
    ws: Workspace, night: Night, publications: pl.DataFrame, row: pl.DataFrame, tell: Progress
) -> pl.DataFrame:
    """Return what goes live in one commit: the night's row, and the patch that it needs at once.

    People who did something that this night did not see may have it in their lists by now: so
    that nobody's list forgets what it knew, they are folded into the new champion first.
    """
    base = row.row(0, named=True)
    before = swap.live(publications)
    at: datetime = base[c.LIVE_FROM]
    if before is not None:
        at = max(at, *swap.chain(publications, before[c.PUBLICATION_ID])[c.AS_OF])
    made = make_patch(ws, night, base, at, catalogue=base[c.CATALOGUE_VERSION], tell=tell)
    if isinstance(made, NoPatch):
        tell(f"fold in: {made.reason}")
        return row
    stage(ws, made.publication_id, made.lists)
    return pl.concat([row, made.row(base, live_from=made.at)])


def _pin(ws: Workspace, night: Night) -> dict[str, Any]:
    """Fix, once for all attempts, the catalogue that the lists obey and when they go live."""
    if night.run.committed("publish-pin") is None:
        by_clock = night.config.publish.live_from == "clock"
        live_from = datetime.now(UTC) if by_clock else night.as_of
        with ws.pinning(), night.run.draft("publish-pin") as draft:
            draft.json(
                "pin",
                {
                    c.CATALOGUE_VERSION: ws.lake.version("items"),
                    c.LIVE_FROM: live_from.isoformat(),
                },
            )
    pinned: dict[str, Any] = night.run.json("publish-pin", "pin")
    return pinned
