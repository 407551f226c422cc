"""LightFM: items and users as sums of their features' vectors, learnt by ranking.

Promises: an item, or a user, is the sum of a vector of its own and those of its features (Kula
2015), so one without any event is answered for by its features alone; the sums are kept, not the
features. With one thread equal data give equal bytes; several race, and the steps of the descent
follow the order of users, so the family declares itself not deterministic.

The score is ``u·v + b[item]``, the bias as one more factor; a user's own bias moves no list. WARP
(Weston, Bengio and Usunier 2011) samples items until it finds one that is scored too high, BPR
(Rendle et al. 2009) takes any; both weigh an example by its confidence. `logistic` has nothing to
learn from likes alone: it takes what was seen and not kept, or rated low, as dislikes.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import History
from pipeline.errors import ConfigError, ResourceError
from pipeline.models.contract import Capabilities, Recipe, Scorer, Scores, Span
from pipeline.models.factor_scorer import StoredScorer, stored
from pipeline.models.feature_map import FeatureMap
from pipeline.models.keyed_random import keyed_normal


@dataclass(frozen=True, eq=False, kw_only=True)
class LightFmScorer(StoredScorer):
    """Representations of items and of the users known from training; features speak for the others.

    An item's row is its vector and its bias; a user's is their vector and 1, or all 0 where nothing
    was known.

    Attributes
    ----------
    user_map
        What features say of a user, ``None`` where training had none.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(fold_in=False, deterministic=False)

    user_map: FeatureMap | None

    def fold_in(self, history: History) -> Scores:
        """Raise `KeyError`: a vector of one's own takes training."""
        self.check(history)
        raise KeyError(f"{history.n_users:,} users to fold in; LightFM cannot")

    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Add up each user's features; raise `KeyError` where one has none."""
        users = np.zeros((history.n_users, self.item_factors.shape[1]), np.float32)
        if self.user_map is not None and history.user_features is not None:
            users = self.user_map.factors(_evened(history.user_features))
        if unknown := int((~users.any(axis=1)).sum()):
            raise KeyError(f"{unknown:,} users not known from training, nor by any feature")
        return users


class LightFm(Recipe):
    """Factors of ids and features, learnt by ranking (Kula 2015)."""

    capabilities: ClassVar[Capabilities] = LightFmScorer.capabilities
    scorer: ClassVar[type[Scorer]] = LightFmScorer
    hash_excluded: ClassVar[frozenset[str]] = frozenset({"threads"})
    space: ClassVar[Mapping[str, Span]] = {
        "iterations": Span((5, 10, 20, 40), 1, 100),
        "learning_rate": Span((0.01, 0.02, 0.05, 0.1), 0.001, 0.5),
        "half_life_days": Span((15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
    }

    family: Literal["lightfm"] = Field(default="lightfm", description="Name of the family.")
    loss: Literal["warp", "bpr", "logistic"] = Field(
        default="warp", description="What is learnt: the top of a list, any order, or likes."
    )
    factors: int = Field(default=64, ge=1, le=1024, description="Length of a vector.")
    iterations: int = Field(default=15, ge=1, le=1000, description="Rounds of training.")
    learning_rate: float = Field(
        default=0.05, gt=0, le=1, description="First step of the descent (Adagrad)."
    )
    regularization: float = Field(
        default=0.0, ge=0, le=0.1, description="Weight of the squared length of all vectors."
    )
    max_sampled: int = Field(
        default=20, ge=1, le=1000, description="Items that WARP tries for an example."
    )
    half_life_days: float | None = Field(
        default=90.0, gt=0, le=3650, description="Days after which an event counts half, if ever."
    )
    threads: int = Field(default=1, ge=1, le=64, description="Threads that train; several race.")
    random_state: int = Field(default=0, ge=0, description="Seed of the start and of all samples.")

    def peak_bytes(self, history: History) -> int:
        """Vectors with their gradients and momenta, and the examples in every form."""
        rows = history.n_users + history.n_items
        features = 0
        for known in (history.item_features, history.user_features):
            if known is not None:
                rows += len(known.names)
                features += known.cells.nnz
        return rows * (self.factors + 1) * 16 + len(history.item) * 60 + features * 24

    def fitted_bytes(self, history: History) -> int:
        """The vectors, a bias with each."""
        return (history.n_users + history.n_items) * (self.factors + 1) * 4

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> LightFmScorer:
        """Fit, then add up what each item and each user is made of.

        Raises
        ------
        ResourceError
            LightFM is not installed.
        ConfigError
            The fit did not stay finite.
        """
        cells = history.confidence(self.half_life_days)
        others = history.cold_items
        item_parts = _parts(history.n_items, history.item_features, others)
        user_parts = _parts(history.n_users, history.user_features)
        model = self._started(history, item_parts.shape[1], user_parts.shape[1], replicate)
        examples = _examples(history, cells, self.loss)
        self._fit(model, examples, item_parts[: history.n_items], user_parts, progress)
        vectors = np.hstack([model.item_embeddings, model.item_biases[:, None]])
        item_ids = history.item_ids
        if others is not None:
            item_ids = np.concatenate([item_ids, others.ids])
        users = user_parts @ np.pad(model.user_embeddings, ((0, 0), (0, 1)))
        users[:, -1] = 1.0
        # Of whoever took everything back, and is described by nothing, nothing is known.
        empty_users = np.diff(cells.indptr) == 0
        of_users = None
        if history.user_features is not None:
            empty_users &= np.diff(history.user_features.cells.indptr) == 0
            weights = np.pad(model.user_embeddings[history.n_users :], ((0, 0), (0, 1)))
            alone = np.eye(1, self.factors + 1, self.factors, np.float32)[0]
            of_users = FeatureMap(history.user_features.names, weights, alone, 0.0)
        users[empty_users] = 0.0
        order = np.argsort(item_ids)
        return LightFmScorer(
            item_factors=(item_parts @ vectors)[order],
            **stored(history.user_ids, users),
            user_map=of_users,
            item_ids=item_ids[order],
            trained_until=history.end,
        )

    def _started(self, history: History, n_items: int, n_users: int, replicate: int) -> Any:
        """Return a model whose vectors belong to ids and names; users start at 0."""
        key = f"lightfm|{self.random_state}|{replicate}"
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "little")
        model = library()(
            no_components=self.factors,
            loss=self.loss,
            learning_rate=self.learning_rate,
            item_alpha=self.regularization,
            user_alpha=self.regularization,
            max_sampled=self.max_sampled,
        )
        model._initialize(self.factors, n_items, n_users)
        model.random_state = np.random.RandomState(seed)  # as if it had drawn no start
        spread = np.float32(1 / (np.sqrt(12) * self.factors))  # of LightFM's own start
        model.user_embeddings[:] = 0.0
        items = [
            history.item_ids,
            *(() if history.item_features is None else [history.item_features.names]),
        ]
        drawn = keyed_normal(np.concatenate(items), self.factors, key=f"{key}|item")
        model.item_embeddings[:] = drawn * spread
        if history.user_features is not None:
            drawn = keyed_normal(history.user_features.names, self.factors, key=f"{key}|user")
            model.user_embeddings[history.n_users :] = drawn * spread
        return model

    def _fit(
        self,
        model: Any,
        examples: tuple[sp.coo_matrix, sp.coo_matrix],
        item_parts: sp.csr_matrix,
        user_parts: sp.csr_matrix,
        progress: Progress,
    ) -> None:
        interactions, weights = examples
        if not interactions.nnz:
            return
        for done in range(self.iterations):
            progress(f"lightfm: iteration {done + 1} of {self.iterations}")
            try:
                with np.errstate(all="ignore"):  # it looks at its sums itself
                    model.fit_partial(
                        interactions, user_parts, item_parts, weights, num_threads=self.threads
                    )
            except ValueError as error:
                if "finite" not in str(error):
                    raise
                raise ConfigError(
                    "model.diverged",
                    "lightfm: the vectors did not stay finite; lower learning_rate "
                    f"({self.learning_rate:g})",
                ) from error


def library() -> Any:
    """Return LightFM's class; `ResourceError` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # built without OpenMP it says so: one thread will do
            from lightfm import LightFM
    except ImportError as error:
        raise ResourceError(
            "extra.lightfm_missing",
            "lightfm is not installed; `make lightfm` builds the extra 'lightfm' from its source, "
            "with a C compiler and Python's headers",
        ) from error
    return LightFM


def _examples(
    history: History, cells: sp.csr_matrix, loss: str
) -> tuple[sp.coo_matrix, sp.coo_matrix]:
    """Return likes (1) and, for `logistic`, dislikes (−1), and what each example weighs."""
    likes = cells.tocoo()
    row, column, value = likes.row, likes.col, np.ones(likes.nnz, np.float32)
    weight = likes.data / likes.data.mean() if likes.nnz else likes.data
    if loss == "logistic":
        disliked = (history.seen - cells.sign()).tocoo()
        bad = disliked.data > 0
        row = np.concatenate([row, disliked.row[bad]])
        column = np.concatenate([column, disliked.col[bad]])
        value = np.concatenate([value, np.full(bad.sum(), -1, np.float32)])
        weight = np.concatenate([weight, np.ones(bad.sum(), np.float32)])
    place = (row.astype(np.int32), column.astype(np.int32))
    interactions = sp.coo_matrix((value, place), shape=cells.shape)
    return interactions, sp.coo_matrix((weight.astype(np.float32), place), shape=cells.shape)


def _parts(n: int, known: FeatureMatrix | None, others: ColdItems | None = None) -> sp.csr_matrix:
    """Return what each row is made of: itself, and its features; of `others`, features alone."""
    parts = sp.identity(n, np.float32, format="csr")
    if known is not None:
        parts = sp.hstack([parts, _evened(known).cells], format="csr")
    if others is not None:
        blank = sp.csr_matrix((len(others.ids), n), dtype=np.float32)
        more = sp.hstack([blank, _evened(others.known).cells], format="csr")
        parts = sp.vstack([parts, more], format="csr")
    return parts


def _evened(known: FeatureMatrix) -> FeatureMatrix:
    """Scale each row so that the sizes of its cells sum to 1: a row of many is not louder."""
    cells = known.cells.copy()
    size = np.asarray(np.abs(cells).sum(axis=1)).ravel()
    cells.data /= np.repeat(size, np.diff(cells.indptr))
    return FeatureMatrix(known.names, cells)
