"""Ledger entries of decisions, and the recovery of entries that a killed process did not append.

Guarantees: an entry follows from committed files of its run alone, so every process appends the
same one; a replay has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pipeline import columns as c
from pipeline.steps.diagnostics.live_quality import live_summary
from pipeline.steps.feedback.attribution import attribution_summary
from pipeline.steps.feedback.drift import drift_summary
from pipeline.steps.feedback.policy import read_policy
from pipeline.workspace.agreement import refuse_cut_ledger
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.history import AGAIN
from pipeline.workspace.ledger import (
    ComparisonKey,
    DecisionEntry,
    OverrideEntry,
    SelectedWeights,
    append_entry,
    entries_of,
)
from pipeline.workspace.night import ACCEPT, Night
from pipeline.workspace.publications import reconcile
from pipeline.workspace.release_artifacts import DecisionFile, OverrideFile
from pipeline.workspace.workspace import Workspace


def comparison_key(night: Night) -> ComparisonKey:
    """Return the properties that other runs share if their figures can be compared."""
    return night.run.read(SplitFile).comparison_key(night.config)


def decision_entry(night: Night) -> DecisionEntry:
    """Return the entry of the gate's decision."""
    decision, split = night.run.read(DecisionFile).root, night.run.read(SplitFile)
    return DecisionEntry(
        key=f"decision:{night.run_id}",
        as_of=night.as_of,
        run_id=night.run_id,
        kind=decision.kind,
        recipe=decision.recipe,
        sentence=decision.sentence,
        output_sha256=night.run.ref("gate").sha256,
        snapshot_sha256=night.run.ref("snapshot").sha256,
        holdout_days=split.holdout_days,
        judged=split.judged,
        selected_recipes={
            night.snapshot.recipes[name].hash: recipe
            for name, recipe in night.selected.items()
            if not name.endswith(AGAIN)
        },
        # Also a search without a result counts, or each run would repeat it.
        selected_again={
            recipe.hash: night.selected.get(name)
            for name, recipe in night.snapshot.recipes.items()
            if name.endswith(AGAIN) and recipe.has_free_params
        },
        weights=SelectedWeights(
            configured=night.snapshot.config.features, chosen=night.config.features
        ),
        comparison_key=comparison_key(night),
        live=live_summary(night),
        attribution=attribution_summary(night.run),
        drift=drift_summary(night.run),
        trigger=read_policy(night.run),
        decision=decision,
    )


def override_entry(night: Night) -> OverrideEntry:
    """Return the entry of a decision that a user changed."""
    override, decision = night.run.read(OverrideFile), night.run.read(DecisionFile, ACCEPT).root
    return OverrideEntry(
        key=f"override:{night.run_id}",
        as_of=night.as_of,
        run_id=night.run_id,
        kind=decision.kind,
        recipe=decision.recipe,
        sentence=decision.sentence,
        output_sha256=night.run.ref(ACCEPT).sha256,
        snapshot_sha256=night.run.ref("snapshot").sha256,
        decision=decision,
        by=override.by,
        reason=override.reason,
    )


_ENTRIES: Final[Mapping[str, tuple[str, Callable[[Night], DecisionEntry | OverrideEntry]]]] = {
    "gate": ("decision", decision_entry),
    ACCEPT: ("override", override_entry),
}
"""Folder of a run -> prefix of the entry's key, and the function that makes the entry."""


def recover_ledger(ws: Workspace) -> None:
    """Append the entries of publications and decisions whose process was killed before.

    Raises
    ------
    StorageError
        `ledger.behind`: entries that no other store has are missing at the end.
    """
    reconcile(ws)
    keys = {entry.key for entry in entries_of(ws.ledger)}
    # `publish` compares a run with its decision in the ledger, so a published run has one.
    published = set(ws.lake.read("publications", columns=[c.RUN_ID])[c.RUN_ID])
    for run in ws.runs.starting_with(""):
        for folder, (prefix, entry_of) in _ENTRIES.items():
            if (
                f"{prefix}:{run.run_id}" not in keys
                and run.run_id not in published
                and run.committed(folder) is not None
                and not (night := Night.read(ws, run)).replay
            ):
                append_entry(ws.ledger, entry_of(night))
    refuse_cut_ledger(ws.ledger)
