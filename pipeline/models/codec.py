"""Dataclasses as plain arrays for npz files, and back, by the types of their fields.

Guarantees: keys are names of fields, or the ``key`` of their metadata, in the order of the fields;
arrays hold numbers and strings, never objects; `unpack` restores each value with its type.

A number or a string becomes an array without dimensions, an instant its ISO 8601 text, and ``None``
in the place of a float infinity. A square sparse matrix ``x`` becomes ``x_data``, ``x_indices`` and
``x_indptr``. The keys of a nested dataclass ``x`` begin with ``x/``. Any other ``None``
has no array.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pipeline.base import format_instant, parse_instant

Arrays = Mapping[str, NDArray[Any]]
_CSR = ("data", "indices", "indptr")


def pack(record: Any, *, prefix: str = "", skip: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """Return the fields of a dataclass as arrays.

    Parameters
    ----------
    record
        Instance of a dataclass.
    prefix
        Beginning of all keys.
    skip
        Names of fields to leave out.
    """
    packed: dict[str, NDArray[Any]] = {}
    for name, key, kind in _fields(type(record), prefix, skip):
        value = getattr(record, name)
        if is_dataclass(value):
            packed |= pack(value, prefix=f"{key}/")
        elif isinstance(value, sp.csr_matrix):
            packed |= {f"{key}_{part}": getattr(value, part) for part in _CSR}
        elif isinstance(value, datetime):
            packed[key] = np.array(format_instant(value))
        elif value is not None:
            packed[key] = np.asarray(value)
        elif float in kind:
            # Arrays without objects have no null; an infinite half-life means no decay as well.
            packed[key] = np.array(np.inf)
    return packed


def unpack(
    record: type, arrays: Arrays, *, prefix: str = "", skip: Collection[str] = ()
) -> dict[str, Any]:
    """Return the fields of a dataclass from the arrays of `pack`.

    Parameters
    ----------
    record
        The dataclass.
    arrays
        Arrays by key; other keys are ignored.
    prefix, skip
        As given to `pack`.
    """
    values: dict[str, Any] = {}
    for name, key, kind in _fields(record, prefix, skip):
        plain = kind[0]
        if isinstance(plain, type) and is_dataclass(plain):
            # A nested record of None leaves no key, so their absence stands for it.
            present = any(other.startswith(f"{key}/") for other in arrays)
            values[name] = plain(**unpack(plain, arrays, prefix=f"{key}/")) if present else None
        elif plain is sp.csr_matrix:
            cells = tuple(arrays[f"{key}_{part}"] for part in _CSR)
            # Stored sparse fields are items × items, so the row pointer gives both sizes.
            values[name] = sp.csr_matrix(cells, shape=(len(cells[-1]) - 1,) * 2)
        elif key not in arrays and NoneType in kind:
            values[name] = None
        elif plain in (float, int, str):
            values[name] = plain(arrays[key])
            if NoneType in kind and values[name] == np.inf:
                values[name] = None
        else:
            values[name] = parse_instant(str(arrays[key])) if plain is datetime else arrays[key]
    return values


def _fields(
    record: type, prefix: str, skip: Collection[str]
) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield the name of each field, its key, and its type or the types of its union."""
    hints = get_type_hints(record)
    for field in fields(record):
        if field.name not in skip:
            hint = hints[field.name]
            kind = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            yield field.name, prefix + field.metadata.get("key", field.name), kind
