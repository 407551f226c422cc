"""A recipe of recipes: each part scaled by the user's best score, weighted, summed.

Promises: the sum is scored like any model. Factors stay one inner product (scale and weight fold
into the user's vector), links stay links, own items stay a sparse term; so nothing dense is ever
written out. A part that has nothing to say to a user adds nothing to their list.

The score of (user, item) is, over the parts p with their scores s and weights w::

    Σ w[p] · s[p](user, item) · trend(item) / max over items of the same
    trend(item) = share ** trend · (1 / (ever + 20)) ** spread
    share = (late + 20 · late of all items / ever of all items) / (ever + 20)

with `ever` the people who ever had the item and `late` the same, decayed. Twenty people of the
usual share are added to each item: one person more of three is no trend, and lists would follow
every one of them. Parts that only repeat carry their own recency: the trend does not multiply them.
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
from pipeline.models.contract import AnyRecipe, Capabilities, Recipe, Scorer, Span
from pipeline.models.popularity import DecayedPopularity, item_popularity
from pipeline.models.selection import select_hyperparameters
from pipeline.models.tuning import Trials

_FLOOR = 1e-4
"""The weakest trend: an item that nobody has had for long keeps its place among its like."""


_PRIOR: Final = 20.0
"""People of the usual share that are added to each item's."""
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Blend(Recipe):
    """Several recipes, each scaled by the user's maximum, summed."""

    scorer: ClassVar[type[Scorer]] = BlendScorer
    space: ClassVar[Mapping[str, Span]] = {
        "weights": Span((0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0), 0.0, 10.0, log=False),
        "recency_boost": Span((0.0, 0.15, 0.25, 0.35, 0.5, 0.7), 0.0, 1.0, log=False),
        "popularity_penalty": Span((0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3), 0.0, 1.0, log=False),
    }

    family: Literal["blend"] = Field(default="blend", description="Name of the family.")
    parts: dict[str, AnyRecipe] = Field(
        min_length=1, max_length=8, description="Recipes that are summed, by a name of their own."
    )
    weights: dict[str, Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]] = Field(
        default={}, description="Weight of each part; a part left out counts 1."
    )
    recency_boost: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Exponent of the trend that the parts' scores are multiplied by; 0 is none.",
    )
    popularity_penalty: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Exponent by which items that many had are held back; 0 is not at all.",
    )
    recency_half_life_days: float = Field(
        default=14.0, gt=0, le=3650, description="Days after which somebody counts half in a trend."
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        strangers = sorted(set(self.weights) - set(self.parts))
        if strangers:
            named = ", ".join(self.parts)
            raise ValueError(f"weights name {strangers[0]!r}, which is no part; there are {named}")
        if not any(self.weights.get(name, 1.0) > 0 for name in self.parts):
            raise ValueError("every part has weight 0")
        odd = [name for name in self.parts if not _PART.fullmatch(name)]
        if odd:
            raise ValueError(
                f"{odd[0]!r} is no name of a part: it may hold letters, digits, '.', '_' and '-'"
            )
        return self

    @property
    def capabilities(self) -> Capabilities:
        """What all parts can do, it can."""
        return capabilities_of([part.capabilities for part in self.parts.values()])

    @property
    def has_free_params(self) -> bool:
        """Whether it or one of its parts leaves something to the data."""
        return bool(self.tune) or any(part.has_free_params for part in self.parts.values())

    @property
    def summary(self) -> str:
        """Each part by its weight, and what was set or chosen of it; then the trend."""
        parts = [
            f"{name} × {self.weights.get(name, 1.0):g}"
            + (f" ({part.summary})" if part.summary else "")
            for name, part in self.parts.items()
        ]
        return (
            f"{' + '.join(parts)}, trend {self.recency_boost:g}, spread {self.popularity_penalty:g}"
        )

    def peak_bytes(self, history: History) -> int:
        """The parts are trained one after the other, then the trend; what each learnt stays."""
        learnt, peak = 0, 0
        for part in self._heard():
            peak = max(peak, learnt + part.peak_bytes(history))
            learnt += part.fitted_bytes(history)
        return max(peak, learnt + DecayedPopularity().peak_bytes(history))

    def fitted_bytes(self, history: History) -> int:
        """What the parts keep."""
        return sum(part.fitted_bytes(history) for part in self._heard())

    def _heard(self) -> list[Recipe]:
        return [part for name, part in self.parts.items() if self.weights.get(name, 1.0) > 0]

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> BlendScorer:
        """Train the parts one after the other, over the items that have an event."""
        history = replace(history, cold_items=None)
        parts = {
            name: part.train(history, replicate=replicate, progress=progress)
            for name, part in self.parts.items()
            if self.weights.get(name, 1.0) > 0
        }
        devices = {part.trained_on for part in parts.values()}
        return BlendScorer(
            parts=parts,
            families={name: self.parts[name].family for name in parts},
            weights={name: self.weights.get(name, 1.0) for name in parts},
            trend=self._trends(history)(self.recency_boost, self.popularity_penalty),
            item_ids=history.item_ids,
            trained_until=history.end,
            trained_on="cuda" if "cuda" in devices else "cpu",
        )

    def _trends(self, history: History) -> Trends:
        """Return what gives ``(n_items,)`` float32 for two exponents, see the formula above."""
        ever = item_popularity(history, None).astype(np.float64)
        late = item_popularity(history, self.recency_half_life_days).astype(np.float64)
        usual = math.fsum(late) / max(math.fsum(ever), 1.0)
        share = np.maximum((late + _PRIOR * usual) / (ever + _PRIOR), _FLOOR)
        ever += _PRIOR
        return lambda trend, spread: (share**trend / ever**spread).astype(np.float32)


def _percent_text(progress: Progress, part: str, text: str) -> None:
    progress(f"{part}: {text}")


@select_hyperparameters.register
def _(recipe: Blend, trials: Trials, progress: Progress = silent) -> Blend:
    """Choose which parts are worth a closer look, settle these alone, then weigh them together.

    Where lists leave out what their user had, parts that only repeat are dropped; if nothing
    else had a weight, all others count 1. Dropped are, too, those that the newest window gives
    no weight as they are, and those of weight 0 in the end.
    """
    kept = {
        name: part
        for name, part in recipe.parts.items()
        if not (trials.discovery and part.capabilities.repeats_only)
    }
    if not kept:  # it has nothing to say in this task
        return recipe.model_copy(update={"tune": ()})
    weights = {name: recipe.weights.get(name, 1.0) for name in kept}
    if not any(weights.values()):
        weights = dict.fromkeys(kept, 1.0)
    mixture = Mixture(weights, recipe.recency_boost, recipe.popularity_penalty)
    if recipe.tune:
        progress("which parts count")
        mixture = _optimised(recipe, mixture, kept, trials, 1, False)
        kept = {name: kept[name] for name, weight in mixture.weights.items() if weight > 0}
    kept = {
        name: select_hyperparameters(part, trials, partial(_percent_text, progress, name))
        for name, part in kept.items()
    }
    if recipe.tune:
        progress("weights of the parts")
        mixture = replace(mixture, weights={name: mixture.weights[name] for name in kept})
        mixture = _optimised(recipe, mixture, kept, trials, None, trials.discovery)
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


def _optimised(
    recipe: Blend,
    start: Mixture,
    parts: Mapping[str, Recipe],
    trials: Trials,
    newest: int | None,
    wide: bool,
) -> Mixture:
    return optimise_mixture(
        start,
        trials.pools(parts, newest),
        grid={name: recipe.space[name].grid for name in recipe.tune},
        maximise_coverage=wide,
        untrended_parts=[name for name, part in parts.items() if part.capabilities.repeats_only],
        trends=recipe._trends,
    )
