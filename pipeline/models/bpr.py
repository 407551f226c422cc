"""Bayesian personalised ranking: items of a user rank above the others, learnt pair by pair.

Guarantees: start vectors belong to item ids and users start at zero; the order of the sampled pairs
comes from the seed, and several threads race, so equal data may give other lists. A user's vector
comes out of the same descent: users outside the training window have none.

By implicit (Rendle et al. 2009): for a user u, an item i of u and another item j, a step up of
``log σ(u·(v_i − v_j))``. implicit draws j in proportion to its number of users. With such negative
samples the best possible score is ``log p(i | u) − log p(i)``, which lacks popularity (Yi et al.
2019); so the log of an item's number of users is added to its bias after training. On check-ins
this doubles recall.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.contract import FAMILY, Capabilities, Recipe, Scorer, Span
from pipeline.models.factor_scorer import StoredScorer, iteration_callback, stored
from pipeline.models.gpu_driver import import_implicit
from pipeline.models.keyed_random import keyed_normal, keyed_seed

_SPREAD = np.float32(1 / np.sqrt(12))
"""Times 1/f: standard deviation of a start vector's entries; implicit's own starts are as wide."""
_NO_USER = 0.5
"""Number of users of an item that all users returned: its log is below that of one user."""


class BprScorer(StoredScorer):
    """Factors of items and of the users known from training; it cannot score other users.

    An item's row is its vector and its bias with the log of popularity; a user's row is the vector
    and 1, or all 0 for a user who returned everything.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=False, deterministic=False)

    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Raise `KeyError`: a user vector is learnt in training only."""
        raise KeyError(
            f"{history.n_users} users were not in the training window, so bpr cannot score them"
        )


class Bpr(Recipe):
    """Bayesian personalised ranking (Rendle et al. 2009)."""

    scorer: ClassVar[type[Scorer]] = BprScorer
    hash_excluded: ClassVar[frozenset[str]] = frozenset({"threads"})
    space: ClassVar[Mapping[str, Span]] = {
        "iterations": Span((75, 150, 300), 10, 500),
        "learning_rate": Span((0.05, 0.1, 0.2), 0.005, 0.5),
        "regularization": Span((0.0025, 0.005, 0.01, 0.02), 0.0005, 0.1),
    }

    family: Literal["bpr"] = Field(default="bpr", description=FAMILY)
    factors: int = Field(default=128, ge=1, le=1024, description="Length of a factor vector.")
    learning_rate: float = Field(default=0.1, gt=0, le=1, description="Length of a step.")
    regularization: float = Field(
        default=0.005, ge=0, le=1, description="L2 penalty per step on every vector and bias."
    )
    iterations: int = Field(
        default=150, ge=1, le=10_000, description="Rounds of as many pairs as the window has cells."
    )
    verify_negative_samples: bool = Field(
        default=True, description="Skip a negative sample that the user has as well."
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="Threads of training; with several, results vary."
    )
    random_state: int = Field(default=0, ge=0, description="Seed of start vectors and pairs.")

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of the events during their sum, and the fit.

        The fit holds the cells with the user of each, and the vectors.
        """
        fit = int(history.seen.nnz) * 16 + 2 * self.fitted_bytes(history)
        return max(len(history.item) * 16, fit)

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the vectors, each with a bias."""
        return (history.n_users + history.n_items) * (self.factors + 1) * 4

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Fit, then add the log of popularity to the item biases.

        Raises
        ------
        ConfigError
            `model.diverged`: the fit did not stay finite.
        """
        cells = history.confidence(None)  # only the pattern counts: BPR samples pairs, not weights
        items, users = self._fit(history, cells, replicate, progress)
        if not (np.isfinite(items).all() and np.isfinite(users).all()):
            raise ConfigError(
                "model.diverged",
                f"bpr: the factors did not stay finite; lower learning_rate ({self.learning_rate})"
                f" or raise regularization ({self.regularization})",
            )
        user_counts = np.bincount(cells.indices, minlength=history.n_items)
        items[:, -1] += np.log(np.maximum(user_counts, _NO_USER))
        # The 1 in the last column would give a user without items a list of popular items.
        users[np.diff(cells.indptr) == 0] = 0.0
        return BprScorer(
            item_factors=items, **stored(history.user_ids, users), **self.window(history)
        )

    def _fit(
        self, history: History, cells: sp.csr_matrix, replicate: int, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return items ``(n_items, f + 1)`` and users ``(n_users, f + 1)``, biases last."""
        import_implicit()
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from implicit.recommender_base import ModelFitError

        key = f"bpr|item|{self.random_state}|{replicate}"
        items = keyed_normal(history.item_ids, self.factors + 1, key=key)
        items *= _SPREAD / np.float32(self.factors)
        items[:, -1] = 0.0
        users = np.zeros((history.n_users, self.factors + 1), np.float32)
        users[:, -1] = 1.0  # implicit keeps it at 1, so an item's last column is its bias
        if not cells.nnz:
            return items, users
        model = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            verify_negative_samples=self.verify_negative_samples,
            num_threads=self.threads,
            random_state=keyed_seed(key),
        )
        model.item_factors, model.user_factors = items, users  # trained in place
        report = iteration_callback("bpr", self.iterations, progress)
        with contextlib.suppress(ModelFitError):  # `train` checks the factors itself
            model.fit(cells, show_progress=False, callback=report)
        return items, users
