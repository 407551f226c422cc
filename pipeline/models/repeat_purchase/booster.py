"""Boosted trees (LightGBM) that correct a score by decayed purchase counts.

Guarantees: equal rows, in any order, give trees of equal bytes, on any number of cores. Trees are
stored as LightGBM's text, and always read back from it, also in the process that trained them.
Without trees, pairs are ranked by their counts.

The probability that a user takes an item again, with c the decayed count of the pair (`own_90`)::

    log odds = a + b · log(c) + sum over the trees of their leaf for the pair's features

a and b by maximum likelihood, the trees by gradient boosting (Friedman 2001; Ke et al. 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.errors import ResourceError
from pipeline.models.repeat_purchase.features import FEATURES

EXAMPLES_A_TREE = 50
"""Number of pairs taken again that each tree needs; with fewer, trees overfit to single users."""
_COUNT = FEATURES.index("own_90")
_LEAST_COUNT = 1e-6
_STEPS = 25
_TINY = np.finfo(np.float32).tiny
_NUMBERS = ("leaf_value=", "threshold=")


@dataclass(frozen=True)
class Trees:
    """Trained trees.

    Attributes
    ----------
    text
        LightGBM's own text of the trees.
    line
        ``(2,)`` float64: a and b of the formula.
    """

    text: str
    line: NDArray[np.float64]

    def chances(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(n,)`` float32 in (0, 1], one per row of features."""
        booster = _library().Booster(model_str=self.text)
        odds = booster.predict(rows, raw_score=True, num_threads=1)
        probability = expit(odds + self.line[0] + self.line[1] * _log_counts(rows))
        chances: NDArray[np.float32] = np.maximum(probability, _TINY).astype(np.float32)
        return chances

    @property
    def parameters(self) -> int:
        """Number of learnt numbers: thresholds, values of leaves and the line."""
        lines = (line for line in self.text.splitlines() if line.startswith(_NUMBERS))
        return sum(len(line.split()) for line in lines) + 2


def grow(
    rows: NDArray[np.float32],
    again: NDArray[np.bool_],
    *,
    kept_share: float,
    iterations: int,
    learning_rate: float,
    leaves: int,
) -> Trees:
    """Train trees for the log loss of `again`.

    Parameters
    ----------
    rows
        ``(n, len(FEATURES))`` float32, NaN for an undefined feature.
    again
        ``(n,)`` bool, both values among them.
    kept_share
        Of the pairs that were not taken again, the share that is in `rows`. The chances are
        corrected for the pairs that are not.
    iterations, learning_rate, leaves
        Number of trees, factor on each tree, and maximum number of leaves of a tree.

    Raises
    ------
    ResourceError
        `extra.lightgbm_missing` or `extra.lightgbm_broken`: LightGBM is not installed, or its
        OpenMP runtime is missing.
    """
    lightgbm = _library()
    order = _by_content(rows, again)
    rows, again = rows[order], again[order]
    line = _line(_log_counts(rows), again)
    parameters = {
        "objective": "binary",
        "learning_rate": learning_rate,
        "num_leaves": leaves,
        "min_sum_hessian_in_leaf": 20.0,
        "feature_fraction": 0.5,  # other features for each tree, the same ones every night
        "max_bin": 63,
        "bin_construct_sample_cnt": len(rows),  # all rows, because a sample would be random
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,  # sums in one order; on busy cores its threads mostly wait for each other
        "seed": 0,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(
        rows,
        again.astype(np.float32),
        init_score=line[0] + line[1] * _log_counts(rows),
        params=parameters,
    )
    booster = lightgbm.train(parameters, data, num_boost_round=iterations)
    line[0] += np.log(kept_share)  # thinning the negatives multiplied the odds by 1 / kept_share
    return Trees(booster.model_to_string(), line)


def _log_counts(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    counts: NDArray[np.float64] = np.log(rows[:, _COUNT].astype(np.float64) + _LEAST_COUNT)
    return counts


def _line(x: NDArray[np.float64], again: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit ``log odds = a + b · x`` by Newton's method, from the mean odds and no slope."""
    centre = x.mean()
    x = x - centre
    share = again.mean()
    a, b = float(np.log(share / (1 - share))), 0.0
    # Sums are numpy's, whose order does not depend on threads as that of the BLAS does.
    for _ in range(_STEPS):
        chance = expit(a + b * x)
        off, doubt = again - chance, chance * (1 - chance)
        # A unit penalty on b keeps the fit finite if counts separate the labels perfectly.
        left = np.array([[doubt.sum(), (doubt * x).sum()], [0.0, (doubt * x * x).sum() + 1.0]])
        left[1, 0] = left[0, 1]
        step = np.linalg.solve(left, [off.sum(), (off * x).sum() - b])
        a, b = a + float(np.clip(step[0], -1, 1)), b + float(np.clip(step[1], -1, 1))
    return np.array([a - b * centre, b])


def _by_content(rows: NDArray[np.float32], again: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return an order of the rows that depends on their content alone."""
    # The order of the rows changes rounding, and so the last bits of the trees. Rows are sorted by
    # a hash of 64 bits; two different rows with the same hash are unlikely below 2^30 rows.
    key = again.astype(np.uint64)
    for column in np.ascontiguousarray(rows).view(np.uint32).T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return np.argsort(key, kind="stable")


def _library() -> Any:
    """Return LightGBM, or raise `ResourceError`."""
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise ResourceError(
            "extra.lightgbm_missing", "lightgbm is not installed; run `make setup`"
        ) from error
    except OSError as error:  # from the loader: LightGBM is linked against a missing library
        raise ResourceError(
            "extra.lightgbm_broken", f"lightgbm cannot be loaded ({error}); run `make setup`"
        ) from error
    return lightgbm
