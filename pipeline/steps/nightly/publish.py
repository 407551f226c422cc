"""Publishes the lists: one commit of the table `publications` makes them live.

The same commit holds a patch for users with events after the as-of. Ledger entries and MLflow
aliases are written after the commit; if the process is killed before that, the next command writes
them.

Guarantees:

* Nothing goes live unless decision, refit, cold check and lists have the checksums in the ledger,
  and every listed item is in the catalogue or the events of the run.
* Staged lists are read back and compared with their checksums before they go live.
* A replay changes nothing that is live. A repeated attempt publishes nothing twice and keeps the
  catalogue and the instant of the first one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import polars as pl

from pipeline import columns as c
from pipeline.base import Progress
from pipeline.errors import StorageError
from pipeline.failpoints import failpoint
from pipeline.number_text import share
from pipeline.serving import publish as serving
from pipeline.steps.feedback.patch import make_patch
from pipeline.steps.reporting.index_page import draw_reports
from pipeline.workspace.night import Night, register_folder
from pipeline.workspace.publications import append_ledger_entry, go_live, stage, verify_staged
from pipeline.workspace.registry import point_aliases
from pipeline.workspace.release_artifacts import ChurnFile, MlflowFile, PinFile, PublicationFile
from pipeline.workspace.run_files import promoted
from pipeline.workspace.step_outputs import verify_outputs
from pipeline.workspace.task_log import task_step


@task_step("publish", check=draw_reports)
def publish(night: Night, progress: Progress) -> str:
    """Make the lists live; a replay, or a run without `publish`, changes nothing.

    Parameters
    ----------
    night, progress
        The run, and a receiver of short texts; `task_step` passes both.

    Returns
    -------
    The result in one sentence.
    """
    promoted(night)
    reason = None if night.snapshot.publish else "the run was started without publishing"
    if night.replay:
        reason = "the run is a replay"
    row: serving.PublicationRow = {c.PUBLICATION_ID: None, c.GENERATION: None}
    if reason is None:
        row = _swap(night, progress)
        point_aliases(night.ws)
        failpoint("alias")
    result = PublicationFile(
        went_live=reason is None,
        reason=reason,
        publication_id=row[c.PUBLICATION_ID],
        generation=row[c.GENERATION],
    )
    with night.run.draft("publish") as draft:
        draft.write(result)
        draft.rows = night.run.ref("recommend").rows if result.went_live else 0
    if not result.went_live:
        return f"nothing: {reason}"
    sentence = f"generation {result.generation}, {draft.rows:,} lists"
    churn = night.run.find(ChurnFile)
    if churn is not None and churn.first.overlap is not None:
        sentence += f", {share(1 - churn.first.overlap)} new entries"
    return sentence


def publication_id(run_id: str) -> str:
    """Return the id of the publication of a run."""
    return f"p-{run_id}"


def _swap(night: Night, progress: Progress) -> serving.PublicationRow:
    """Make the lists live unless an earlier attempt did; return their row of `publications`."""
    ws, run, name = night.ws, night.run, publication_id(night.run_id)
    decided = verify_outputs(night)
    pin = _pin(night)
    gone = serving.unavailable(ws.read_pinned({"items": pin.catalogue_version}, "items"))
    _refuse_unknown_items(night, run.frame("recommend", "lists"))
    lists = serving.trim(run.frame("recommend", "lists"), gone, night.config.recommend.length)
    facts = {
        c.PUBLICATION_ID: name,
        c.MODEL_VERSION: str(run.read(MlflowFile, register_folder(run)).version),
        c.RUN_ID: run.run_id,
        c.RECIPE: decided.recipe,
        c.CATALOGUE_VERSION: pin.catalogue_version,
        c.RULES_HASH: hashlib.sha256(b"").hexdigest()[:12],  # rules are not implemented yet
        c.SUMS: serving.lists_sum(lists),
    }
    # A feedback pass publishes patches under the same lock.
    with ws.lake.lock("publish", wait=True):
        publications = ws.lake.read("publications")
        row = serving.next_row(publications, facts, as_of=night.as_of, live_from=pin.live_from)
        failpoint("checked")
        if row is not None:
            stage(ws, name, lists)
            rows = _with_patch(night, publications, row, progress)
            failpoint("staged")
            # Read back before the commit: readers must never get lists that differ from their sums.
            for staged in rows.iter_rows(named=True):
                verify_staged(ws, staged[c.PUBLICATION_ID], staged[c.SUMS])
            failpoint("before_swap")
            rows = go_live(ws, rows)
            failpoint("swapped")
            publications = pl.concat([publications, rows])
        chain = serving.chain(publications, name)
        # An earlier attempt may have ended before or after this; an entry is never written twice.
        for published in chain.iter_rows(named=True):
            append_ledger_entry(ws, published)
        failpoint("ledger")
    return chain.row(0, named=True)


def _refuse_unknown_items(night: Night, lists: pl.DataFrame) -> None:
    """Raise `publish.unknown_items` for items that neither catalogue nor events of the run have."""
    known = night.table("items", columns=[c.ITEM_ID])[c.ITEM_ID].to_list()
    known += night.events(c.ITEM_ID)[c.ITEM_ID].unique().to_list()
    unknown = lists[c.ITEM_ID].unique().to_list()
    if unknown := sorted(set(unknown) - set(known)):
        raise StorageError(
            "publish.unknown_items",
            f"the lists of run {night.run_id} have {len(unknown)} items that neither its catalogue "
            f"nor its events have: {', '.join(map(repr, unknown[:5]))}; nothing was published. "
            "Restore the run's folder from a backup",
        )


def _with_patch(
    night: Night, publications: pl.DataFrame, row: pl.DataFrame, progress: Progress
) -> pl.DataFrame:
    """Return the rows of the commit: that of the run, and that of the patch."""
    # The live lists may already use events after the as-of. Without the patch the new champion's
    # lists would lack these events.
    base = row.row(0, named=True)
    before, at = serving.live(publications), base[c.LIVE_FROM]
    if before is not None:
        # A feedback pass may have refreshed live lists up to an instant after `live_from`.
        at = max(at, *serving.chain(publications, before[c.PUBLICATION_ID])[c.AS_OF])
    patch = make_patch(night, base, at, catalogue=base[c.CATALOGUE_VERSION], progress=progress)
    if isinstance(patch, str):
        progress(f"fold in: {patch}")
        return row
    stage(night.ws, patch.publication_id, patch.lists)
    return pl.concat([row, patch.row(base, live_from=patch.at)])


def _pin(night: Night) -> PinFile:
    """Read the catalogue version and the instant of going live; the first attempt writes them."""
    if night.run.committed(PinFile.STEP) is None:
        by_clock = night.config.publish.live_from == "clock"
        live_from = datetime.now(UTC) if by_clock else night.as_of
        # `gc` must not remove the version between its look-up and the commit of this file.
        with night.ws.pinning(), night.run.draft(PinFile.STEP) as draft:
            version = night.ws.lake.version("items")
            draft.write(PinFile(catalogue_version=version, live_from=live_from))
    return night.run.read(PinFile)
