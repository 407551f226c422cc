"""Blend of recipes: each part scaled by the user's best score, weighted, and summed.

Guarantees: the sum is scored like any model. Factors stay one inner product (scale and weight go
into the user's vector), links stay links, own items stay a sparse term; so nothing dense is ever
written. A part without scores for a user adds nothing to their list.

The score of (user, item) is, over the parts p with their scores s and weights w::

    Σ w[p] · s[p](user, item) · trend(item) / max over items of the same
    trend(item) = share ** recency_boost · (1 / (ever + 20)) ** popularity_penalty
    share = (late + 20 · late of all items / ever of all items) / (ever + 20)

with `ever` the number of users who ever had the item and `late` the same, decayed. Twenty users of
the mean share are added to each item: one user more among three is not a trend, and without them
lists would follow each one. Parts that only repeat decay events themselves, so the trend does not
multiply them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.blend_scorer import BlendScorer, capabilities_of
from pipeline.models.blend_weights import Mixture, Trends, optimise_mixture
from pipeline.models.contract import (
    FAMILY,
    AnyRecipe,
    Capabilities,
    HalfLife,
    Recipe,
    Scorer,
    Share,
    Span,
)
from pipeline.models.popularity import DecayedPopularity, item_popularity
from pipeline.models.selection import select_hyperparameters
from pipeline.models.tuning import Trials

_FLOOR = 1e-4
"""Smallest share: items without recent users keep their order among each other."""
_PRIOR: Final = 20.0
"""Users of the mean share that are added to each item's."""
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Blend(Recipe):
    """Several recipes, each scaled by the user's maximum, summed."""

    scorer: ClassVar[type[Scorer]] = BlendScorer
    space: ClassVar[Mapping[str, Span]] = {
        "weights": Span((0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0), 0.0, 10.0, log=False),
        "recency_boost": Span((0.0, 0.15, 0.25, 0.35, 0.5, 0.7), 0.0, 1.0, log=False),
        "popularity_penalty": Span((0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3), 0.0, 1.0, log=False),
    }

    family: Literal["blend"] = Field(default="blend", description=FAMILY)
    parts: dict[str, AnyRecipe] = Field(
        min_length=1, max_length=8, description="Recipes that are summed, by a name of the part."
    )
    weights: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = Field(
        default={}, description="Weight of each part; a part that is not listed has weight 1."
    )
    recency_boost: Share = Field(
        default=0.0, description="Exponent that raises items with recent users; 0 switches it off."
    )
    popularity_penalty: Share = Field(
        default=0.0, description="Exponent that lowers popular items; 0 switches it off."
    )
    recency_half_life_days: HalfLife = Field(
        default=14.0, description="Days after which a user counts half in the recent share."
    )

    @model_validator(mode="after")
    def _valid_names_and_weights(self) -> Self:
        for name in sorted(set(self.weights) - set(self.parts)):
            raise ValueError(f"weights: unknown part {name!r}. Allowed: {', '.join(self.parts)}")
        if not self.weighted_parts:
            raise ValueError("weights: every part has weight 0; set one above 0")
        for name in self.parts:
            if not _PART.fullmatch(name):
                raise ValueError(
                    f"parts: invalid name {name!r}; use letters, digits, '.', '_' and '-'"
                )
        return self

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities that all parts have."""
        return capabilities_of([part.capabilities for part in self.parts.values()])

    @property
    def weighted_parts(self) -> dict[str, Recipe]:
        """Parts whose weight is above 0."""
        return {name: part for name, part in self.parts.items() if self.weight(name) > 0}

    @property
    def summary(self) -> str:
        """Each part with its weight and fields that differ from defaults; then the exponents."""
        parts = [
            f"{name} × {self.weight(name):g}" + (f" ({part.summary})" if part.summary else "")
            for name, part in self.parts.items()
        ]
        return (
            f"{' + '.join(parts)}, trend {self.recency_boost:g}, spread {self.popularity_penalty:g}"
        )

    def weight(self, name: str) -> float:
        """Return the weight of a part."""
        return self.weights.get(name, 1.0)

    def peak_bytes(self, history: History) -> int:
        """Estimate the parts, trained in turn while their scorers stay, then the trend."""
        learnt, peak = 0, 0  # scorers of earlier parts stay in memory while the next one trains
        for part in self.weighted_parts.values():
            peak = max(peak, learnt + part.peak_bytes(history))
            learnt += part.fitted_bytes(history)
        return max(peak, learnt + DecayedPopularity().peak_bytes(history))

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the parts' scorers."""
        return sum(part.fitted_bytes(history) for part in self.weighted_parts.values())

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Train the parts in turn, over the items that have an event."""
        # A part that lists new items would have another catalogue than the other parts.
        history = replace(history, cold_items=None)
        parts = {
            name: part.train(history, replicate=replicate, progress=progress)
            for name, part in self.weighted_parts.items()
        }
        return BlendScorer(
            parts=parts,
            families={name: self.parts[name].family for name in parts},
            weights={name: self.weight(name) for name in parts},
            trend=self._trends(history)(self.recency_boost, self.popularity_penalty),
            **self.window(history),
            trained_on="cuda" if "cuda" in {p.trained_on for p in parts.values()} else "cpu",
        )

    def train_again(
        self, history: History, first: Scorer, replicate: int, progress: Progress = silent
    ) -> Scorer:
        """Train another replicate of the parts that draw random numbers; the others stay.

        Parameters
        ----------
        history, first, replicate, progress
            As in `Recipe.train_again`.
        """
        if not isinstance(first, BlendScorer):
            raise TypeError(f"the first fit of a blend is a {type(first).__name__}")
        history = replace(history, cold_items=None)  # as in `train`
        parts = {
            name: part.train_again(history, first.parts[name], replicate, progress)
            for name, part in self.weighted_parts.items()
        }
        return replace(first, parts=parts)

    def _trends(self, history: History) -> Trends:
        """Return the trend of each item as a function of both exponents, see the formula above."""
        ever = item_popularity(history, None).astype(np.float64)
        late = item_popularity(history, self.recency_half_life_days).astype(np.float64)
        # `fsum` is exact, so the mean share does not depend on the order of the items.
        mean_share = math.fsum(late) / max(math.fsum(ever), 1.0)
        share = np.maximum((late + _PRIOR * mean_share) / (ever + _PRIOR), _FLOOR)
        ever += _PRIOR
        return lambda trend, spread: (share**trend / ever**spread).astype(np.float32)


def _part_progress(progress: Progress, part: str, text: str) -> None:
    progress(f"{part}: {text}")


@select_hyperparameters.register
def _(recipe: Blend, trials: Trials, progress: Progress = silent) -> Blend:
    """Select the parts, then the open fields of each part, then the weights and exponents."""
    # In a *discovery* task, parts that only repeat are dropped first; if all remaining parts have
    # weight 0, each gets weight 1. If there is a field to tune, a first search on the newest window
    # drops the parts to which it gives weight 0, before fields of parts are selected. At the end,
    # parts of weight 0 are dropped again.
    kept = {
        name: part
        for name, part in recipe.parts.items()
        if not (trials.discovery and part.capabilities.repeats_only)
    }
    if not kept:  # all parts only repeat, so `train` skips this recipe in a discovery task
        return recipe.model_copy(update={"tune": ()})
    weights = {name: recipe.weight(name) for name in kept}
    if not any(weights.values()):
        weights = dict.fromkeys(kept, 1.0)
    mixture = Mixture(weights, recipe.recency_boost, recipe.popularity_penalty)
    optimise = partial(
        optimise_mixture,
        grid={name: recipe.space[name].grid for name in recipe.tune},
        untrended_parts=[n for n, part in kept.items() if part.capabilities.repeats_only],
        trends=recipe._trends,
    )
    if recipe.tune:
        # One window is enough to drop parts, and saves the selection of their fields.
        progress("selecting parts")
        # Not by rough fits, in which parts that are a little worse seem to add something. Only the
        # parts are taken from this: its weights are a worse start than those of the recipe.
        closed = {name: part.model_copy(update={"tune": ()}) for name, part in kept.items()}
        first = optimise(mixture, trials.pools(closed, 1), maximise_coverage=False)
        kept = {name: kept[name] for name, weight in first.weights.items() if weight > 0}
    kept = {
        name: select_hyperparameters(part, trials, partial(_part_progress, progress, name))
        for name, part in kept.items()
    }
    if recipe.tune:
        progress("selecting weights of the parts")
        used = {name: mixture.weights[name] for name in kept}
        mixture = replace(mixture, weights=used if any(used.values()) else dict.fromkeys(kept, 1.0))
        mixture = optimise(mixture, trials.pools(kept), maximise_coverage=trials.discovery)
    most = max(mixture.weights.values())
    weights = {name: round(w / most, 4) for name, w in mixture.weights.items() if w > 0}
    return recipe.model_copy(
        update={
            "parts": {name: kept[name] for name in weights},
            "weights": weights,
            "recency_boost": mixture.recency_boost,
            "popularity_penalty": mixture.popularity_penalty,
            "tune": (),
        }
    )
