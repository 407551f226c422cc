"""Decisions and anchors of earlier runs, as the gate of a run reads them.

Guarantees: only runs with an earlier as-of and the same comparison key count; a decision that a
user changed counts as changed.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.evaluation.gate import GateHistory, build_gate_history
from pipeline.steps.feedback.decisions import comparison_key
from pipeline.workspace.night import Night


def gate_history_of(night: Night) -> GateHistory:
    """Return the decisions and anchors of runs with an earlier as-of, and those set by users.

    Only runs of the same task, target kinds and list length count: other figures are not
    comparable.
    """
    history, key = night.history, comparison_key(night)
    entries = history.comparable(night.as_of, key)
    published = {entry.run_id for entry in history.publications}
    accepted = {run.run_id for run in history.accepted}
    decisions = [history.overrides.get(entry.run_id, entry).decision for entry in entries]
    past = build_gate_history(
        decisions,
        [entry.run_id in published for entry in entries],
        [entry.run_id in accepted for entry in entries],
    )
    runs = list(zip(entries, decisions, strict=True))
    # A user who accepts a run declares its level healthy: earlier ones no longer count.
    since = [d.block.end for entry, d in runs if entry.run_id in history.overrides]
    anchors = {anchor.recipe_hash: anchor for anchor in past.anchors}
    for by_hand in history.anchors(night.as_of, key):
        recipe_hash = by_hand.anchor.recipe_hash
        later = (
            d.anchor
            for entry, d in runs
            if entry.as_of > by_hand.as_of and entry.run_id in accepted and d.anchor is not None
        )
        # Runs store the anchor that they use, so a later one has this anchor or a newer one. Only
        # anchors of accepted runs count.
        if all(anchor.recipe_hash != recipe_hash for anchor in later):
            anchors[recipe_hash] = by_hand.anchor
    levels_since = max(since, default=None)
    return replace(past, anchors=tuple(anchors.values()), levels_since=levels_since)
