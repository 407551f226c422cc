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
    decisions = [history.overrides.get(entry.run_id, entry).decision for entry in entries]
    past = build_gate_history(
        decisions,
        [entry.run_id in published for entry in entries],
        [entry.run_id in history.overrides for entry in entries],
    )
    anchors = {anchor.recipe_hash: anchor for anchor in past.anchors}
    for by_hand in history.anchors(night.as_of, key):
        recipe_hash = by_hand.anchor.recipe_hash
        later = (
            decision.anchor
            for entry, decision in zip(entries, decisions, strict=True)
            if entry.as_of > by_hand.as_of and decision.anchor is not None
        )
        # Runs store the anchor that they use, so a later one has this anchor or a newer one.
        if all(anchor.recipe_hash != recipe_hash for anchor in later):
            anchors[recipe_hash] = by_hand.anchor
    return replace(past, anchors=tuple(anchors.values()))
