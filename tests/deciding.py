"""Takes a night to its decision and no further."""

from datetime import datetime

from pipeline.steps.nightly import nightly
from pipeline.steps.nightly.gate import Decided
from pipeline.workspace.workspace import Workspace


def decide(ws: Workspace, as_of: datetime) -> tuple[str, Decided]:
    """Return the run's id, and what was decided."""
    started = nightly.snapshot(ws, as_of)
    nightly.validate(ws, started.run_id)
    nightly.features(ws, started.run_id)
    for recipe in started.recipes:
        nightly.train(ws, started.run_id, recipe)
    nightly.evaluate(ws, started.run_id)
    return started.run_id, nightly.gate(ws, started.run_id)
