"""Features to factors: whoever has too few events is answered for by what is known of them.

Promises: it is its base family wherever there are events enough; nothing is said of an item or a
user without a feature; where the tables tell nothing it is the base family to the bit. It works on
any family whose scores have factors, through `Scores` alone.

The factors of an item that nobody had yet are those that ridge regression reads off its features,
learnt from the items that many people have, as Gantner et al. (2010, Learning attribute-to-feature
mappings for cold-start recommendations) answer for new items; likewise for users. `feature_map` has
the formula, and how λ is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
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
    HEADER,
    AnyRecipe,
    Capabilities,
    Recipe,
    Scorer,
    Scores,
    Span,
    load,
    read_header,
)
from pipeline.models.feature_map import FeatureMap, learn_map, memory_of
from pipeline.models.selection import select_hyperparameters, select_in_order
from pipeline.models.tuning import Trials

MIN_EVENTS = 5
"""Events that make a teacher: with fewer, factors say more of the regularization than of taste."""
_BASE = "base/"


@dataclass(frozen=True, eq=False)
class RidgeScorer(Scorer):
    """A scorer with factors, and factors of those whom it knows too little.

    Attributes
    ----------
    base
        Trained on the items that have an event: some of `item_ids`.
    base_family
        Its family.
    predicted_items
        ``(m,)`` int32 columns whose factors are read off their features.
    predicted_factors
        ``(m, f)`` float32.
    user_ids
        ``(n_known,)`` str, sorted: the users of the training window.
    user_map
        What features say of a user, ``None`` where nothing was known of them.
    """

    base: Scorer
    base_family: str
    predicted_items: NDArray[np.int32]
    predicted_factors: NDArray[np.float32]
    user_ids: NDArray[np.str_]
    user_map: FeatureMap | None
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    @property
    def capabilities(self) -> Capabilities:
        """Those of its base, which is no baseline any more."""
        return replace(self.base.capabilities, baseline=None)

    def score(self, history: History) -> Scores:
        """Score by the base, and whoever has no factors there by their features."""
        self.check(history)
        own = history.reindex_items(self.base.item_ids)
        asked = np.isin(history.user_ids, self.user_ids) | (np.diff(history.indptr) > 0)
        if asked.all() or self.base.capabilities.fold_in:
            return self._predicted_scores(history, self.base.score(own))
        # A base that cannot fold in has no word for those who have no event either.
        rows = np.flatnonzero(asked)
        return self._predicted_scores(
            history, _spread(self.base.score(own.take(rows)), rows, len(asked))
        )

    def fold_in(self, history: History) -> Scores:
        """Fold in by the base, and score whoever has no factors there by their features."""
        self.check(history)
        return self._predicted_scores(
            history, self.base.fold_in(history.reindex_items(self.base.item_ids))
        )

    def _predicted_scores(self, history: History, scores: Scores) -> Scores:
        """Put in what features say, over the whole catalogue."""
        users, items = scores.users, scores.items
        if users is None or items is None:
            raise ValueError(f"the scores of {self.base_family} have no factors")
        unknown = np.flatnonzero(~users.any(axis=1))
        if self.user_map is not None and history.user_features is not None and len(unknown):
            users = users.copy()
            users[unknown] = self.user_map.factors(history.user_features.rows(unknown))
        if not len(self.predicted_items):
            return replace(scores, users=users)
        column = np.searchsorted(self.item_ids, self.base.item_ids)
        wide = np.zeros((len(self.item_ids), items.shape[1]), np.float32)
        wide[column] = items
        wide[self.predicted_items] = self.predicted_factors
        return Scores(
            users=users,
            items=wide,
            sparse_bonus=_moved(scores.sparse_bonus, column, len(wide)),
            user_history=scores.user_history,
            item_similarity=_moved(scores.item_similarity, column, len(wide)),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a fresh process needs; what base and scorer share is stored once."""
        header = self.header()
        base = self.base.arrays()
        return {
            **header,
            **pack(self, skip=(*HEADER, "base")),
            **{
                f"{_BASE}{name}": array
                for name, array in base.items()
                if name not in header or not np.array_equal(array, header[name])
            },
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer and its base."""
        values = unpack(cls, arrays, skip=(*HEADER, "base"))
        shared = {name: array for name, array in arrays.items() if "/" not in name}
        own = {n.removeprefix(_BASE): a for n, a in arrays.items() if n.startswith(_BASE)}
        base = load(values["base_family"], shared | own)
        return cls(base=base, **values, **read_header(arrays))


class Ridge(Recipe):
    """A family with factors, and what features say where events are too few."""

    scorer: ClassVar[type[Scorer]] = RidgeScorer
    space: ClassVar[Mapping[str, Span]] = {
        "regularization": Span((1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), 1.0, 1000.0)
    }

    family: Literal["ridge"] = Field(default="ridge", description="Name of the family.")
    factors_of: AnyRecipe = Field(
        default_factory=Als, description="Recipe whose factors features are to predict."
    )
    regularization: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e6,
        description="Weight of the squared coefficients; without one, of 1 to 1000 the one that "
        "best predicts the factors of who is left out.",
    )
    min_users: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="An item that fewer people have is answered for by its features.",
    )

    @property
    def capabilities(self) -> Capabilities:
        """Those of its base, which is no baseline any more."""
        return replace(self.factors_of.capabilities, baseline=None)

    @property
    def has_free_params(self) -> bool:
        """Whether it or its base leaves something to the data."""
        return bool(self.tune) or self.factors_of.has_free_params

    def peak_bytes(self, history: History) -> int:
        """The base; then its factors, and what learning them from features takes."""
        factors = _factors(self.factors_of.model_dump())
        described = [
            known for known in (history.item_features, history.user_features) if known is not None
        ]
        held = 4 * factors * (history.n_users + history.n_items)
        learning = max((memory_of(known, factors) for known in described), default=0)
        return max(self.factors_of.peak_bytes(history), held + learning)

    def fitted_bytes(self, history: History) -> int:
        """What the base keeps; what is learnt of features is little beside it."""
        return self.factors_of.fitted_bytes(history)

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> RidgeScorer:
        """Train the base, then learn its factors from features.

        Raises
        ------
        ConfigError
            The base has no factors.
        """
        alone = replace(history, cold_items=None)
        base = self.factors_of.train(alone, replicate=replicate, progress=progress)
        items = base.score(alone.take(np.arange(1))).items
        if items is None:
            raise ConfigError(
                "recipe.base_without_factors",
                f"ridge: factors_of is {self.factors_of.family!r}, a family without factors",
            )
        had = history.confidence(None)
        people = np.bincount(had.indices, minlength=history.n_items)
        progress("ridge: items")
        names, factors = self._items(history, items, people)
        item_ids = np.union1d(history.item_ids, names)
        of_users = None
        if history.user_features is not None:
            progress("ridge: users")
            users = base.score(alone).users
            of_users = self._map(history.user_features, users, np.diff(had.indptr))
        return RidgeScorer(
            base=base,
            base_family=self.factors_of.family,
            predicted_items=np.searchsorted(item_ids, names).astype(np.int32),
            predicted_factors=factors,
            user_ids=np.sort(history.user_ids),
            user_map=of_users,
            item_ids=item_ids if len(item_ids) > history.n_items else history.item_ids,
            trained_until=history.end,
            trained_on=base.trained_on,
        )

    def _items(
        self, history: History, items: NDArray[np.float32], people: NDArray[np.int64]
    ) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
        """Return the ids and the factors of the items that features answer for."""
        nothing = history.item_ids[:0], items[:0]
        if history.item_features is None:
            return nothing
        learnt = self._map(history.item_features, items, people)
        if learnt is None:
            return nothing
        few = np.flatnonzero((people < self.min_users) & _has_features(history.item_features))
        ids, factors = [history.item_ids[few]], [learnt.factors(history.item_features.rows(few))]
        if history.cold_items is not None:
            ids.append(history.cold_items.ids)
            factors.append(learnt.factors(history.cold_items.known))
        return np.concatenate(ids), np.concatenate(factors)

    def _map(
        self, known: FeatureMatrix, factors: NDArray[np.float32] | None, events: NDArray[np.int64]
    ) -> FeatureMap | None:
        """Learn from those who have enough events and any feature; ``None`` if there are none."""
        training_rows = np.flatnonzero((events >= MIN_EVENTS) & _has_features(known))
        if factors is None or len(training_rows) < 2:
            return None
        span, chosen = self.space["regularization"].grid, self.regularization
        return learn_map(
            known.rows(training_rows), factors[training_rows], span if chosen is None else (chosen,)
        )


def _factors(dumped: Mapping[str, Any]) -> int:
    """Return the length of the vectors of a recipe and of its parts together."""
    factors = int(dumped.get("factors", 0))
    return factors + sum(_factors(part) for part in dumped.values() if isinstance(part, dict))


def _has_features(known: FeatureMatrix) -> NDArray[np.bool_]:
    some: NDArray[np.bool_] = np.diff(known.cells.indptr) > 0
    return some


def _moved(
    cells: sp.csr_matrix | None, column: NDArray[np.intp], n_items: int
) -> sp.csr_matrix | None:
    """Write columns of the base's catalogue as those of the longer one."""
    if cells is None:
        return None
    moved = (cells.data, column[cells.indices], cells.indptr)
    return sp.csr_matrix(moved, shape=(cells.shape[0], n_items))


def _spread(scores: Scores, rows: NDArray[np.intp], n: int) -> Scores:
    """Return the scores of `n` users, of whom `rows` have some."""
    ones = np.ones(len(rows), np.float32)
    place = sp.csr_matrix((ones, (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    parts = {name: getattr(scores, name) for name in ("users", "sparse_bonus", "user_history")}
    spread = {name: place @ part for name, part in parts.items() if part is not None}
    return replace(scores, **spread)


@select_hyperparameters.register
def _(recipe: Ridge, trials: Trials, progress: Progress = silent) -> Ridge:
    """Select for the base family first, then for the fields of its own."""
    base = select_hyperparameters(recipe.factors_of, trials, progress)
    return select_in_order(recipe.model_copy(update={"factors_of": base}), trials, progress)
