"""Nearest neighbours of items: items of the same users, by cosine, tf-idf or BM25.

Guarantees:

* Without decay, with equal weights and shrinkage 0, cosines equal those of implicit's
  `CosineRecommender`.
* No item has a link to itself (implicit keeps these).

`tfidf` and `bm25` differ from implicit's `TFIDFRecommender` and `BM25Recommender` in one term: idf
has ln(1 + items) where implicit has ln(items), with which a catalogue of two or three items would
have no links.

With x(u, i) the cells of `ItemItemRecipe.cells` and idf(u) = ln(1 + items) − ln(1 + items of u), so
that a user with all items has no weight::

    cosine   Σ x(u,i) x(u,j) / (|x(i)| |x(j)| + shrinkage)
    tfidf    the same of x(u,i) · idf(u)
    bm25     Σ y(u,i) y(u,j) with y = idf · x (k + 1) / (x + k (1 − b + b · total(i) / mean))

Shrinkage (Bell and Koren 2007) lowers the similarity of items with few users. Cells are scaled to a
mean square of 1 first, so that |x(i)|² is about the number of users of i on any data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import FAMILY, Scorer, Share, Span
from pipeline.models.item_item import ItemItemRecipe, topk_rows_product

_K = 1.2
"""BM25's saturation, at the value of the literature (Robertson and Zaragoza 2009)."""


class ItemKnn(ItemItemRecipe):
    """Nearest neighbours of items (Sarwar et al. 2001; Deshpande and Karypis 2004)."""

    space: ClassVar[Mapping[str, Span]] = {
        "shrinkage": Span((0.0, 3.0, 10.0, 30.0, 100.0), 0.0, 1000.0, log=False),
        "b": Span((0.1, 0.3, 0.5, 0.75, 1.0), 0.0, 1.0, log=False),
        **ItemItemRecipe.space,
    }

    family: Literal["item_knn"] = Field(default="item_knn", description=FAMILY)
    similarity: Literal["cosine", "tfidf", "bm25"] = Field(
        default="tfidf", description="Similarity of two items, computed from their users."
    )
    shrinkage: float = Field(
        default=30.0,
        ge=0,
        le=1e6,
        description="The similarity of two items with this number of users each is halved; `bm25` "
        "ignores it.",
    )
    b: Share = Field(
        default=0.75, description="Share of popularity that `bm25` divides out: 0 none, 1 all."
    )

    @property
    def tunable(self) -> Mapping[str, Span]:
        """Fields that the similarity reads: `shrinkage` or, for `bm25`, `b`."""
        ignored = "shrinkage" if self.similarity == "bm25" else "b"
        return {name: span for name, span in self.space.items() if name != ignored}

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Compute the links between items; the seed has no effect."""
        cells = self.cells(history)
        if self.similarity != "cosine":
            if self.similarity == "bm25":
                _saturate(cells, self.b)
            counts = np.diff(cells.indptr)
            idf = np.log1p(history.n_items) - np.log1p(counts)
            cells.data *= np.repeat(idf, counts)
            cells.eliminate_zeros()  # the idf of a user with all items is 0
        norms = None
        if self.similarity != "bm25" and cells.nnz:
            cells.data /= np.sqrt(np.mean(cells.data**2))
            norms = np.sqrt(np.bincount(cells.indices, cells.data**2, cells.shape[1]))
        turned = cells.T.tocsr()
        links = topk_rows_product(turned, cells, self.neighbours, progress, norms, self.shrinkage)
        return self.linked(history, links)


def _saturate(cells: sp.csr_matrix, b: float) -> None:
    """Weigh the cells by BM25, without idf: items are the documents, users the terms."""
    total = np.bincount(cells.indices, cells.data, cells.shape[1])
    length = 1.0 - b + b * total / total.mean() if cells.nnz else total
    cells.data = cells.data * (_K + 1.0) / (_K * length[cells.indices] + cells.data)
