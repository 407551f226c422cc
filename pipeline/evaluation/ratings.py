"""How far predicted ratings lie from those that people gave in the holdout.

Promises: only pairs whose user and item the scorer knows are judged, and their number is told;
every rating counts alike; what a scorer does not call a rating is never read as one.

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
"""Number of ratings judged."""


def rating_errors(scorer: Scorer, history: History, ratings: pl.DataFrame) -> dict[str, float]:
    """Return RMSE, MAE and the number of ratings judged; without any, the number alone.

    Parameters
    ----------
    scorer
        Declares `ratings`; its scores are factors alone, all zero for a user it knows nothing of.
    history
        The training window, users sorted.
    ratings
        `user_id`, `item_id`, `value`; pairs of unknown users or items are left out.
    """
    user, known_user = find(history.user_ids, _texts(ratings[c.USER_ID]))
    item, known_item = find(history.item_ids, _texts(ratings[c.ITEM_ID]))
    known = known_user & known_item
    given = ratings[c.VALUE].to_numpy()[known]
    predicted = _predicted(scorer, history, user[known], item[known])
    off = (predicted - given)[~np.isnan(predicted)]
    if not len(off):
        return {RATINGS: 0.0}
    return {
        RMSE: float(np.sqrt(np.mean(off**2))),
        MAE: float(np.mean(np.abs(off))),
        RATINGS: float(len(off)),
    }


def _predicted(
    scorer: Scorer, history: History, user: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.float64]:
    """``(n,)`` float64, NaN where nothing is known of the user."""
    predicted = np.full(len(user), np.nan)
    rows, row = np.unique(user, return_inverse=True)
    for start in range(0, len(rows), AT_ONCE):
        scores = scorer.score(history.take(rows[start : start + AT_ONCE]))
        if scores.users is None or scores.items is None:
            raise GateError(
                "evaluate.ratings_without_factors",
                "a model says that it predicts ratings and gives no factors",
            )
        here = np.flatnonzero((row >= start) & (row < start + AT_ONCE))
        users = scores.users[row[here] - start].astype(np.float64)
        known = users.any(axis=1)
        here = here[known]
        predicted[here] = np.einsum("nf,nf->n", users[known], scores.items[item[here]])
    return predicted


def _texts(ids: pl.Series) -> NDArray[np.str_]:
    return np.asarray(ids.to_list(), dtype=np.str_)
