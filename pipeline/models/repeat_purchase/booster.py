"""Boosted trees on top of own decayed counts, by LightGBM; their text is all that is kept.

Promises: equal rows, in whatever order, give the same text to the byte, on any number of cores. The
trees are always read back from their text, in the process that grew them too. Without trees, rows
stand in the order of their counts: trees correct that order as far as the examples vouch for it.

The chance that a pair is taken again, with c its own count decayed by 90 days::

    log odds = a + b · log(c) + sum over the trees of their leaf for the pair's features

a and b by maximum likelihood, the trees by gradient boosting (Friedman 2001; Ke et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.errors import ResourceError
from pipeline.models.repeat_purchase.features import FEATURES

EXAMPLES_A_TREE = 50
"""Pairs taken again that vouch for one tree: with fewer the trees learn their people by heart."""
_COUNT = FEATURES.index("own_90")
_LEAST_COUNT = 1e-6
_STEPS = 25
_TINY = np.finfo(np.float32).tiny
_TEXT, _LINE = "trees", "line"
_NUMBERS = ("leaf_value=", "threshold=")


@dataclass(frozen=True)
class Trees:
    """What was grown.

    Attributes
    ----------
    text
        LightGBM's own text of the trees.
    line
        ``(2,)`` float64: a and b of the formula.
    """

    text: str
    line: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as arrays, the text as UTF-8; `read` turns it back."""
        return {_TEXT: np.frombuffer(self.text.encode(), np.uint8), _LINE: self.line}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]]) -> Trees | None:
        """Rebuild from `arrays`; ``None`` where they hold none."""
        if _TEXT not in arrays:
            return None
        return cls(arrays[_TEXT].tobytes().decode(), arrays[_LINE])

    def chances(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return ``(n,)`` float32 in (0, 1], one a row of features."""
        booster = _library().Booster(model_str=self.text)
        odds = booster.predict(rows, raw_score=True, num_threads=1)
        probability = expit(odds + self.line[0] + self.line[1] * _log_counts(rows))
        chances: NDArray[np.float32] = np.maximum(probability, _TINY).astype(np.float32)
        return chances

    @property
    def parameters(self) -> int:
        """How many numbers were learnt: thresholds, values of leaves and the line."""
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
    """Grow trees for the log loss of `again`.

    Parameters
    ----------
    rows
        ``(n, len(FEATURES))`` float32, NaN where nothing is known.
    again
        ``(n,)`` bool, both values among them.
    kept_share
        Share of the pairs not taken again that `rows` holds; the chances are those of all pairs.
    iterations, learning_rate, leaves
        Number of trees, the part of each that counts, and the leaves of one.

    Raises
    ------
    ResourceError
        LightGBM is not installed, or its OpenMP runtime is not there.
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
        "feature_fraction": 0.5,  # for each tree others, by a fixed seed: alike every night
        "max_bin": 63,
        "bin_construct_sample_cnt": len(rows),  # a sample would be a draw
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
    line[0] += np.log(kept_share)
    return Trees(booster.model_to_string(), line)


def _log_counts(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    counts: NDArray[np.float64] = np.log(rows[:, _COUNT].astype(np.float64) + _LEAST_COUNT)
    return counts


def _line(x: NDArray[np.float64], again: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit ``log odds = a + b · x`` by Newton's method, from the mean odds and no slope.

    Sums are numpy's, whose order does not depend on threads as that of BLAS does.
    """
    centre = x.mean()
    x = x - centre
    share = again.mean()
    a, b = float(np.log(share / (1 - share))), 0.0
    for _ in range(_STEPS):
        chance = expit(a + b * x)
        off, doubt = again - chance, chance * (1 - chance)
        left = np.array([[doubt.sum(), (doubt * x).sum()], [0.0, (doubt * x * x).sum() + 1.0]])
        left[1, 0] = left[0, 1]
        step = np.linalg.solve(left, [off.sum(), (off * x).sum() - b])
        a, b = a + float(np.clip(step[0], -1, 1)), b + float(np.clip(step[1], -1, 1))
    return np.array([a - b * centre, b])


def _by_content(rows: NDArray[np.float32], again: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return an order of the rows that depends on what is in them alone.

    Rounding, and so the last bits of the trees, follow the order of rows. They are sorted by a hash
    of 64 bits: rows that differ and share theirs are not to be expected below 2^30 rows.
    """
    key = again.astype(np.uint64)
    for column in np.ascontiguousarray(rows).view(np.uint32).T:
        key = (key ^ column) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    return np.argsort(key, kind="stable")


def _library() -> Any:
    """Return LightGBM, or say in one sentence why it is not there."""
    try:
        import lightgbm
    except ModuleNotFoundError as error:
        raise ResourceError(
            "extra.lightgbm_missing", "lightgbm is not installed; run make setup"
        ) from error
    except OSError as error:  # the loader's: a library that LightGBM is linked against
        raise ResourceError(
            "extra.lightgbm_broken", f"lightgbm cannot be loaded ({error}); run make setup"
        ) from error
    return lightgbm
