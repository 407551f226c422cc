"""Sparse matrix of the features of users or items, made by `data.feature_encoding`.

Guarantees: one row per id, one column per feature; stored values are finite; an id without known
features has an empty row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def take_rows(
    indptr: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Select rows of a CSR layout.

    Parameters
    ----------
    indptr
        ``(n_rows + 1,)`` start of each row.
    rows
        Row numbers, in the order of the result; a number below 0 gives an empty row.

    Returns
    -------
    ``(len(rows) + 1,)`` start of each selected row, and the positions of their entries.
    """
    # Indexing by an array copies, so the counts may be changed in place.
    count = np.diff(indptr)[rows]
    count[rows < 0] = 0
    selected = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    # Entry k of a selected row: its start in the old layout, minus that in the new one, plus k.
    start = indptr[:-1][rows] - selected[:-1]
    return selected, np.arange(selected[-1], dtype=np.int64) + np.repeat(start, count)


@dataclass(frozen=True)
class FeatureMatrix:
    """Features of users or items, one row each.

    Attributes
    ----------
    names
        ``(n_features,)`` str, sorted, as ``column=value``.
    cells
        Rows × features CSR float32, finite; rows without known features are empty.
    """

    names: NDArray[np.str_]
    cells: sp.csr_matrix

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return all fields as arrays whose names begin with `prefix`; inverse of `read`."""
        return {
            f"{prefix}names": self.names,
            f"{prefix}data": self.cells.data,
            f"{prefix}indices": self.cells.indices,
            f"{prefix}indptr": self.cells.indptr,
        }

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> FeatureMatrix | None:
        """Rebuild a matrix from arrays.

        Parameters
        ----------
        arrays
            Arrays of an npz file.
        prefix
            As given to `arrays`.

        Returns
        -------
        ``None`` if no array has that prefix.
        """
        if f"{prefix}names" not in arrays:
            return None
        names, indptr = arrays[f"{prefix}names"], arrays[f"{prefix}indptr"]
        cells = (arrays[f"{prefix}data"], arrays[f"{prefix}indices"], indptr)
        return cls(names, sp.csr_matrix(cells, shape=(len(indptr) - 1, len(names))))

    def rows(self, rows: NDArray[np.integer[Any]]) -> FeatureMatrix:
        """Select rows in the given order; a number below 0 gives a row without features."""
        indptr, pick = take_rows(self.cells.indptr, rows)
        cells = (self.cells.data[pick], self.cells.indices[pick], indptr)
        return FeatureMatrix(self.names, sp.csr_matrix(cells, shape=(len(rows), len(self.names))))


@dataclass(frozen=True)
class ColdItems:
    """Items without events: only their features are known.

    Attributes
    ----------
    ids
        ``(n,)`` str, sorted; none is in the window's catalogue.
    features
        One row per id, none empty; its columns are the features of the window's items.
    """

    ids: NDArray[np.str_]
    features: FeatureMatrix

    def arrays(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return all fields as arrays whose names begin with `prefix`; inverse of `read`."""
        return {f"{prefix}ids": self.ids, **self.features.arrays(prefix)}

    @classmethod
    def read(cls, arrays: Mapping[str, NDArray[Any]], prefix: str) -> ColdItems | None:
        """Rebuild the items from arrays.

        Parameters
        ----------
        arrays
            Arrays of an npz file.
        prefix
            As given to `arrays`.

        Returns
        -------
        ``None`` if no array has that prefix.
        """
        features = FeatureMatrix.read(arrays, prefix)
        return None if features is None else cls(arrays[f"{prefix}ids"], features)
