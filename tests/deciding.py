"""Takes a night to its decision and no further."""

from datetime import datetime

from pipeline.steps.nightly.evaluate import evaluate
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.gate import Decided, gate
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.nightly.train import train
from pipeline.steps.nightly.validate import validate
from pipeline.workspace.workspace import Workspace


def decide(ws: Workspace, as_of: datetime) -> tuple[str, Decided]:
    """Return the run's id, and the decision."""
    started = snapshot(ws, as_of)
    validate(ws, started.run_id)
    features(ws, started.run_id)
    for recipe in started.recipes:
        train(ws, started.run_id, recipe)
    evaluate(ws, started.run_id)
    return started.run_id, gate(ws, started.run_id)
