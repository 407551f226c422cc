"""Errors of predicted ratings against the ratings of the holdout.

Guarantees: only pairs whose user and item are known to the scorer count, and their number is
reported; every rating counts alike; only a scorer that declares ratings is evaluated.

* RMSE = √(mean of (predicted − given)²);
* MAE = mean of |predicted − given|.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline import columns as c
from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.evaluation.holdout import AT_ONCE, find
from pipeline.models.contract import Scorer

RMSE: Final = "rmse"
MAE: Final = "mae"
RATINGS: Final = "ratings"
"""Name of the number of evaluated ratings."""


def rating_errors(scorer: Scorer, history: History, ratings: pl.DataFrame) -> dict[str, float]:
    """Return RMSE, MAE and the number of evaluated ratings; without any, only the number.

    Parameters
    ----------
    scorer
        Declares `ratings`; its scores are products of factors alone, which are 0 for an unknown
        user.
    history
        The training window, users sorted.
    ratings
        `user_id`, `item_id`, `value`; pairs of unknown users or items are left out.

    Returns
    -------
    dict
        `rmse`, `mae`, `ratings`.

    Raises
    ------
    GateError
        `evaluate.ratings_without_factors`: the scorer has no factors.
    """
    user, user_present = find(history.user_ids, _texts(ratings[c.USER_ID]))
    item, item_present = find(history.item_ids, _texts(ratings[c.ITEM_ID]))
    present = user_present & item_present
    given = ratings[c.VALUE].to_numpy()[present]
    predicted = _predicted(scorer, history, user[present], item[present])
    errors = (predicted - given)[~np.isnan(predicted)]
    if not len(errors):
        return {RATINGS: 0.0}
    return {
        RMSE: float(np.sqrt(np.mean(errors**2))),
        MAE: float(np.mean(np.abs(errors))),
        RATINGS: float(len(errors)),
    }


def _predicted(
    scorer: Scorer, history: History, user: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return predictions, ``(n,)`` float64; NaN for a user without factors."""
    predicted = np.full(len(user), np.nan)
    # Each user is scored once, however many ratings there are.
    rows, row = np.unique(user, return_inverse=True)
    for start in range(0, len(rows), AT_ONCE):
        scores = scorer.score(history.take(rows[start : start + AT_ONCE]))
        if scores.users is None or scores.items is None:
            raise GateError(
                "evaluate.ratings_without_factors",
                f"{type(scorer).__name__} declares ratings, but its scores have no factors; "
                "correct its capabilities",
            )
        here = np.flatnonzero((row >= start) & (row < start + AT_ONCE))
        users = scores.users[row[here] - start].astype(np.float64)
        # A user without ratings has factors of 0, whose product is not a prediction.
        has_factors = users.any(axis=1)
        here = here[has_factors]
        predicted[here] = np.einsum("nf,nf->n", users[has_factors], scores.items[item[here]])
    return predicted


def _texts(ids: pl.Series) -> NDArray[np.str_]:
    return np.asarray(ids.to_list(), dtype=np.str_)
