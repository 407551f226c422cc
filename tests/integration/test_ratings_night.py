"""A complete night with a recipe that predicts ratings, evaluated by RMSE and MAE as well."""

import polars as pl
import pytest

from pipeline import columns as c
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly.features import features
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.steps.nightly.train import Failure, train
from pipeline.steps.nightly.validate import validate
from pipeline.workspace.artifacts import EvaluationFile, MetaFile
from pipeline.workspace.release_artifacts import ColdCheckFile, RoleMetrics
from pipeline.workspace.workspace import Workspace
from tests.worlds import NIGHTS, land, purchases, ratings

CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "rating" }

[split]
task = "discovery"

[publish]
live_from = "as_of"

[recipes.biased_mf]
family = "biased_mf"
regularization = 3.0

[recipes.biases]
family = "biased_mf"
factors = 0
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory, workspace):
    ws = workspace(tmp_path_factory.mktemp("ratings") / "home", CONFIG)
    land(ws.home, ratings(), NIGHTS[0])
    assert feedback(ws, NIGHTS[0]).accepted > 4000
    return ws, nightly(ws, NIGHTS[0])


def test_it_wins_where_tastes_differ_and_goes_live(night):
    ws, ended = night
    assert (ended.status, ended.decision, ended.recipe) == ("done", "first", "biased_mf")
    listed = lists(ws, None).filter(pl.col(c.USER_ID) != c.FALLBACK_USER)
    assert listed[c.USER_ID].n_unique() == 320
    run = ws.run(ended.run_id)
    assert run.read(ColdCheckFile).fault is None
    assert run.read(MetaFile).family == "biased_mf"


def test_its_errors_are_measured_on_the_holdout_and_reported(night):
    ws, ended = night
    run = ws.run(ended.run_id)
    by_recipe = {name: r.metrics for name, r in run.read(EvaluationFile).recipes.items()}
    assert {name for name, metrics in by_recipe.items() if "rmse" in metrics} == {
        "biased_mf",
        "biases",
    }
    assert by_recipe["biased_mf"]["rmse"] < 0.9 * by_recipe["biases"]["rmse"]
    assert by_recipe["biased_mf"]["mae"] < by_recipe["biased_mf"]["rmse"]
    holdout = run.frame("features", "ratings")
    known = by_recipe["biased_mf"]["ratings"]
    assert 0.9 * holdout.height < known <= holdout.height
    assert by_recipe["biased_mf"]["rmse"] < holdout[c.VALUE].std() * 0.8
    rmse = ended.metrics["rmse"]
    assert rmse == RoleMetrics(
        candidate=by_recipe["biased_mf"]["rmse"], champion=None, baseline=None
    )


def test_mlflow_shows_its_errors(night):
    from mlflow import MlflowClient

    ws, ended = night
    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    version = client.get_model_version("nightjar", ended.model_version)
    shown = client.get_run(version.run_id).data.metrics
    assert shown["slice/all.rmse"] == ended.metrics["rmse"].candidate
    names = {"slice/all.mae", "slice/all.ratings", "cost/fit_seconds", "cost/refit_parameters"}
    assert names <= set(shown)


def test_without_ratings_it_is_left_out_in_one_sentence(tmp_path):
    ws = Workspace.init(tmp_path / "home", CONFIG.replace('"rating"', '"purchase"'))
    land(ws.home, purchases(users=220, items=60), NIGHTS[0])
    feedback(ws, NIGHTS[0])
    started = snapshot(ws, NIGHTS[0])
    validate(ws, started.run_id)
    features(ws, started.run_id)
    left_out = train(ws, started.run_id, "biased_mf")
    assert isinstance(left_out, Failure)
    assert left_out.sentence.startswith(
        "biased_mf: the recipe predicts ratings, but no event of the window is a rating"
    )
    assert left_out.exit_code == 3
