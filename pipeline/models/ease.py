"""EASE: each item as a linear regression on all others, in closed form.

Guarantees: the weights are those of Steck (2019) exactly, then cut to the strongest of each item,
as a regression of that item on a few others; the result is the same to the bit for any number of
threads. In a catalogue above the limit the most popular items take part, the others have no links,
and a progress line reports it.

With X the cells of `ItemItemRecipe.cells` (an event of mean weight at the end of the window is 1)::

    B = argmin ‖X − X B‖² + λ ‖B‖²  with  diag(B) = 0
    P = (XᵀX + λI)⁻¹,   B(i, j) = −P(i, j) / P(j, j)

In float64: the condition of XᵀX + λI is up to (largest eigenvalue of XᵀX) / λ, a million and more
for users with a thousand items and a small λ; float32 has seven digits and would keep one.
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
from pipeline.models.cholesky import invert
from pipeline.models.contract import FAMILY, Scorer, Span
from pipeline.models.item_item import PRESENCE_BYTES, ItemItemRecipe
from pipeline.models.sparse_rows import keep_topk_per_row

_ROWS = 128
"""Rows of the dense matrix that are cut at a time."""
_BLAS_BUFFER = 32 << 20
"""Bytes of OpenBLAS's buffer for packed matrices."""


class Ease(ItemItemRecipe):
    """Embarrassingly shallow autoencoder (Steck 2019)."""

    rough: ClassVar[Mapping[str, int]] = {"item_limit": 2000}
    space: ClassVar[Mapping[str, Span]] = {
        "regularization": Span((10.0, 30.0, 100.0, 300.0, 1000.0), 1.0, 10_000.0),
        **ItemItemRecipe.space,
    }

    family: Literal["ease"] = Field(default="ease", description=FAMILY)
    regularization: float = Field(
        default=200.0, ge=1e-3, le=1e6, description="L2 penalty on links, in numbers of users."
    )
    item_limit: int = Field(
        default=10_000,
        ge=1,
        le=40_000,  # the square of it is still an index of 32 bits
        description="Number of items that take part, the most popular ones; memory grows with its "
        "square (10,000 take 0.8 GB), time with its cube.",
    )

    def peak_bytes(self, history: History) -> int:
        """Estimate the larger of the sorted events, and the inversion.

        The inversion holds the dense matrix of items² · 8 bytes, and cells or links.
        """
        items = min(self.item_limit, history.n_items)
        links = items * min(self.neighbours, items)
        cells = int(history.seen.nnz)
        beside = cells * 12 + max(cells * 12, links * 20)
        dense = items**2 * 8 + items * _ROWS * 24 + _BLAS_BUFFER
        return max(len(history.item) * PRESENCE_BYTES, dense + beside)

    def fitted_bytes(self, history: History) -> int:
        """Return the bytes of the links of the items that take part."""
        items = min(self.item_limit, history.n_items)
        return items * min(self.neighbours, items) * 8

    def cpu_seconds(self, history: History) -> float:
        """Estimate the inversion, and the product before it."""
        items = min(self.item_limit, history.n_items)
        return items**3 * 3e-11 + super().cpu_seconds(history) / 5

    def train(self, history: History, *, replicate: int = 0, progress: Progress = silent) -> Scorer:
        """Invert once; nothing is random.

        Raises
        ------
        ConfigError
            `model.singular`: the regularization is too small to invert the matrix.
        """
        cells = self.cells(history)
        items = self._taking_part(cells, progress)
        cells = cells[:, items]
        progress(f"ease: inverting {len(items)} × {len(items)}")
        inverse = invert(_gram(cells, self.regularization), "ease", self.regularization)
        links = _topk_per_row(inverse, self.neighbours).tocoo()
        # Items that do not take part keep empty rows and columns.
        whole = (links.data, (items[links.row], items[links.col]))
        return self.linked(history, sp.csr_matrix(whole, shape=(history.n_items,) * 2))

    def _taking_part(self, cells: sp.csr_matrix, progress: Progress) -> NDArray[np.intp]:
        """Return the most popular items, in the order of the catalogue."""
        popularity = np.bincount(cells.indices, cells.data, cells.shape[1])
        order = np.argsort(-popularity, kind="stable")
        if len(order) > self.item_limit:
            progress(
                f"ease: the {self.item_limit} most popular of {len(order)} items take part, the "
                "others get no links"
            )
        return np.sort(order[: self.item_limit])


def _gram(cells: sp.csr_matrix, regularization: float) -> NDArray[np.float64]:
    """Return ``XᵀX + λI`` dense, in the order of columns that LAPACK works on in place."""
    # Only a process that trains links imports numba.
    from pipeline.models.link_kernel import add_product

    turned, n = cells.T.tocsr(), cells.shape[1]
    gram = np.zeros((n, n))
    left, right = ((x.indptr, x.indices, x.data) for x in (turned, cells))
    add_product(*left, *right, gram)
    gram[np.diag_indices(n)] += regularization
    return gram.T  # symmetric, so only the order in memory changes


def _topk_per_row(inverse: NDArray[np.float64], most: int) -> sp.csr_matrix:
    """Return B, of each column its strongest cells, from the lower triangle of P."""
    n = len(inverse)
    diagonal = inverse.diagonal().copy()
    parts = []
    for start in range(0, n, _ROWS):
        stop = min(start + _ROWS, n)
        # Rows of the symmetric P: left of the diagonal as stored, right of it mirrored.
        block = np.empty((stop - start, n))
        block[:, :start] = inverse[start:stop, :start]
        block[:, stop:] = inverse[stop:, start:stop].T
        square = np.tril(inverse[start:stop, start:stop], -1)
        block[:, start:stop] = square + square.T
        # Row j of the symmetric P divided by −P(j, j) is column j of B.
        block /= -diagonal[start:stop, None]
        parts.append(keep_topk_per_row(sp.csr_matrix(block.astype(np.float32)), most))
    return sp.vstack(parts, format="csr").T.tocsr()
