"""Comparisons of the benchmark of quiet nights: starts by row, and seed noise alone."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from benchmarks import churn
from pipeline import columns as c
from pipeline.data.matrix import WEIGHT, build_history
from pipeline.models.als import Als
from pipeline.models.svd import Svd

END = datetime(2026, 3, 1, tzinfo=UTC)


def events():
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        for _ in range(12):
            item = (user % 3) * 10 + int(rng.integers(10))
            rows.append((f"u{user:02}", f"i{item:02}", END - timedelta(days=rng.uniform(1, 60))))
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.TIMESTAMP: c.INSTANT}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.lit(1.0, pl.Float32).alias(WEIGHT))


@pytest.mark.parametrize(
    "recipe",
    [Als(factors=4, iterations=2, device="cpu"), Svd(factors=3, oversampling=0, iterations=1)],
    ids=["als", "svd"],
)
def test_by_row_draws_anew_and_gives_the_ids_back(recipe):
    history = build_history(events(), END)

    def scored(fit, seed):
        scores = fit(history, seed)
        return scores.users @ scores.items.T

    keyed = scored(churn.keyed(recipe), 0)
    by_row = [scored(churn.by_row(recipe), seed) for seed in (0, 0, 1)]
    assert np.array_equal(by_row[0], by_row[1])
    assert not np.allclose(by_row[0], by_row[2])
    assert not np.allclose(by_row[0], keyed)
    assert np.array_equal(scored(churn.keyed(recipe), 0), keyed)


def test_the_error_is_that_of_seeds_within_each_cut():
    # Cuts differ by far more than seeds: that is not seed noise.
    values = np.array([[0.1, 0.2], [5.1, 5.2]])
    assert churn.error(values) == pytest.approx(np.sqrt(2 * 0.005 / 2) / 2)
    assert np.isnan(churn.error(values[:, :1]))


def test_one_fit_twice_moves_nothing():
    recipe = Als(factors=4, iterations=2, device="cpu")
    nights = (END - timedelta(days=5),)

    def deaf(history, _):
        return recipe.train(history).score(history)

    across, reseeded, idle = churn.moved(deaf, events(), nights)
    assert reseeded == 1.0
    assert 0 < across < 1 and 0 < idle < 60
    quality = churn.quality(churn.keyed(recipe), events(), nights, 2)
    assert quality.shape == (1, 2) and (quality > 0).all()
