"""Artefacts and ledger entries with the least that their models require."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.base import Interval
from pipeline.data.split import PinnedTask
from pipeline.evaluation.gate.decision import Decision
from pipeline.workspace.artifacts import Known, SnapshotFile
from pipeline.workspace.experiment_artifacts import BacktestPlanFile
from pipeline.workspace.ledger import ComparisonKey, DecisionEntry, SelectedWeights, append_entry
from pipeline.workspace.workspace import Workspace

AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
KNOWN = Known(by="now", reason="as configured")


def versions(ws: Workspace, *tables: str) -> dict[str, int | None]:
    return {table: ws.lake.version(table) for table in tables}


def snapshot(ws: Workspace, *tables: str, **fields: Any) -> SnapshotFile:
    """Pin tables at their current versions."""
    given: dict[str, Any] = {
        "as_of": AS_OF,
        "versions": versions(ws, *tables),
        "known": KNOWN,
        "settings": "",
        "config": ws.config,
        "recipes": {},
        "champion": None,
        "champion_name": None,
        "publish": True,
        "pinned": PinnedTask(),
        "seed_sds": {},
        "weights": None,
        "trigger": None,
        "commit": "",
        "libraries": {},
        "replay": False,
        "lake": ws.lake.id,
    }
    return SnapshotFile(**given | fields)


def backtest_plan(ws: Workspace, **fields: Any) -> BacktestPlanFile:
    """Return the plan of a backtest of one instant that pins nothing."""
    given: dict[str, Any] = {
        "from": AS_OF,
        "to": AS_OF,
        "every_hours": 24.0,
        "plant_shift": None,
        "versions": {},
        "known": KNOWN,
        "catalogues": (),
        "config": ws.config,
    }
    return BacktestPlanFile(**given | fields)


def decision(**fields: Any) -> Decision:
    given: dict[str, Any] = {
        "kind": "first",
        "recipe": "als",
        "recipe_hash": None,
        "rules": (),
        "reasons": (),
        "sentence": "",
        "block": Interval(AS_OF, AS_OF),
    }
    return Decision(**given | fields)


def append_decision(ws: Workspace, run_id: str) -> DecisionEntry:
    """Append the decision of a run."""
    made = decision()
    return append_entry(
        ws.ledger,
        DecisionEntry(
            key=f"decision:{run_id}",
            as_of=AS_OF,
            run_id=run_id,
            kind=made.kind,
            recipe=made.recipe,
            sentence=made.sentence,
            output_sha256="0" * 64,
            snapshot_sha256="0" * 64,
            judged=(),
            holdout_days=1,
            selected_recipes={},
            weights=SelectedWeights(configured=ws.config.features, chosen=ws.config.features),
            comparison_key=ComparisonKey(task="discovery", target_kinds=(), k=20, data="d"),
            live=(),
            attribution=None,
            drift=None,
            trigger=None,
            decision=made,
        ),
    )
