"""Open settings that a later night selects again: what it finds is a candidate."""

from datetime import timedelta

import pytest

from pipeline.base import as_of
from pipeline.steps.nightly import train
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import absences
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.worlds import NIGHTS

pytestmark = pytest.mark.slow

OPEN = """
[recipes.same]
family = "als"
factors = 4
iterations = 2
tune = ["alpha"]

[recipes.wide]
family = "als"
factors = 6
iterations = 2
tune = ["alpha"]
"""
FIRST, SECOND, THIRD = (as_of(NIGHTS[2] + timedelta(hours=hours)) for hours in (-48, 0, 1))


def test_a_night_after_so_many_days_selects_again_and_its_result_is_a_candidate(third, monkeypatch):
    toml = third.home / "nightjar.toml"
    toml.write_text(toml.read_text() + OPEN)
    alphas = {4: 2.0, 6: 3.0}

    def select(recipe, trials, progress):
        return recipe.model_copy(update={"alpha": alphas[recipe.factors], "tune": ()})

    monkeypatch.setattr(train, "select_hyperparameters", select)
    decide(Workspace.open(third.home), FIRST)
    toml.write_text(f"{toml.read_text()}\n[schedule]\nselect_again_days = 1\n")
    ws, alphas[6] = Workspace.open(third.home), 9.0
    run_id, _ = decide(ws, SECOND)

    night = Night.read(ws, ws.run(run_id))
    assert {"same@again", "wide@again"} < night.recipes.keys()
    # Both searches took place; the one newest the settings that the recipe has already.
    assert "same@again" in absences(night) and "wide@again" not in absences(night)
    assert (night.recipes["wide"].alpha, night.recipes["wide@again"].alpha) == (3.0, 9.0)
    entry = LedgerHistory.of(ws.ledger).last_decision()
    configured = night.snapshot.config.recipes
    newest = {configured[name].hash: recipe for name, recipe in (
        ("same", None), ("wide", night.recipes["wide@again"])
    )}  # fmt: skip
    assert (entry.run_id, entry.selected_recipes) == (run_id, {})
    assert entry.selected_again == newest
    # The search is not repeated, and what it newest goes on competing.
    started = snapshot(ws, THIRD)
    assert "same@again" not in started.recipes
    assert Night.read(ws, ws.run(started.run_id)).recipes["wide@again"].alpha == 9.0
