"""Random walks of three steps: from an item of the user over its users to their other items.

Guarantees: with exponents 1, 1, 0 a link is the probability of a walk from one item over one of its
users to another item, P³; a target exponent above 0 divides by the popularity of the last item,
RP³β.

With x(u, i) the cells of `ItemItemRecipe.cells` and d the sums of rows and columns::

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
from pipeline.models.contract import FAMILY, Scorer, Span
from pipeline.models.item_item import ItemItemRecipe, topk_rows_product


class Rp3Beta(ItemItemRecipe):
    """Three-step random walk with one exponent per degree."""

    space: ClassVar[Mapping[str, Span]] = {
        "user_exponent": Span((0.4, 0.6, 0.8, 1.0, 1.2), 0.0, 1.5, log=False),
        "source_exponent": Span((0.4, 0.6, 0.8, 1.0), 0.0, 1.2, log=False),
        "target_exponent": Span((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 0.0, 1.0, log=False),
        **ItemItemRecipe.space,
    }

    family: Literal["rp3beta"] = Field(default="rp3beta", description=FAMILY)
    user_exponent: float = Field(
        default=0.8, ge=0, le=2, description="Exponent that lowers the weight of active users."
    )
    source_exponent: float = Field(
        default=0.6, ge=0, le=2, description="Exponent that lowers the weight of popular own items."
    )
    target_exponent: float = Field(
        default=0.3, ge=0, le=2, description="Exponent that lowers the score of popular items."
    )

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Link the items; nothing is random."""
        cells = self.cells(history)
        users, items = np.asarray(cells.sum(axis=1)).ravel(), np.asarray(cells.sum(axis=0)).ravel()
        # Exponents apply before the product, which keeps only the strongest neighbours.
        back, forth = cells.T.tocsr(), cells
        back.data *= np.repeat(_inverse(items, self.source_exponent), np.diff(back.indptr))
        forth.data *= np.repeat(_inverse(users, self.user_exponent), np.diff(forth.indptr))
        forth.data *= _inverse(items, self.target_exponent)[forth.indices]
        return self.linked(history, topk_rows_product(back, forth, self.neighbours, progress))


def _inverse(degree: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return ``degree ** -exponent``, 0 where the degree is 0."""
    return np.power(degree, -exponent, out=np.zeros(len(degree)), where=degree > 0)
