"""Factors predicted from features for items and users with too few events.

Guarantees: items and users with enough events have the scores of the base family; an item or user
without a feature gets no prediction; without features the result is that of the base family to the
bit. It works on any family whose scores have factors, through `Scores` alone.

Ridge regression learns the factors of items with many users from their features and predicts those
of a new item, as Gantner et al. (2010, Learning attribute-to-feature mappings for cold-start
recommendations); likewise for users. `feature_map` has the formula, and the choice of λ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.feature_matrix import FeatureMatrix
from pipeline.data.matrix import History
from pipeline.errors import ConfigError
from pipeline.models.als import Als
from pipeline.models.codec import Arrays, pack, unpack
from pipeline.models.contract import (
    FAMILY,
    AnyRecipe,
    Capabilities,
    Penalty,
    Recipe,
    Scorer,
    Scores,
    Span,
    nested_arrays,
    nested_scorer,
)
from pipeline.models.feature_map import FeatureMap, learn_map, memory_of
from pipeline.models.selection import select_hyperparameters, select_in_order
from pipeline.models.tuning import Trials

MIN_EVENTS = 5
"""Events of a training row of the regression: factors of fewer events depend more on the
regularization than on the events."""


@dataclass(frozen=True, eq=False)
class RidgeScorer(Scorer):
    """A scorer with factors, and predicted factors of items and users with too few events.

    Attributes
    ----------
    base
        Trained on the items that have an event: some of `item_ids`.
    base_family
        Family of the base.
    predicted_items
        ``(m,)`` int32 columns whose factors are predicted from their features.
    predicted_factors
        ``(m, f)`` float32.
    user_ids
        ``(n_known,)`` str, sorted: the users of the training window.
    user_map
        Map from features of a user to factors; ``None`` if training had no features of users.
    """

    base: Scorer
    base_family: str
    predicted_items: NDArray[np.int32]
    predicted_factors: NDArray[np.float32]
    user_ids: NDArray[np.str_]
    user_map: FeatureMap | None

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the base; it is not a baseline any more."""
        return replace(self.base.capabilities, baseline=None)

    def _score(self, history: History) -> Scores:
        """Score by the base, and users without factors by their features."""
        own = history.reindex_items(self.base.item_ids)
        scored = np.isin(history.user_ids, self.user_ids) | (np.diff(history.indptr) > 0)
        if scored.all() or self.base.capabilities.fold_in:
            return self._predicted_scores(history, self.base.score(own))
        # A base that cannot fold in raises for users without events, whom features can score.
        rows = np.flatnonzero(scored)
        spread = _spread(self.base.score(own.take(rows)), rows, len(scored))
        return self._predicted_scores(history, spread)

    def _fold_in(self, history: History) -> Scores:
        """Fold in by the base, and score users without factors by their features."""
        own = history.reindex_items(self.base.item_ids)
        return self._predicted_scores(history, self.base.fold_in(own))

    def _predicted_scores(self, history: History, scores: Scores) -> Scores:
        """Add the predicted factors, over the whole catalogue."""
        users, items = scores.users, scores.items
        if users is None or items is None:
            raise ValueError(f"the scores of {self.base_family} have no factors")
        # Factors of 0 mean that the base has no information about a user, see `Scores`.
        unknown = np.flatnonzero(~users.any(axis=1))
        if self.user_map is not None and history.user_features is not None and len(unknown):
            users = users.copy()  # the base may have returned its own array
            users[unknown] = self.user_map.factors(history.user_features.rows(unknown))
        if not len(self.predicted_items):
            return replace(scores, users=users)
        # Both catalogues are sorted, and the larger one has all ids of the base.
        column = np.searchsorted(self.item_ids, self.base.item_ids)
        wide = np.zeros((len(self.item_ids), items.shape[1]), np.float32)
        wide[column] = items
        # After the base's factors: items with too few users have both.
        wide[self.predicted_items] = self.predicted_factors

        def moved(cells: sp.csr_matrix | None) -> sp.csr_matrix | None:
            if cells is None:
                return None
            shape = (cells.shape[0], len(wide))
            return sp.csr_matrix((cells.data, column[cells.indices], cells.indptr), shape=shape)

        return replace(
            scores,
            users=users,
            items=wide,
            sparse_bonus=moved(scores.sparse_bonus),
            item_similarity=moved(scores.item_similarity),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all fields as plain arrays; fields that the base shares once."""
        return pack(self, skip=("base",)) | nested_arrays("base", self.base, self)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer and its base."""
        values = unpack(cls, arrays, skip=("base",))
        return cls(base=nested_scorer("base", values["base_family"], arrays), **values)


class Ridge(Recipe):
    """A family with factors, and factors predicted from features where events are too few."""

    scorer: ClassVar[type[Scorer]] = RidgeScorer
    space: ClassVar[Mapping[str, Span]] = {
        "regularization": Span((1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), 1.0, 1000.0)
    }

    family: Literal["ridge"] = Field(default="ridge", description=FAMILY)
    factors_of: AnyRecipe = Field(
        default_factory=Als, description="Recipe whose factors are predicted from features."
    )
    regularization: Penalty | None = Field(
        default=None, description="L2 penalty on coefficients; null selects it by leave-one-out."
    )
    min_users: int = Field(
        default=1, ge=1, le=1000, description="Users below which an item's factors are predicted."
    )

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities of the base; it is not a baseline any more."""
        return replace(self.factors_of.capabilities, baseline=None)

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of the base, and the regression on the base's factors."""
        factors = _factors(self.factors_of)
        # The base is trained before the regression starts, so the two peaks do not add up.
        held = 4 * factors * (history.n_users + history.n_items)
        features = (history.item_features, history.user_features)
        learning = (memory_of(part, factors) for part in features if part is not None)
        return max(self.factors_of.peak_bytes(history), held + max(learning, default=0))

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the base's scorer; the regression adds little."""
        return self.factors_of.fitted_bytes(history)

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Train the base, then learn its factors from features.

        Raises
        ------
        ConfigError
            `recipe.base_without_factors`: the base has no factors.
        """
        # A base that lists new items itself would give them factors of its own.
        alone = replace(history, cold_items=None)
        base = self.factors_of.train(alone, replicate=replicate, progress=progress)
        items = base.score(alone.take(np.arange(1))).items  # of any user
        if items is None:
            raise ConfigError(
                "recipe.base_without_factors",
                f"ridge: factors_of is {self.factors_of.family!r}, a family without factors; "
                "choose one with factors, such as 'als'",
            )
        had = history.confidence(None)
        progress("ridge: items")
        user_counts = np.bincount(had.indices, minlength=history.n_items)
        names, factors = self._predicted_items(history, items, user_counts)
        item_ids = np.union1d(history.item_ids, names)
        user_map = None
        if history.user_features is not None:
            progress("ridge: users")
            users = base.score(alone).users
            user_map = self._map(history.user_features, users, np.diff(had.indptr))
        return RidgeScorer(
            base=base,
            base_family=self.factors_of.family,
            predicted_items=np.searchsorted(item_ids, names).astype(np.int32),
            predicted_factors=factors,
            user_ids=np.sort(history.user_ids),
            user_map=user_map,
            # The window's own array lets `check` compare identities instead of all ids.
            item_ids=item_ids if len(item_ids) > history.n_items else history.item_ids,
            trained_until=history.end,
            trained_on=base.trained_on,
        )

    def _predicted_items(
        self, history: History, items: NDArray[np.float32], user_counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Return the ids and the factors of the items whose factors are predicted."""
        features = history.item_features
        learnt = None if features is None else self._map(features, items, user_counts)
        if features is None or learnt is None:
            return history.item_ids[:0], items[:0]
        few = np.flatnonzero((user_counts < self.min_users) & (np.diff(features.cells.indptr) > 0))
        ids, factors = [history.item_ids[few]], [learnt.factors(features.rows(few))]
        if history.cold_items is not None:
            ids.append(history.cold_items.ids)
            factors.append(learnt.factors(history.cold_items.features))
        return np.concatenate(ids), np.concatenate(factors)

    def _map(
        self, table: FeatureMatrix, factors: NDArray[np.float32] | None, events: NDArray[np.int64]
    ) -> FeatureMap | None:
        """Learn from rows with enough events and any feature; ``None`` below two rows."""
        rows = np.flatnonzero((events >= MIN_EVENTS) & (np.diff(table.cells.indptr) > 0))
        # λ is selected by leave-one-out, which needs a row to learn from beside the one left out.
        if factors is None or len(rows) < 2:
            return None
        span, chosen = self.space["regularization"].grid, self.regularization
        return learn_map(table.rows(rows), factors[rows], span if chosen is None else (chosen,))


def _factors(recipe: Recipe) -> int:
    """Return the length of the vectors of a recipe and of its parts together."""
    parts = recipe.inner_recipes.values()
    return int(getattr(recipe, "factors", 0)) + sum(_factors(part) for part in parts)


def _spread(scores: Scores, rows: NDArray[np.intp], n: int) -> Scores:
    """Return the scores of `n` users, of whom `rows` have scores and the others have none."""
    # One product with a selection matrix serves dense factors and sparse parts alike.
    ones = np.ones(len(rows), np.float32)
    place = sp.csr_matrix((ones, (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    parts = {name: getattr(scores, name) for name in ("users", "sparse_bonus", "user_history")}
    spread = {name: place @ part for name, part in parts.items() if part is not None}
    return replace(scores, **spread)


@select_hyperparameters.register
def _(recipe: Ridge, trials: Trials, progress: Progress = silent) -> Ridge:
    """Select the fields of the base first, then the recipe's own."""
    base = select_hyperparameters(recipe.factors_of, trials, progress)
    return select_in_order(recipe.model_copy(update={"factors_of": base}), trials, progress)
