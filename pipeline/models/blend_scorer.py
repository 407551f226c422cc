"""The scorer of a blend: those of its parts, and the trend that moves what they say.

Promises: nothing dense is written out; the catalogue is stored once; what a part stores keeps its
names, below the part's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data.matrix import History
from pipeline.models.codec import Arrays
from pipeline.models.contract import Capabilities, Scorer, Scores, load, read_header
from pipeline.models.score_ops import joined, scaled, trended

_PARTS, _WEIGHTS, _TREND = "parts", "weights", "trend"


@dataclass(frozen=True, eq=False)
class BlendScorer(Scorer):
    """Scorers of the parts, over one catalogue.

    Attributes
    ----------
    parts
        By the part's name.
    families
        The family of each part, by the same names.
    weights
        Of each part, > 0.
    trend
        ``(n_items,)`` float32 > 0.
    """

    parts: Mapping[str, Scorer]
    families: Mapping[str, str]
    weights: Mapping[str, float]
    trend: NDArray[np.float32]
    item_ids: NDArray[np.str_]
    trained_until: datetime
    trained_on: str = "cpu"

    @property
    def capabilities(self) -> Capabilities:
        """What all parts can do, it can."""
        return capabilities_of([part.capabilities for part in self.parts.values()])

    def score(self, history: History) -> Scores:
        """Score users by every part's `score`."""
        self.check(history)
        return self._sum(history, [part.score(history) for part in self.parts.values()])

    def fold_in(self, history: History) -> Scores:
        """Score users by every part's `fold_in`."""
        self.check(history)
        return self._sum(history, [part.fold_in(history) for part in self.parts.values()])

    def _sum(self, history: History, scores: Sequence[Scores]) -> Scores:
        known = np.diff(history.indptr) > 0
        summed = []
        for (name, part), part_scores in zip(self.parts.items(), scores, strict=True):
            can = part.capabilities
            moved = part_scores if can.repeats_only else trended(part_scores, self.trend)
            # What is said to everybody is no list for somebody of whom nothing is known.
            to = known if can.repeats_only or can.baseline is not None else None
            summed.append(scaled(moved, self.weights[name], to))
        return joined(summed)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that a fresh process needs; the catalogue is stored once."""
        header = self.header()
        return {
            **header,
            _PARTS: np.array(list(self.parts), dtype=np.str_),
            "families": np.array([self.families[name] for name in self.parts], dtype=np.str_),
            _WEIGHTS: np.array([self.weights[name] for name in self.parts]),
            _TREND: self.trend,
            **{
                f"{name}/{key}": array
                for name, part in self.parts.items()
                for key, array in part.arrays().items()
                if key not in header
            },
        }

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Rebuild the scorer and its parts."""
        shared = {key: array for key, array in arrays.items() if "/" not in key}
        names = arrays[_PARTS].tolist()
        families = dict(zip(names, arrays["families"].tolist(), strict=True))
        parts = {}
        for name in names:
            own = {
                key.removeprefix(f"{name}/"): array
                for key, array in arrays.items()
                if key.startswith(f"{name}/")
            }
            parts[name] = load(families[name], shared | own)
        return cls(
            parts=parts,
            families=families,
            weights=dict(zip(names, arrays[_WEIGHTS].tolist(), strict=True)),
            trend=arrays[_TREND],
            **read_header(arrays),
        )


def capabilities_of(parts: Sequence[Capabilities]) -> Capabilities:
    """What all parts can do, their blend can."""
    return Capabilities(
        fold_in=all(part.fold_in for part in parts),
        deterministic=all(part.deterministic for part in parts),
        repeats_only=all(part.repeats_only for part in parts),
    )
