"""A person changes a decision, or sets an anchor; the ledger says who did it, and why.

Guarantees: asking for the same twice is one entry, and asking for something else after it is
refused; a run can be accepted while nothing of it is live and its champion has not changed.
"""

from __future__ import annotations

from pipeline.base import format_instant
from pipeline.errors import ConfigError, GateError
from pipeline.evaluation.gate import accept, offers
from pipeline.evaluation.gate.accept import anchor_from
from pipeline.steps.nightly.gate import gate_history_of
from pipeline.workspace.artifacts import DecisionFile, OverrideFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import AnchorEntry, OverrideEntry, append_entry
from pipeline.workspace.night import ACCEPT, Night, open_night
from pipeline.workspace.workspace import Workspace


def accept_run(
    ws: Workspace, run_id: str, *, by: str, reason: str, recipe: str | None = None
) -> OverrideEntry:
    """Accept what a run kept back, blocked, or found inconclusive; returns the ledger's entry.

    The run then goes on where it stopped: start it again.

    Raises
    ------
    ConfigError
        The run has not decided, is a replay, has gone on, another champion is live, another person
        changed it before; or a name or a reason is missing.
    GateError
        There is nothing to accept, or it was never evaluated.
    """
    _refuse_empty(by, reason)
    night = open_night(ws, run_id)
    run = night.run
    if run.committed(ACCEPT) is None:
        refuse_gone_on(night)
        decision = run.read(DecisionFile).root
        changed = accept(decision, gate_history_of(night), by=by, reason=reason, recipe=recipe)
        with run.draft(ACCEPT) as draft:
            draft.write(DecisionFile(changed))
            draft.write(OverrideFile(by=by, reason=reason))
            draft.rows = len(changed.rules)
    override = run.read(OverrideFile)
    _refuse_other(override, by, reason)
    decision = run.read(DecisionFile, ACCEPT).root
    entry = OverrideEntry(
        key=f"override:{run_id}",
        as_of=night.as_of,
        run_id=run_id,
        kind=decision.kind,
        recipe=decision.recipe,
        sentence=decision.sentence,
        decision=decision,
        by=override.by,
        reason=override.reason,
    )
    return append_entry(ws.ledger, entry)


def offered(night: Night) -> tuple[str, ...]:
    """Return the recipes that `accept_run` would put live if it were called now."""
    try:
        refuse_gone_on(night)
    except ConfigError:
        return ()
    changed = night.run.committed(ACCEPT) is not None
    return () if changed else offers(night.run.read(DecisionFile).root)


def set_anchor(ws: Workspace, *, by: str, reason: str) -> AnchorEntry:
    """Set the champion's anchor to the baseline ratio of its last blocks; returns the entry.

    Raises `ConfigError` where there is no champion, and `GateError` where no block evaluated it.
    """
    _refuse_empty(by, reason)
    history = LedgerHistory.of(ws.ledger)
    newest, live = history.last_decision(), history.live
    if newest is None or live is None:
        raise ConfigError(
            "anchor.no_champion", "nothing is live yet: there is no champion to anchor"
        )
    night = open_night(ws, newest.run_id)
    anchor = anchor_from(newest.decision, gate_history_of(night), live.recipe.hash)
    if anchor is None:
        raise GateError("anchor.no_block", f"no block has judged {live.name} against a baseline")
    entry = AnchorEntry(
        key=f"anchor:{night.run_id}:{live.recipe.hash}",
        as_of=night.as_of,
        comparison_key=newest.comparison_key,
        recipe=live.name,
        anchor=anchor,
        by=by,
        reason=reason,
        sentence=f"anchor of {live.name} set to {anchor.ratio:.3f} "
        f"({anchor.blocks} blocks) by {by}: {reason}",
    )
    appended = append_entry(ws.ledger, entry)
    _refuse_other(appended, by, reason)
    return appended


def _refuse_other(before: OverrideFile | AnchorEntry, by: str, reason: str) -> None:
    if (before.by, before.reason) != (by, reason):
        raise ConfigError(
            "override.contradicts", f"{before.by} has said so already: {before.reason}"
        )


def _refuse_empty(by: str, reason: str) -> None:
    for name, text in (("--by", by), ("--reason", reason)):
        if not text.strip():
            raise ConfigError("override.empty", f"{name} is empty; the ledger records it")
        if not text.isprintable():  # nothing may pose as a line of its own
            raise ConfigError(
                "override.not_printable", f"{name} is not printable; write one line of text"
            )


def refuse_gone_on(night: Night) -> None:
    """Raise `ConfigError` where the decision of a run cannot be changed any more, and why."""
    run = night.run
    if run.committed("gate") is None:
        raise ConfigError("override.not_decided", f"run {run.run_id} has decided nothing yet")
    if night.replay:
        raise ConfigError("override.replay", f"run {run.run_id} is a replay, which moves nothing")
    if run.committed("refit") is not None:
        raise ConfigError(
            "override.already_trained",
            f"run {run.run_id} has gone on: what it decided is trained already",
        )
    live = night.history.live
    before = night.champion.run_id if night.champion is not None else None
    if live is not None and live.run_id != before:
        raise ConfigError(
            "override.champion_changed",
            f"the night of {format_instant(live.as_of)} is live by now: run {run.run_id} was "
            "judged against the champion before it",
        )
