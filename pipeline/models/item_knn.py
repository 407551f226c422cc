"""Item neighbours: items that the same people had, by cosine, tf-idf or BM25.

Promises: where nothing decays, all weights are equal and shrinkage is 0, cosines are those of
implicit's `CosineRecommender`, and its `TFIDFRecommender` and `BM25Recommender` differ only in a
logarithm of items instead of 1 + items, which in a catalogue of two or three would silence all. An
item's similarity to itself, which implicit keeps, is no link here.

With x(u, i) what user u had of item i (`ItemItemRecipe.cells`) and idf(u) = ln(1 + items) − ln(1 +
items of u), so that who has everything says nothing::

    cosine   Σ x(u,i) x(u,j) / (|x(i)| |x(j)| + shrinkage)
    tfidf    the same of x(u,i) · idf(u)
    bm25     Σ y(u,i) y(u,j) with y = idf · x (k + 1) / (x + k (1 − b + b · total(i) / mean))

Shrinkage (Bell and Koren 2007) pulls down what few people vouch for; cells are scaled to a mean
square of 1 first, so it counts people and means the same on any data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
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

_K = 1.2
"""BM25's saturation, at the value of the literature (Robertson and Zaragoza 2009)."""


class ItemKnn(ItemItemRecipe):
    """Nearest neighbours of items (Sarwar et al. 2001; Deshpande and Karypis 2004)."""

    space: ClassVar[Mapping[str, Span]] = {
        "shrinkage": Span((0.0, 3.0, 10.0, 30.0, 100.0), 0.0, 1000.0, log=False),
        "b": Span((0.1, 0.3, 0.5, 0.75, 1.0), 0.0, 1.0, log=False),
        "neighbours": NEIGHBOURS,
        "half_life_days": HALF_LIVES,
        "profile_half_life_days": PROFILE_HALF_LIVES,
    }

    family: Literal["item_knn"] = Field(default="item_knn", description="Name of the family.")
    similarity: Literal["cosine", "tfidf", "bm25"] = Field(
        default="tfidf", description="How alike two items are by the people who had them."
    )
    shrinkage: float = Field(
        default=30.0,
        ge=0,
        le=1e6,
        description="People who must agree before a cosine counts half; `bm25` has none.",
    )
    b: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="How much `bm25` takes popularity out: 0 not at all, 1 altogether.",
    )

    @property
    def tunable(self) -> Mapping[str, Span]:
        """What counts for the similarity: `shrinkage` or, for `bm25`, `b`."""
        ignored = "shrinkage" if self.similarity == "bm25" else "b"
        return {name: span for name, span in self.space.items() if name != ignored}

    def train(
        self, history: History, *, replicate: int = 0, progress: Progress = silent
    ) -> ItemItemScorer:
        """Link the items; nothing is random."""
        cells = self.cells(history)
        if self.similarity != "cosine":
            if self.similarity == "bm25":
                cells.data = _saturated(cells, self.b)
            counts = np.diff(cells.indptr)
            idf = np.log1p(history.n_items) - np.log1p(counts)
            cells.data *= np.repeat(idf, counts)
            cells.eliminate_zeros()
        if self.similarity == "bm25" or not cells.nnz:
            links = topk_rows_product(cells.T.tocsr(), cells, self.neighbours, progress)
            return self.linked(history, links)
        cells.data /= np.sqrt(np.mean(cells.data**2))
        length = np.sqrt(np.bincount(cells.indices, cells.data**2, history.n_items))

        def cosine(
            row: NDArray[np.int32], column: NDArray[np.int32], value: NDArray[np.float64]
        ) -> NDArray[np.float64]:
            scaled: NDArray[np.float64] = value / (length[row] * length[column] + self.shrinkage)
            return scaled

        links = topk_rows_product(cells.T.tocsr(), cells, self.neighbours, progress, cosine)
        return self.linked(history, links)


def _saturated(cells: sp.csr_matrix, b: float) -> NDArray[np.float64]:
    """Return the cells by BM25, without idf: items are the documents, users the terms."""
    total = np.bincount(cells.indices, cells.data, cells.shape[1])
    length = 1.0 - b + b * total / total.mean() if cells.nnz else total
    saturated: NDArray[np.float64] = (
        cells.data * (_K + 1.0) / (_K * length[cells.indices] + cells.data)
    )
    return saturated
