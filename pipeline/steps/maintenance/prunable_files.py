"""Files of a run that no step will read: scorers that were not promoted, windows of kept runs.

Later steps read these large files of a decided run:

* of a promoted recipe, the evaluation scorer and the windows: refreshes of later runs, `compare`
  and `reproduce`; also of the recipe that the gate named, if a user accepted another one;
* of a run that kept the champion, the same of each recipe that `accept` may still promote.

All other large files are read by the run itself, before its gate.

Guarantees: a run without a decision, or with one at or after the given instant, has no removable
files; only arrays (``.npz``) are removable; of a promoted recipe, its first fit and the windows
stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from pipeline.errors import ConfigError
from pipeline.steps.nightly.accept import refuse_gone_on
from pipeline.stores.pruning import last_activity
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import train_step
from pipeline.workspace.night import Night, decision_of
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.run_files import fit_name
from pipeline.workspace.workspace import Workspace

_ARRAYS: Final = ".npz"
_FIRST: Final = f"{fit_name(0)}{_ARRAYS}"
_TRAIN: Final = train_step("")


def prunable_files(ws: Workspace, run: Run, before: datetime) -> Iterator[tuple[str, list[str]]]:
    """Yield the folders of a decided run with their removable files.

    Parameters
    ----------
    ws
        The workspace.
    run
        Any run; without a decision it has no removable files.
    before
        In UTC; a run with a later decision has no removable files.

    Yields
    ------
    tuple
        Step and names of its files; the list may be empty.
    """
    if run.committed("gate") is None or last_activity(run, "gate") >= before:
        return
    wanted = _wanted(ws, run)
    # Of several fits of a recipe only the first is read after the gate.
    for step in run.steps(_TRAIN):
        arrays = [name for name in run.manifest(step)["files"] if name.endswith(_ARRAYS)]
        kept = _FIRST if step.removeprefix(_TRAIN) in wanted else None
        yield step, [name for name in arrays if name != kept]
    if not wanted:
        files = run.manifest("features")["files"]
        yield "features", [name for name in files if name.endswith(_ARRAYS)]


def _wanted(ws: Workspace, run: Run) -> set[str]:
    """Return the recipes whose scorers a later step may read."""
    decision = decision_of(run)
    if decision.promotes:
        # Later runs are compared with the champion's recipe of an accepted run until another one
        # is published.
        return {str(decision.recipe), str(run.read(DecisionFile).root.recipe)}
    # The checks of `accept`: a run that it refuses cannot promote a recipe any more.
    try:
        refuse_gone_on(Night.read(ws, run))
    except ConfigError:
        return set()
    return {name for name in (decision.recipe, decision.inconclusive) if name is not None}
