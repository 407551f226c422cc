"""Dataclasses as plain arrays for npz files, and back, by the types of their fields.

Guarantees: keys are names of fields, in their order; arrays hold numbers and strings, never
objects; `unpack` restores each value with its type.

A number or a string becomes an array without dimensions, and ``None`` in the place of a float
infinity. A square sparse matrix ``x`` becomes ``x_data``, ``x_indices`` and ``x_indptr``. The keys
of a nested dataclass ``x`` begin with ``x/``; for ``None`` there are none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
_CSR = ("data", "indices", "indptr")


def pack(record: Any, *, prefix: str = "", skip: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Return the fields of a dataclass as arrays, but those in `skip`; keys begin with `prefix`."""
    packed: dict[str, NDArray[Any]] = {}
    for name, kind in _kinds(type(record), skip).items():
        key, value = prefix + name, getattr(record, name)
        if is_dataclass(value):
            packed |= pack(value, prefix=f"{key}/")
        elif isinstance(value, sp.csr_matrix):
            packed |= {f"{key}_{part}": getattr(value, part) for part in _CSR}
        elif value is not None:
            packed[key] = np.asarray(value)
        elif float in kind:
            packed[key] = np.array(np.inf)
    return packed


def unpack(
    record: type, arrays: Arrays, *, prefix: str = "", skip: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields of a dataclass, but those in `skip`, from the arrays of `pack`."""
    values: dict[str, Any] = {}
    for name, kind in _kinds(record, skip).items():
        key, plain = prefix + name, kind[0]
        if isinstance(plain, type) and is_dataclass(plain):
            there = any(other.startswith(f"{key}/") for other in arrays)
            values[name] = plain(**unpack(plain, arrays, prefix=f"{key}/")) if there else None
        elif plain is sp.csr_matrix:
            cells = tuple(arrays[f"{key}_{part}"] for part in _CSR)
            values[name] = sp.csr_matrix(cells, shape=(len(cells[-1]) - 1,) * 2)
        elif plain in (float, int, str):
            values[name] = plain(arrays[key])
            if len(kind) > 1 and values[name] == np.inf:
                values[name] = None
        else:
            values[name] = arrays[key]
    return values


def _kinds(record: type, skip: Collection[str]) -> dict[str, tuple[Any, ...]]:
    """Return field -> its type, or the types of a union."""
    hints = get_type_hints(record)
    named = {field.name: hints[field.name] for field in fields(record) if field.name not in skip}
    return {n: get_args(h) if isinstance(h, UnionType) else (h,) for n, h in named.items()}
