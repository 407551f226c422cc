"""Pairs: what a user has shall stand before what they have not, learnt one pair at a time.

Promises: start vectors belong to item ids and users start at zero; the order of the sampled pairs
comes from the seed, and more than one thread race, so equal data may give other lists. A user's
vector comes out of the same descent: whoever was not in the window has none.

Bayesian personalised ranking (Rendle et al. 2009) by implicit: for a user u, an item i that they
have and an item j that they have not, a step up of ``log σ(u·(v_i − v_j))``. implicit draws j as
often as people have it. Against such rivals the best possible score is ``log p(i | u) − log p(i)``,
from which popularity is missing (Yi et al. 2019); so the log of how many people have an item is
added to its bias once trained. On check-ins this doubles recall.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.contract import Capabilities, Recipe, Scorer, Scores, Span
from pipeline.models.factor_scorer import StoredScorer, stored
from pipeline.models.keyed_random import keyed_normal

_SPREAD = np.float32(1 / np.sqrt(12))
"""Times 1/f: standard deviation of a start vector's entries; implicit's own starts are as wide."""
_NO_USER = 0.5
"""How many people an item counts that everybody gave back: its log stands below that of one."""


class BprScorer(StoredScorer):
    """Factors of items and of the users known from training; it cannot score anybody else.

    An item's row is its vector and its bias with the log of popularity; a user's is their vector
    and 1, or all 0 for whoever gave everything back.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(fold_in=False, deterministic=False)

    def fold_in(self, history: History) -> Scores:
        """Raise `KeyError`: a vector of one's own takes training."""
        self.check(history)
        return Scores(self.factors_of_others(history), self.item_factors)

    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Raise `KeyError`: a vector of one's own takes training."""
        raise KeyError(
            f"{history.n_users} users were not in the training window, so bpr cannot score them"
        )


class Bpr(Recipe):
    """Bayesian personalised ranking (Rendle et al. 2009)."""

    capabilities: ClassVar[Capabilities] = BprScorer.capabilities
    scorer: ClassVar[type[Scorer]] = BprScorer
    hash_excluded: ClassVar[frozenset[str]] = frozenset({"threads"})
    space: ClassVar[Mapping[str, Span]] = {
        "iterations": Span((75, 150, 300), 10, 500),
        "learning_rate": Span((0.05, 0.1, 0.2), 0.005, 0.5),
        "regularization": Span((0.0025, 0.005, 0.01, 0.02), 0.0005, 0.1),
    }

    family: Literal["bpr"] = Field(default="bpr", description="Name of the family.")
    factors: int = Field(default=128, ge=1, le=1024, description="Length of a vector.")
    learning_rate: float = Field(default=0.1, gt=0, le=1, description="Length of a step.")
    regularization: float = Field(
        default=0.005, ge=0, le=1, description="Pull of every vector and bias towards 0, a step."
    )
    iterations: int = Field(
        default=150, ge=1, le=10_000, description="Rounds of as many pairs as the window has cells."
    )
    verify_negative_samples: bool = Field(
        default=True, description="Whether a rival that the user has, too, is drawn for nothing."
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="Threads that train; more than one race."
    )
    random_state: int = Field(default=0, ge=0, description="Seed of the start and of the pairs.")

    def peak_bytes(self, history: History) -> int:
        """The events while they are summed; or cells with the user of each, and the vectors."""
        rows = history.n_users + history.n_items
        vectors = rows * (self.factors + 1) * 8
        return max(len(history.item) * 16, int(history.seen.nnz) * 16 + vectors)

    def fitted_bytes(self, history: History) -> int:
        """The vectors, a bias with each."""
        return (history.n_users + history.n_items) * (self.factors + 1) * 4

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> BprScorer:
        """Fit, then give items their popularity back.

        Raises
        ------
        ConfigError
            The fit did not stay finite.
        """
        cells = history.confidence(None)  # how much of it counts for nothing: a pair is a pair
        items, users = self._fit(history, cells, replicate, progress)
        if not (np.isfinite(items).all() and np.isfinite(users).all()):
            raise ConfigError(
                "model.diverged",
                f"bpr: the factors did not stay finite; lower learning_rate ({self.learning_rate})"
                f" or raise regularization ({self.regularization})",
            )
        people = np.bincount(cells.indices, minlength=history.n_items)
        items[:, -1] += np.log(np.maximum(people, _NO_USER))
        users[np.diff(cells.indptr) == 0] = 0.0
        return BprScorer(
            item_factors=items,
            **stored(history.user_ids, users),
            item_ids=history.item_ids,
            trained_until=history.end,
        )

    def _fit(
        self, history: History, cells: sp.csr_matrix, replicate: int, progress: Progress
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return items ``(n_items, f + 1)`` and users ``(n_users, f + 1)``, biases last."""
        from implicit.cpu.bpr import BayesianPersonalizedRanking
        from implicit.recommender_base import ModelFitError

        key = f"bpr|item|{self.random_state}|{replicate}"
        items = keyed_normal(history.item_ids, self.factors + 1, key=key)
        items *= _SPREAD / np.float32(self.factors)
        items[:, -1] = 0.0
        users = np.zeros((history.n_users, self.factors + 1), np.float32)
        users[:, -1] = 1.0
        if not cells.nnz:
            return items, users

        def report_iteration(done: int, *_: object) -> None:
            progress(f"bpr: iteration {done + 1} of {self.iterations}")

        model = BayesianPersonalizedRanking(
            factors=self.factors,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            iterations=self.iterations,
            verify_negative_samples=self.verify_negative_samples,
            num_threads=self.threads,
            random_state=int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little"),
        )
        model.item_factors, model.user_factors = items, users  # trained in place
        with contextlib.suppress(ModelFitError):  # `train` looks at the factors itself
            model.fit(cells, show_progress=False, callback=report_iteration)
        return items, users
