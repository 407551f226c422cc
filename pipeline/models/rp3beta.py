"""Walks of three steps: from what a user had, over the people who had it, to what they had.

Promises: with exponents 1, 1, 0 a link is the probability of walking from one item over one of its
people to another, P³; a target exponent above 0 divides by how popular the end is, RP³β.

With x(u, i) what user u had of item i (`ItemItemRecipe.cells`) and d the sums of rows and columns::

    link(i, j) = d(i)^−source · Σ over u of x(u,i) d(u)^−user x(u,j) · d(j)^−target

P³α (Cooper, Lee, Radzik and Siantos 2014) has source = user = α and target = 0; RP³β (Christoffel,
Paudel, Newell and Bernstein 2015; Paudel et al. 2017) has source = user = 1 and target = β.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import Span
from pipeline.models.item_item import (
    HALF_LIVES,
    NEIGHBOURS,
    PROFILE_HALF_LIVES,
    ItemItemRecipe,
    ItemItemScorer,
    topk_rows_product,
)


class Rp3Beta(ItemItemRecipe):
    """The three-hop filter, each degree with an exponent of its own."""

    space: ClassVar[Mapping[str, Span]] = {
        "user_exponent": Span((0.4, 0.6, 0.8, 1.0, 1.2), 0.0, 1.5, log=False),
        "source_exponent": Span((0.4, 0.6, 0.8, 1.0), 0.0, 1.2, log=False),
        "target_exponent": Span((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 0.0, 1.0, log=False),
        "neighbours": NEIGHBOURS,
        "half_life_days": HALF_LIVES,
        "profile_half_life_days": PROFILE_HALF_LIVES,
    }

    family: Literal["rp3beta"] = Field(default="rp3beta", description="Name of the family.")
    user_exponent: float = Field(
        default=0.8, ge=0, le=2, description="How much less those say who had many items."
    )
    source_exponent: float = Field(
        default=0.6, ge=0, le=2, description="How much less a popular item of the user says."
    )
    target_exponent: float = Field(
        default=0.3, ge=0, le=2, description="How much popularity is taken out of what is listed."
    )

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> ItemItemScorer:
        """Link the items; nothing is random."""
        cells = self.cells(history)
        users, items = np.asarray(cells.sum(axis=1)).ravel(), np.asarray(cells.sum(axis=0)).ravel()
        back, forth = cells.T.tocsr(), cells
        back.data *= np.repeat(_inverse(items, self.source_exponent), np.diff(back.indptr))
        forth.data *= np.repeat(_inverse(users, self.user_exponent), np.diff(forth.indptr))
        forth.data *= _inverse(items, self.target_exponent)[forth.indices]
        links = topk_rows_product(back, forth, self.neighbours, progress)
        return self.linked(history, links)


def _inverse(degree: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return ``degree ** -exponent``, 0 where the degree is 0."""
    return np.power(degree, -exponent, out=np.zeros(len(degree)), where=degree > 0)
