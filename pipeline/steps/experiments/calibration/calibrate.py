"""The gate's own error rate and power, measured with the champion's recipe on the data it sees.

Promises: nothing at or after the as-of is read; what it measures is pinned when it begins, and each
fit is kept when it is done, so the same call goes on where an earlier one was stopped; an as-of and
a recipe are calibrated once, and the line in the ledger is what later nights take τ from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.base import Progress, compact_instant, format_instant, silent, to_utc
from pipeline.errors import ConfigError
from pipeline.evaluation.calibrate import calibrate
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.evaluate import NDCG
from pipeline.models.contract import Recipe
from pipeline.report.calibration import figure, sentence, text
from pipeline.steps.experiments.calibration.fits import PLAN, Fits, pinned
from pipeline.stores.runs import Run, Runs
from pipeline.workspace.config import dump
from pipeline.workspace.history import CALIBRATION, accepted_before
from pipeline.workspace.workspace import Workspace

LOCK: Final = "calibrate"
FOLDER: Final = "calibrations"
FIGURE: Final = "calibration.svg"
_DECISIVE: Final = ("clean", "features", "split", "recommend")
RESULT: Final = "result"


@dataclass(frozen=True)
class Calibrated:
    """A calibration as the ledger and its files tell it.

    Attributes
    ----------
    line
        Of the ledger.
    found
        All figures, the accounts' paths as well.
    svg
        The figure.
    """

    line: Mapping[str, Any]
    found: Calibration
    svg: bytes

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: the line, and everything that was found."""
        return {**self.line, "found": self.found.to_dict()}

    def text(self) -> str:
        """As lines for a person."""
        line = self.line
        told = text(self.found, line["recipe"], line["k"], line["cutoffs"])
        return f"{line['sentence']}\n{told}"


def gate_calibrate(
    ws: Workspace,
    as_of: datetime,
    *,
    elapsed: Callable[[], float],
    progress: Progress = silent,
) -> Calibrated:
    """Calibrate the gate, go on with it, or return what an earlier call has found.

    Parameters
    ----------
    as_of
        The recipe is that of the champion right after a night of this as-of.
    elapsed
        Seconds since the call began.

    Raises
    ------
    ConfigError
        Nothing is live yet.
    DataError
        Fewer than two holdouts with users enough lie before the as-of.
    GateError
        Fewer than two of them are judged by as many as the gate asks for.
    """
    as_of = to_utc(as_of)
    entries = ws.ledger.entries()
    live = accepted_before(entries, as_of + timedelta(microseconds=1))
    if not live:
        raise ConfigError(
            f"nothing is live as of {format_instant(as_of)}: a calibration measures the "
            "champion's recipe; run `nightjar nightly --as-of T` first"
        )
    name, recipe = live[-1].name, live[-1].recipe
    run = _run(ws, as_of, recipe)  # other settings are another calibration
    key = f"{CALIBRATION}:{run.run_id}"
    with ws.lake.lock(LOCK):
        if run.committed(RESULT) is None:
            plan = pinned(ws, run, as_of)
            found = calibrate(Fits(ws, run, plan, name, recipe).all(elapsed, progress),
                              ws.config.gate)  # fmt: skip
            with run.draft(RESULT) as draft:
                draft.json(RESULT, found.to_dict())
                draft.bytes(FIGURE, figure(found))
                draft.rows = sum(found.users)
        line = ws.ledger.append(key, CALIBRATION, _line(run, as_of, name, recipe))
    return Calibrated(line, _found(run), run.bytes(RESULT, FIGURE))


def _runs(ws: Workspace) -> Runs:
    """Return the calibrations' own folder: they are no nights."""
    return Runs(ws.home / FOLDER)


def _run(ws: Workspace, as_of: datetime, recipe: Recipe) -> Run:
    """Open the calibration that the same call finds again, whatever the lake takes in meanwhile."""
    sections = dump(ws.config)
    facts = {"recipe": recipe.hash, **{section: sections[section] for section in _DECISIVE}}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return _runs(ws).open(f"{compact_instant(as_of)}-{digest}")


def _found(run: Run) -> Calibration:
    return Calibration.from_dict(run.json(RESULT, RESULT))


def _line(run: Run, as_of: datetime, name: str, recipe: Recipe) -> dict[str, Any]:
    """Write the ledger's line."""
    plan, found = run.json(PLAN, PLAN), _found(run)
    told = found.to_dict()
    figures = (
        "tau",
        "rate",
        "rate_upper",
        "tossed_upper",
        "v_hat",
        "df",
        "planted",
        "users",
        "salts",
    )
    return {
        "calibration": run.run_id,
        "as_of": format_instant(as_of),
        "recipe": name,
        "family": recipe.family,
        "recipe_hash": recipe.hash,
        "policy": plan["policy"],
        "k": plan["k"],
        "metric": NDCG,
        **{figure: told[figure] for figure in figures},
        "power": found.power,
        "switched": found.switched,
        "lineages": len(found.equal),
        "cutoffs": [begin for begin, _ in plan["holdouts"]][-len(found.users) :],
        "sentence": f"{name}: {sentence(found)}",
    }
