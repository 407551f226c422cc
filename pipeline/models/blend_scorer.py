"""Scorer of a blend: the scorers of its parts, and the trend that multiplies their scores.

Guarantees: no users × items matrix is stored as dense values; the catalogue is stored once; an
array of a part is stored under the name of the part and its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.codec import Arrays, pack, unpack
from pipeline.models.contract import Capabilities, Scorer, Scores, nested_arrays, nested_scorer
from pipeline.models.score_ops import joined, scaled, trended

_MAPPINGS = ("parts", "families", "weights")
"""Fields that are stored as arrays over the names of the parts."""


@dataclass(frozen=True, eq=False)
class BlendScorer(Scorer):
    """Scorers of the parts, over one catalogue.

    Attributes
    ----------
    parts
        Scorer of each part, by its name.
    families
        Family of each part, by the same names.
    weights
        Weight of each part, > 0.
    trend
        ``(n_items,)`` float32 > 0.
    """

    parts: Mapping[str, Scorer]
    families: Mapping[str, str]
    weights: Mapping[str, float]
    trend: NDArray[np.float32]

    @property
    def capabilities(self) -> Capabilities:
        """Capabilities that all parts have."""
        return capabilities_of([part.capabilities for part in self.parts.values()])

    def _score(self, history: History) -> Scores:
        """Score users by every part's `score`."""
        return self._sum(history, [part.score(history) for part in self.parts.values()])

    def _fold_in(self, history: History) -> Scores:
        """Score users by every part's `fold_in`."""
        return self._sum(history, [part.fold_in(history) for part in self.parts.values()])

    def _sum(self, history: History, scores: Sequence[Scores]) -> Scores:
        active = np.diff(history.indptr) > 0
        summed = []
        for (name, part), part_scores in zip(self.parts.items(), scores, strict=True):
            can = part.capabilities
            # Parts that only repeat are not multiplied by the trend: they weigh recent events more
            # by themselves.
            moved = part_scores if can.repeats_only else trended(part_scores, self.trend)
            # A baseline scores users without events as well, but a blend gives them no list.
            to = active if can.repeats_only or can.baseline is not None else None
            summed.append(scaled(moved, self.weights[name], to))
        return joined(summed)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all fields as plain arrays; those that parts share with the blend occur once."""
        packed = {
            **pack(self, skip=(*_MAPPINGS, "trend")),
            "parts": np.array(list(self.parts), dtype=np.str_),
            "families": np.array([self.families[name] for name in self.parts], dtype=np.str_),
            "weights": np.array([self.weights[name] for name in self.parts]),
            "trend": self.trend,
        }
        for name, part in self.parts.items():
            packed |= nested_arrays(name, part, self)
        return packed

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer and its parts."""
        names, families, weights = (arrays[key].tolist() for key in _MAPPINGS)
        family_of = dict(zip(names, families, strict=True))
        return cls(
            parts={name: nested_scorer(name, family_of[name], arrays) for name in names},
            families=family_of,
            weights=dict(zip(names, weights, strict=True)),
            **unpack(cls, arrays, skip=_MAPPINGS),
        )


def capabilities_of(parts: Sequence[Capabilities]) -> Capabilities:
    """Return the capabilities that all parts of a blend have."""
    return Capabilities(
        fold_in=all(part.fold_in for part in parts),
        deterministic=all(part.deterministic for part in parts),
        repeats_only=all(part.repeats_only for part in parts),
    )
