"""LightFM: items and users as sums of their features' vectors, learnt by ranking.

Guarantees: the vector of an item or user is the sum of a vector of its own and those of its
features (Kula 2015), so one without events is scored by its features alone; the sums are stored,
not the features. A user with events has the vector that fold-in gives for the same events, also in
the scorer that is stored. With one thread equal data give equal bytes; several threads race, and
the steps of the descent follow the order of users, so the family is declared not deterministic.

The score is ``u·v + b[item]``, the bias as one more factor; a user's own bias changes no list. WARP
(Weston, Bengio and Usunier 2011) samples items until one is scored too high, BPR (Rendle et al.
2009) takes any item; both weigh an example by its confidence. `logistic` needs dislikes: items that
were seen and returned, or rated low.

Fold-in solves a user by least squares for the fixed vectors of the items (`als.solve_users`). These
aim at 0 and 1 and not at an order, so one linear map, learnt from users of the window, turns their
solution into a vector of the descent. The biases of the items are part of the scores only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.feature_matrix import ColdItems, FeatureMatrix
from pipeline.data.matrix import History
from pipeline.errors import ConfigError, ResourceError
from pipeline.models.als import solve_users
from pipeline.models.contract import FAMILY, Capabilities, HalfLife, Recipe, Scorer, Span
from pipeline.models.factor_scorer import StoredScorer, stored
from pipeline.models.feature_map import FeatureMap, learn_map
from pipeline.models.keyed_random import keyed_normal, keyed_seed

_Matrices = tuple[sp.spmatrix, sp.spmatrix]
"""Examples and their weights, or the summands of users and of items."""


_ALPHA, _PENALTY = 10.0, 0.3
"""Mean confidence of a cell in the least squares, and their L2 penalty as a share of the mean
diagonal of VᵀV. `benchmarks/foldin.py --part parity --recipe lightfm` prints what they give."""
_MAP_PENALTY = 0.01
"""L2 penalty of the map, as a share of the mean diagonal of its squares."""
_MAP_USERS = 10_000
"""Maximum number of users that the map is learnt from."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LightFmScorer(StoredScorer):
    """Vectors of items and of the users known from training; other users are folded in.

    An item's row is its vector and its bias; a user's row is the vector and 1, or all 0 for a user
    without events and features.

    Attributes
    ----------
    user_map
        Map from features of a user to a vector; ``None`` if training had no features of users.
    solution_map
        Map from the least squares of a user's events to the rest of the vector.
    half_life_days
        As in the recipe.
    scale
        Factor on the cells of `History.confidence`; fixed in training.
    """

    declared: ClassVar[Capabilities] = Capabilities(fold_in=True, deterministic=False)

    user_map: FeatureMap | None
    solution_map: FeatureMap
    half_life_days: float | None
    scale: float

    def factors_of_others(self, history: History) -> NDArray[np.float32]:
        """Add what events and features of a user give; 0 for a user without either."""
        # Ages are measured at the end of training, as in ALS.
        cells = replace(history, end=self.trained_until).confidence(self.half_life_days)
        users = self.solution_map.factors(_solved(self.item_factors, cells, self.scale))
        if self.user_map is not None and history.user_features is not None:
            users += self.user_map.factors(_evened(history.user_features))
        np.minimum(users[:, -1], 1.0, out=users[:, -1])
        return users


class LightFm(Recipe):
    """Factors of ids and features, learnt by ranking (Kula 2015)."""

    scorer: ClassVar[type[Scorer]] = LightFmScorer
    hash_excluded: ClassVar[frozenset[str]] = frozenset({"threads"})
    space: ClassVar[Mapping[str, Span]] = {
        "iterations": Span((5, 10, 20, 40), 1, 100),
        "learning_rate": Span((0.01, 0.02, 0.05, 0.1), 0.001, 0.5),
        "half_life_days": Span((15.0, 30.0, 60.0, 120.0, 365.0), 3.0, 1000.0),
    }

    family: Literal["lightfm"] = Field(default="lightfm", description=FAMILY)
    loss: Literal["warp", "bpr", "logistic"] = Field(
        default="warp", description="Loss over the top of a list, over all pairs, or over likes."
    )
    factors: int = Field(default=64, ge=1, le=1024, description="Length of a factor vector.")
    iterations: int = Field(default=15, ge=1, le=1000, description="Rounds of training.")
    learning_rate: float = Field(
        default=0.05, gt=0, le=1, description="First step length of the descent (Adagrad)."
    )
    regularization: float = Field(
        default=0.0, ge=0, le=0.1, description="L2 penalty on all vectors."
    )
    max_sampled: int = Field(
        default=20, ge=1, le=1000, description="Items that WARP samples per example, at most."
    )
    half_life_days: HalfLife | None = Field(
        default=90.0, description="Days after which an event counts half; null means no decay."
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="Threads of training; with several, results vary."
    )
    random_state: int = Field(default=0, ge=0, description="Seed of start vectors and samples.")

    def peak_bytes(self, history: History) -> int:
        """Estimate the vectors with their gradients and momenta, and the examples in all forms."""
        rows = history.n_users + history.n_items
        cells = 0
        for features in (history.item_features, history.user_features):
            if features is not None:
                rows += len(features.names)
                cells += features.cells.nnz
        return rows * (self.factors + 1) * 16 + len(history.item) * 60 + cells * 24

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the vectors, each with a bias."""
        return (history.n_users + history.n_items) * (self.factors + 1) * 4

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Fit, then sum the vectors of each item and each user.

        Raises
        ------
        ResourceError
            `extra.lightfm_missing`: LightFM is not installed.
        ConfigError
            `model.diverged`: the fit did not stay finite.
        """
        cells = history.confidence(self.half_life_days)
        item_parts = _parts(history.n_items, history.item_features, history.cold_items)
        user_parts = _parts(history.n_users, history.user_features)
        model = self._started(history, item_parts.shape[1], user_parts.shape[1], replicate)
        examples = _examples(history, cells, self.loss)
        self._fit(model, examples, (user_parts, item_parts[: history.n_items]), progress)
        item_ids = history.item_ids
        if history.cold_items is not None:
            item_ids = np.concatenate([item_ids, history.cold_items.ids])
        order = np.argsort(item_ids)  # ids of cold items sort among those of the window
        window = history.reindex_items(item_ids[order])
        items = item_parts @ np.hstack([model.item_embeddings, model.item_biases[:, None]])
        # A column of zeros replaces the users' biases, which change no list.
        user_vectors = np.pad(model.user_embeddings, ((0, 0), (0, 1)))
        del model  # with its gradients, before users are solved
        cells = window.confidence(self.half_life_days)
        solution_map = _solution_map(items[order], cells, user_vectors)
        user_map = None
        if (features := history.user_features) is not None:
            user_map = FeatureMap(
                features.names, user_vectors[history.n_users :], _alone(self.factors), 0.0
            )
        scorer = LightFmScorer(
            item_factors=items[order],
            **stored(history.user_ids[:0], items[:0]),
            user_map=user_map,
            solution_map=solution_map,
            half_life_days=self.half_life_days,
            scale=_scale(cells),
            item_ids=window.item_ids,
            trained_until=history.end,
        )
        users = scorer.factors_of_others(window)
        return replace(scorer, **stored(history.user_ids, users))

    def _started(self, history: History, n_items: int, n_users: int, replicate: int) -> Any:
        """Return a model whose vectors belong to ids and names; users start at 0."""
        key = f"lightfm|{self.random_state}|{replicate}"
        model = library()(
            no_components=self.factors,
            loss=self.loss,
            learning_rate=self.learning_rate,
            item_alpha=self.regularization,
            user_alpha=self.regularization,
            max_sampled=self.max_sampled,
        )
        model._initialize(self.factors, n_items, n_users)
        # `_initialize` drew start vectors; a new generator keeps the samples independent of them.
        model.random_state = np.random.RandomState(keyed_seed(key))
        spread = np.float32(1 / (np.sqrt(12) * self.factors))  # of LightFM's own start
        model.user_embeddings[:] = 0.0
        names = history.item_ids
        if history.item_features is not None:
            names = np.concatenate([names, history.item_features.names])
        model.item_embeddings[:] = keyed_normal(names, self.factors, key=f"{key}|item") * spread
        if history.user_features is not None:
            drawn = keyed_normal(history.user_features.names, self.factors, key=f"{key}|user")
            model.user_embeddings[history.n_users :] = drawn * spread
        return model

    def _fit(self, model: Any, examples: _Matrices, parts: _Matrices, progress: Progress) -> None:
        interactions, weights = examples
        if not interactions.nnz:  # a window in which everything was returned
            return
        for done in range(self.iterations):
            progress(f"lightfm: iteration {done + 1} of {self.iterations}")
            try:
                with np.errstate(all="ignore"):  # it checks its sums itself
                    model.fit_partial(interactions, *parts, weights, num_threads=self.threads)
            except ValueError as error:
                if "finite" not in str(error):
                    raise
                raise ConfigError(
                    "model.diverged",
                    "lightfm: the vectors did not stay finite; lower learning_rate "
                    f"({self.learning_rate:g})",
                ) from error


def library() -> Any:
    """Return LightFM's class; `ResourceError` if it is not installed."""
    try:
        with warnings.catch_warnings():
            # Without OpenMP it warns that it uses one thread, which is the default here.
            warnings.simplefilter("ignore")
            from lightfm import LightFM
    except ImportError as error:
        raise ResourceError(
            "extra.lightfm_missing",
            "lightfm is not installed; `make lightfm` builds the extra 'lightfm' from its source, "
            "with a C compiler and Python's headers",
        ) from error
    return LightFM


def _alone(factors: int) -> NDArray[np.float32]:
    """Return a vector of zeros, and 1 for the biases of the items."""
    vector: NDArray[np.float32] = np.eye(1, factors + 1, factors, np.float32)[0]
    return vector


def _scale(cells: sp.csr_matrix) -> float:
    """Return the factor that gives cells the mean confidence of the least squares."""
    return _ALPHA / float(cells.data.mean(dtype=np.float64)) if cells.nnz else _ALPHA


def _solved(item_factors: NDArray[np.float32], cells: sp.csr_matrix, scale: float) -> FeatureMatrix:
    """Return the least squares of each user for fixed items; an empty row for one without cells."""
    vectors = np.ascontiguousarray(item_factors[:, :-1])
    scaled = cells.copy()
    scaled.data *= np.float32(scale)
    squares = float(np.square(vectors).sum(dtype=np.float64)) / vectors.shape[1]
    solved = solve_users(vectors, scaled, max(_PENALTY * squares, 1e-9))
    return FeatureMatrix(np.arange(vectors.shape[1]).astype(np.str_), sp.csr_matrix(solved))


def _solution_map(
    items: NDArray[np.float32], cells: sp.csr_matrix, user_vectors: NDArray[np.float32]
) -> FeatureMap:
    """Learn the map from users' least squares to the vectors of their own that the descent gave."""
    known = np.flatnonzero(np.diff(cells.indptr))
    rows = known[np.linspace(0, len(known) - 1, min(len(known), _MAP_USERS)).astype(np.int64)]
    factors = items.shape[1] - 1
    solved = _solved(items, cells[rows], _scale(cells))
    if not len(rows):
        weights = np.zeros((factors, factors + 1), np.float32)
        return FeatureMap(solved.names, weights, _alone(factors), 0.0)
    squares = float(np.square(solved.cells.data).sum(dtype=np.float64)) / factors
    learnt = learn_map(solved, user_vectors[rows], (max(_MAP_PENALTY * squares, 1e-9),))
    return replace(learnt, offset=learnt.offset + _alone(factors))


def _examples(history: History, cells: sp.csr_matrix, loss: str) -> _Matrices:
    """Return likes (1) and, for `logistic`, dislikes (−1), and the weight of each example."""
    likes = cells.tocoo()
    row, column, value = likes.row, likes.col, np.ones(likes.nnz, np.float32)
    weight = likes.data / likes.data.mean() if likes.nnz else likes.data
    if loss == "logistic":
        seen = (history.seen - cells.sign()).tocoo()
        bad = seen.data > 0
        row = np.concatenate([row, seen.row[bad]])
        column = np.concatenate([column, seen.col[bad]])
        value = np.concatenate([value, np.full(bad.sum(), -1, np.float32)])
        weight = np.concatenate([weight, np.ones(bad.sum(), np.float32)])
    place = (row.astype(np.int32), column.astype(np.int32))
    interactions = sp.coo_matrix((value, place), shape=cells.shape)
    return interactions, sp.coo_matrix((weight.astype(np.float32), place), shape=cells.shape)


def _parts(n: int, table: FeatureMatrix | None, cold: ColdItems | None = None) -> sp.csr_matrix:
    """Return the summands of each row: itself and its features; of cold items, features alone."""
    parts = sp.identity(n, np.float32, format="csr")
    if table is not None:
        parts = sp.hstack([parts, _evened(table).cells], format="csr")
    if cold is not None:
        blank = sp.csr_matrix((len(cold.ids), n), dtype=np.float32)
        more = sp.hstack([blank, _evened(cold.features).cells], format="csr")
        parts = sp.vstack([parts, more], format="csr")
    return parts


def _evened(features: FeatureMatrix) -> FeatureMatrix:
    """Scale each row so that the sizes of its cells sum to 1, whatever its number of features."""
    cells = features.cells.copy()
    size = np.asarray(np.abs(cells).sum(axis=1)).ravel()
    cells.data /= np.repeat(size, np.diff(cells.indptr))
    return FeatureMatrix(features.names, cells)
