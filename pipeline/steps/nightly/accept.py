"""Changes of a decision, an anchor or the target by a user; the ledger records user and reason.

Guarantees: equal requests give one ledger entry, and a different request after it is an error. A
run can be accepted until it is trained further or its champion changes.
"""

from __future__ import annotations

from pipeline.base import format_instant
from pipeline.errors import ConfigError, GateError
from pipeline.evaluation.gate import accept, offers
from pipeline.evaluation.gate.accept import anchor_from
from pipeline.steps.feedback.decisions import override_entry
from pipeline.steps.nightly.gate_history import gate_history_of
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import AnchorEntry, OverrideEntry, TargetEntry, append_entry
from pipeline.workspace.night import ACCEPT, Night, open_night
from pipeline.workspace.release_artifacts import DecisionFile, OverrideFile
from pipeline.workspace.workspace import Workspace


def accept_run(
    ws: Workspace, run_id: str, *, by: str, reason: str, recipe: str | None = None
) -> OverrideEntry:
    """Accept a candidate that the gate kept back, blocked, or found inconclusive.

    Start the run again to complete it with the changed decision.

    Parameters
    ----------
    ws, run_id
        Workspace and run.
    by, reason
        User and reason, one line each.
    recipe
        Recipe to accept; by default the one that the gate's decision names.

    Returns
    -------
    The entry of the ledger.

    Raises
    ------
    ConfigError
        `override.empty`, `override.not_printable`: invalid user or reason;
        `override.contradicts`: the decision was changed before, for another reason;
        `override.not_decided`, `override.replay`, `override.already_trained`,
        `override.champion_changed`: the decision cannot be changed.
    GateError
        The run has no such candidate.
    """
    refuse_empty(by, reason)
    night = open_night(ws, run_id)
    run = night.run
    # The folder comes first: a crash before the ledger entry is completed by the next call.
    if run.committed(ACCEPT) is None:
        refuse_gone_on(night)
        decision = run.read(DecisionFile).root
        changed = accept(decision, gate_history_of(night), by=by, reason=reason, recipe=recipe)
        with run.draft(ACCEPT) as draft:
            draft.write(DecisionFile(changed))
            draft.write(OverrideFile(by=by, reason=reason))
            draft.rows = len(changed.rules)
    accepted = run.read(DecisionFile, ACCEPT).root.recipe
    _refuse_other(run.read(OverrideFile), by, reason, recipe in (None, accepted))
    # The entry takes user and reason from the folder: an earlier call may have written it.
    return append_entry(ws.ledger, override_entry(night))


def offered_recipes(night: Night) -> tuple[str, ...]:
    """Return the recipes that `accept_run` would accept now."""
    try:
        refuse_gone_on(night)
    except ConfigError:
        return ()
    changed = night.run.committed(ACCEPT) is not None
    return () if changed else offers(night.run.read(DecisionFile).root)


def set_anchor(ws: Workspace, *, by: str, reason: str) -> AnchorEntry:
    """Set the champion's anchor to the baseline ratio of its last blocks.

    Parameters
    ----------
    ws
        Workspace.
    by, reason
        User and reason, one line each.

    Returns
    -------
    The entry of the ledger.

    Raises
    ------
    ConfigError
        `anchor.no_champion`, `override.empty`, `override.not_printable`, `override.contradicts`.
    GateError
        `anchor.no_block`: the champion was not evaluated yet.
    """
    refuse_empty(by, reason)
    history = LedgerHistory.of(ws.ledger)
    newest, live = history.last_decision(), history.live
    if newest is None or live is None:
        raise ConfigError(
            "anchor.no_champion", "nothing is live yet; run `nightjar nightly --as-of T` first"
        )
    night = open_night(ws, newest.run_id)
    anchor = anchor_from(newest.decision, gate_history_of(night), live.recipe.hash)
    if anchor is None:
        raise GateError(
            "anchor.no_block",
            f"no holdout block compares {live.name} with a baseline yet; run `nightjar nightly` "
            "with a later as-of first",
        )
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


def accept_target(ws: Workspace, run_id: str, kind: str, *, by: str, reason: str) -> TargetEntry:
    """Make a stronger kind of event, which a run proposes, the target of later runs.

    Later runs are of another task: evidence, level history and anchor start anew.

    Parameters
    ----------
    ws, run_id
        Workspace and run.
    kind
        A kind that the run proposes.
    by, reason
        User and reason, one line each.

    Returns
    -------
    The entry of the ledger.

    Raises
    ------
    ConfigError
        `override.empty`, `override.not_printable`, `override.not_decided`, `override.replay`,
        `override.contradicts`; `override.later_run`: later runs would keep their target.
    GateError
        `accept.unknown_target`: the run does not propose this kind.
    """
    refuse_empty(by, reason)
    night = open_night(ws, run_id)
    _refuse_undecided(night)
    split = night.run.read(SplitFile)
    if kind not in split.stronger_kinds:
        raise GateError(
            "accept.unknown_target",
            f"--target {kind} is not proposed by run {run_id}; name a kind that its sentence "
            f"proposes ({', '.join(split.stronger_kinds) or 'none'}), or set split.target_kinds",
        )
    newest = max(night.history.decisions, key=lambda entry: entry.as_of)
    if newest.as_of > night.as_of:
        raise ConfigError(
            "override.later_run",
            f"run {newest.run_id} has decided after run {run_id}, and its target would stay; "
            "accept the kind for that run",
        )
    entry = TargetEntry(
        key=f"target:{run_id}",
        as_of=night.as_of,
        run_id=run_id,
        target_kinds=(kind,),
        by=by,
        reason=reason,
        sentence=f"{kind} replaces {', '.join(split.target_kinds)} as the target of later runs, "
        f"by {by}: {reason}; their evidence, levels and anchor start anew",
    )
    appended = append_entry(ws.ledger, entry)
    _refuse_other(appended, by, reason, appended.target_kinds == entry.target_kinds)
    return appended


def _refuse_other(
    before: OverrideFile | AnchorEntry | TargetEntry, by: str, reason: str, same: bool = True
) -> None:
    if not same or (before.by, before.reason) != (by, reason):
        raise ConfigError(
            "override.contradicts",
            f"{before.by} has already decided this, with the reason: {before.reason}; repeat the "
            "same command with this --by and --reason, or decide on a later run",
        )


def refuse_empty(by: str, reason: str) -> None:
    """Refuse a user or a reason that is empty or not one line of text.

    Parameters
    ----------
    by, reason
        Values of ``--by`` and ``--reason``.

    Raises
    ------
    ConfigError
        `override.empty`, `override.not_printable`
    """
    for name, text, content in (("--by", by, "name"), ("--reason", reason, "reason")):
        if not text.strip():
            raise ConfigError(
                "override.empty", f"{name} is empty; give the {content} for the ledger"
            )
        if not text.isprintable():  # a line feed would look like another line of the ledger
            raise ConfigError(
                "override.not_printable", f"{name} is not printable; write one line of text"
            )


def refuse_gone_on(night: Night) -> None:
    """Raise `ConfigError` with the reason if the decision of a run cannot be changed."""
    run = night.run
    _refuse_undecided(night)
    if run.committed("refit") is not None:
        raise ConfigError(
            "override.already_trained",
            f"run {run.run_id} has already trained the recipe of its decision; accept a run with a "
            "later as-of",
        )
    # The decision compares with the champion of its instant; against another one it is not valid.
    live = night.history.live
    before = night.champion.run_id if night.champion is not None else None
    if live is not None and live.run_id != before:
        raise ConfigError(
            "override.champion_changed",
            f"run {run.run_id} was compared with an earlier champion; the run of "
            f"{format_instant(live.as_of)} is live now; accept a run with a later as-of",
        )


def _refuse_undecided(night: Night) -> None:
    """Refuse a run that has not decided, and a replay."""
    if night.run.committed("gate") is None:
        raise ConfigError(
            "override.not_decided",
            f"run {night.run_id} has not decided yet; run `nightjar nightly --as-of T` first",
        )
    if night.replay:
        raise ConfigError(
            "override.replay",
            f"run {night.run_id} is a replay and publishes nothing; accept a run with a later "
            "as-of",
        )
