"""Entries of the ledger for tests: everything that a test does not name has a plain value."""

from datetime import UTC, datetime, timedelta

from pipeline.base import Interval
from pipeline.data.features import FeaturesConfig
from pipeline.evaluation.gate.decision import Decision
from pipeline.models.families import default_recipes, recipe_from
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import (
    CalibrationEntry,
    CandidateEntry,
    ComparisonKey,
    DecisionEntry,
    PublicationEntry,
    SelectedWeights,
)

NIGHT = datetime(2024, 6, 1, 9, tzinfo=UTC)
KEY = ComparisonKey(task="repeat", target_kinds=("purchase",), k=20, data="d")
ALS = default_recipes()["als"]


def days_before(days):
    """Return the instant so many days before `NIGHT`."""
    return NIGHT - timedelta(days=days)


def history(*entries):
    """Return the history of these lines."""
    return LedgerHistory(tuple(entries))


def decision(age, kind="keep", run_id=None, sentence="", **fields):
    """Return the decision of the run so many days before `NIGHT`."""
    as_of, run_id, sentence = days_before(age), run_id or f"r{age}", sentence or f"{kind}: so"
    block = Interval(as_of - timedelta(days=7), as_of)
    values = {
        "holdout_days": 7,
        "judged": ((7, 500),),
        "selected_recipes": {},
        "weights": SelectedWeights(configured=FeaturesConfig(), chosen=FeaturesConfig()),
        "comparison_key": KEY,
        "live": (),
        "attribution": None,
        "drift": None,
        "trigger": None,
        "decision": Decision(kind, "als", ALS.hash, (), (sentence,), sentence, block),
    }
    return DecisionEntry(
        key=f"decision:{run_id}",
        as_of=as_of,
        run_id=run_id,
        kind=kind,
        recipe="als",
        sentence=sentence,
        output_sha256="0" * 64,
        snapshot_sha256="0" * 64,
        **values | fields,
    )


def publication(age, generation=1, run_id=None, recipe=ALS, name="als"):
    """Return the publication of the run so many days before `NIGHT`."""
    run_id = run_id or f"r{age}"
    return PublicationEntry(
        key=f"publication:p-{run_id}",
        as_of=days_before(age),
        name=name,
        recipe=recipe,
        run_id=run_id,
        live_from=days_before(age),
        publication_id=f"p-{run_id}",
        generation=generation,
        model_version=str(generation),
    )


def calibration(age, seed_sd, family="als", task="repeat", k=20):
    """Return a calibration so many days before `NIGHT`."""
    return CalibrationEntry(
        key=f"calibration:{age}-{family}-{task}-{k}",
        as_of=days_before(age),
        calibration=str(age),
        recipe=family,
        family=family,
        recipe_hash="0" * 12,
        task=task,
        k=k,
        metric="ndcg",
        seed_sd=seed_sd,
        rate=0.0,
        rate_upper=0.0,
        tossed_upper=0.0,
        v_hat=1.0,
        df=1,
        planted=0.02,
        users=(1, 1),
        replicates=8,
        power=1.0,
        switched=0,
        lineages=1,
        cutoffs=(),
        sentence="",
    )


def candidate(alpha, age, study="s"):
    """Return a tuned recipe that a study found so many days before `NIGHT`."""
    recipe = recipe_from({"family": "als", "alpha": alpha})
    return CandidateEntry(
        key=f"candidate:{study}:{recipe.hash}",
        as_of=days_before(age),
        name="als",
        recipe=recipe,
        study=study,
        sentence="better",
        start=0.1,
        value=0.2,
    )
