import numpy as np
import polars as pl
import pytest

from pipeline import columns as c
from pipeline.evaluation.evaluate import Evaluation
from pipeline.evaluation.fits import averaged, further
from pipeline.models.als import Als
from pipeline.models.item_knn import ItemKnn
from pipeline.models.popularity import Popularity
from pipeline.workspace.run_files import fit_name
from tests.raising import raises
from tests.windows import random_history

ALS = Als(factors=4, iterations=2)


def equal(first, second):
    mine, other = first.arrays(), second.arrays()
    return all(np.array_equal(mine[name], other[name]) for name in mine)


@pytest.mark.parametrize(
    ("recipe", "users", "seconds", "fits"),
    [
        (ALS, 4000, 60.0, 2),
        (ALS, 3999, 60.0, 0),
        (ALS, 4000, 1e-9, 0),  # a fit would take minutes
        (Popularity(), 9000, 60.0, 0),
        (ItemKnn(), 9000, 60.0, 0),  # draws nothing
    ],
)
def test_more_fits_where_seeds_would_decide(recipe, users, seconds, fits, monkeypatch):
    monkeypatch.setattr("pipeline.evaluation.fits.QUICK_SECONDS", seconds)
    history = random_history()
    first = recipe.train(history)
    more = further(recipe, history, first, users=users)
    assert len(more) == fits
    if more:
        assert not equal(first, more[0])
        assert not equal(more[0], more[1])
        assert equal(more[1], recipe.train(history, replicate=2))
    assert [fit_name(replicate) for replicate in range(3)] == ["scorer", "scorer-1", "scorer-2"]


def evaluation(values, coverage=0.5, ids=("a", "b", "c")):
    users = pl.DataFrame({c.USER_ID: list(ids), "ndcg": values, "slice.cold": [None, *values[1:]]})
    return Evaluation(users, coverage, {"ndcg_at_20": float(np.mean(values)), "users": 3.0})


def test_several_fits_are_one_evaluation():
    averages = averaged([evaluation([0.0, 0.3, 0.9]), evaluation([0.6, 0.3, 0.0], coverage=0.3)])
    assert averages.users["ndcg"].to_list() == pytest.approx([0.3, 0.3, 0.45])
    assert averages.users["slice.cold"].to_list()[0] is None
    assert averages.metrics == {"ndcg_at_20": pytest.approx(0.35), "users": 3.0}
    assert averages.coverage == pytest.approx(0.4)
    one = evaluation([0.1, 0.2, 0.3])
    assert averaged([one]) is one
    with raises("evaluate.fits_differ"):
        averaged([one, evaluation([0.1, 0.2, 0.3], ids=("a", "b", "x"))])
