"""Checksums of the steps whose output goes live, kept in the ledger outside the run's folder.

Guarantees:

* Publishing fails if a file or the manifest of such a step was changed after its commit.
* Nothing is recorded or verified for a replay, which publishes nothing.
"""

from __future__ import annotations

from typing import Final

from pipeline.errors import GateError, StorageError
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import Decided, StepEntry, append_entry
from pipeline.workspace.night import ACCEPT, Night

PUBLISHED_STEPS: Final = (REFIT, "cold_check", "recommend")
"""Steps after the decision whose output `publish` uses."""


def record_step(night: Night, step: str) -> None:
    """Append the checksum of a committed step to the ledger; safe to repeat.

    Parameters
    ----------
    night
        The run.
    step
        One of `PUBLISHED_STEPS`.

    Raises
    ------
    StorageError
        `ledger.step_differs`: an earlier attempt recorded another checksum.
    """
    if night.replay:
        return
    _compare(night, step, append_entry(night.ws.ledger, step_entry(night, step)).output_sha256)


def step_entry(night: Night, step: str) -> StepEntry:
    """Return the ledger entry of a step.

    Parameters
    ----------
    night
        The run.
    step
        One of `PUBLISHED_STEPS`; it is committed.
    """
    return StepEntry(
        key=f"step:{night.run_id}:{step}",
        as_of=night.as_of,
        run_id=night.run_id,
        step=step,
        output_sha256=night.run.ref(step).sha256,
    )


def verify_refit(night: Night) -> None:
    """Compare the refit of a run with the ledger.

    Raises
    ------
    StorageError
        `ledger.step_missing`, `ledger.step_differs`
    """
    _verify_step(night, REFIT, LedgerHistory.of(night.ws.ledger))


def verify_outputs(night: Night) -> Decided:
    """Compare snapshot, decision and all `PUBLISHED_STEPS` of a run with the ledger.

    Parameters
    ----------
    night
        A run that is not a replay.

    Returns
    -------
    The decision of the ledger.

    Raises
    ------
    StorageError
        `ledger.step_missing`, `ledger.step_differs`
    GateError
        `gate.no_promotion`: the decision of the ledger promotes no recipe.
    """
    # Read again: `night.history` may have been read before these steps were committed.
    history = LedgerHistory.of(night.ws.ledger)
    step = ACCEPT if night.run.committed(ACCEPT) else "gate"
    decided = history.decision_of(night.run_id)
    _compare(night, step, decided.output_sha256 if decided else None)
    _compare(night, "snapshot", decided.snapshot_sha256 if decided else None)
    for name in PUBLISHED_STEPS:
        _verify_step(night, name, history)
    if decided is None or not decided.decision.promotes:
        raise GateError(
            "gate.no_promotion", f"run {night.run_id} promotes no recipe; start a later one"
        )
    return decided


def _verify_step(night: Night, step: str, history: LedgerHistory) -> None:
    entry = history.steps.get((night.run_id, step))
    _compare(night, step, entry.output_sha256 if entry else None)


def _compare(night: Night, step: str, recorded: str | None) -> None:
    if recorded is None:
        raise StorageError(
            "ledger.step_missing",
            f"the ledger has no entry for step {step} of run {night.run_id}; run "
            "`nightjar repair ledger`",
        )
    if recorded != night.run.ref(step).sha256:
        raise StorageError(
            "ledger.step_differs",
            f"{night.run.folder / step} was changed after the step wrote it: the ledger has "
            "another checksum; restore the folder from a backup",
        )
