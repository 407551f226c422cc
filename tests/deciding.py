"""Takes a night to its decision and no further."""

from datetime import datetime

from pipeline.steps import retrain
from pipeline.steps.decide import Decided
from pipeline.steps.run import Workspace


def decide(ws: Workspace, as_of: datetime) -> tuple[str, Decided]:
    """Return the run's id, and what was decided."""
    started = retrain.snapshot(ws, as_of)
    retrain.validate(ws, started.run_id)
    retrain.features(ws, started.run_id)
    for recipe in started.recipes:
        retrain.train(ws, started.run_id, recipe)
    retrain.evaluate(ws, started.run_id)
    return started.run_id, retrain.gate(ws, started.run_id)
