"""Compiled least squares of users for fixed item factors, for `models.als` (numba).

Guarantees: a user is computed alone, from its own cells and the matrices of all users, so no bit
depends on the other users of a call; a call needs four matrices of f × (f + 1) float64, however
many cells a user has. A result in the space of a user's items is kept only if its residual proves
an error below 10⁻⁶ of its length; else the user is solved in the space of the factors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# numba's products call scipy's BLAS, which must be loaded before its threads can be limited.
import scipy.linalg.cython_blas  # noqa: F401
from numba import types
from numpy.typing import NDArray

from pipeline.models.compiled import compiled

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

_PANEL = 32
"""Rows that are eliminated together, so that they stay in the processor's cache."""
_STRIP = 16
"""Rows of a symmetric product that are computed together, from their first column on."""
_ERROR = 1e-6
"""Largest error of a result in the space of the items, relative to its length."""
_SMALLEST = 2.0**-52
"""Least pivot in the space of the items; a smaller one consists of rounding."""


def _array(kind: Any, dimensions: int = 1, *, readonly: bool = True) -> Any:
    return types.Array(kind, dimensions, "C", readonly=readonly)


_tables = (_array(types.float32, 2), _array(types.float64, 2), _array(types.float64, 2))
_cells = (_array(types.int64), _array(types.int32), _array(types.float32))
_rows = _array(types.float32, 2, readonly=False)


@compiled()
def _matrix(buffer: F64, n: int, width: int) -> F64:
    """Return the start of a buffer as a matrix."""
    return buffer[: n * width].reshape((n, width))


@compiled()
def _solve(system: F64, sign: F64, least: float) -> F64:
    """Solve a symmetric system in place; the right side is the last column."""
    # LDLᵀ without pivoting, on the upper triangle of the other columns. `sign` and `least` are sign
    # and least magnitude of the pivots in exact arithmetic; rounding must not change them.
    n = len(system)
    inverse, right = np.empty(n), np.empty(n)
    for low in range(0, n, _PANEL):
        high = min(low + _PANEL, n)
        for at in range(low, n):
            row, stop, above = system[at, at:], min(at, high), low
            # Four rows at a time, because reading and writing `row` takes most of the time.
            while above + 4 <= stop:
                a, b = system[above, at:], system[above + 1, at:]
                c, d = system[above + 2, at:], system[above + 3, at:]
                by_a, by_b = a[0] * inverse[above], b[0] * inverse[above + 1]
                by_c, by_d = c[0] * inverse[above + 2], d[0] * inverse[above + 3]
                for to in range(len(row)):
                    row[to] -= by_a * a[to] + by_b * b[to] + by_c * c[to] + by_d * d[to]
                above += 4
            while above < stop:
                a = system[above, at:]
                by_a = a[0] * inverse[above]
                for to in range(len(row)):
                    row[to] -= by_a * a[to]
                above += 1
            if at < high:
                inverse[at] = sign[at] / max(sign[at] * row[0], least)
    for at in range(n - 1, -1, -1):
        row = system[at]
        right[at] = inverse[at] * (row[n] - np.dot(row[at + 1 : n], right[at + 1 :]))
    return right


@compiled()
def _in_items(x: F64, z: F64, c: F64, system: F64, strips: F64) -> F64:
    """Solve a user in the space of its items X, with ``Z = XG⁻¹``."""
    # (G + XᵀDX)⁻¹Xᵀc = Zᵀw where (I + DS)w = c, S = XZᵀ and D = C − I. With F = |D|^½, J = sign D
    # and w = Fv + e, (J + FSF)v = JF⁻¹(c − e) − FSe for any e. With e = c for confidences below 2
    # and e = 0 for the others, no divisor is small and no large numbers are subtracted. A pivot has
    # the sign of J, because G + XᵀDX is positive definite for any part of a user's items.
    n = len(c)
    root, sign, rest = np.empty(n), np.empty(n), np.empty(n)
    for at in range(n):
        root[at] = np.sqrt(abs(c[at] - 1.0))
        sign[at] = 1.0 if c[at] >= 1.0 else -1.0
        rest[at] = c[at] if c[at] < 2.0 else 0.0
    known = np.dot(x, np.dot(rest, z))
    for low in range(0, n, _STRIP):
        high = min(low + _STRIP, n)
        strip = _matrix(strips, high - low, n - low)
        np.dot(x[low:high], z[low:].T, strip)
        for at in range(low, high):
            row, own, scale, own_scale = system[at, low:n], strip[at - low], root[low:], root[at]
            for to in range(len(row)):
                row[to] = own_scale * scale[to] * own[to]
            system[at, at] += sign[at]
            large = c[at] / root[at] if c[at] >= 2.0 else 0.0
            system[at, n] = large - root[at] * known[at]
    weight = _solve(system, sign, _SMALLEST)
    for at in range(n):
        weight[at] = root[at] * weight[at] + rest[at]
    user: F64 = np.dot(weight, z)
    return user


@compiled()
def _is_exact(x: F64, c: F64, gram: F64, penalty: float, user: F64) -> bool:
    """Return True if the residual bounds the error: no eigenvalue of the system is below λ."""
    weight = np.dot(x, user)
    for at in range(len(c)):
        weight[at] = (c[at] - 1.0) * weight[at] - c[at]
    rest = np.dot(gram, user) + np.dot(weight, x)
    return bool(np.sqrt(np.dot(rest, rest)) <= _ERROR * penalty * np.sqrt(np.dot(user, user)))


@compiled()
def _in_factors(
    items: F32, gram: F64, penalty: float, column: I32, value: F32, buffers: F64
) -> F64:
    """Solve a user in the space of the factors: no pivot is below λ."""
    f = len(gram)
    system, product = _matrix(buffers[2], f, f + 1), _matrix(buffers[3], f, f)
    right, sign = np.zeros(f), np.empty(f)
    for at in range(f):
        sign[at] = 1.0
        for place in range(f):
            system[at, place] = gram[at, place]
    for low in range(0, len(column), f):
        n = min(f, len(column) - low)
        x, weighted = _matrix(buffers[0], n, f), _matrix(buffers[1], n, f)
        for at in range(n):
            c, row, to_x, to = np.float64(value[low + at]), column[low + at], x[at], weighted[at]
            source = items[np.uint32(row)]
            for place in range(f):
                to_x[place] = source[place]
                to[place] = (c - 1.0) * source[place]
                right[place] += c * source[place]
        np.dot(x.T, weighted, product)
        for at in range(f):
            for place in range(f):
                system[at, place] += product[at, place]
    for at in range(f):
        system[at, f] = right[at]
    return _solve(system, sign, penalty)


@compiled(types.int64(*_tables, types.float64, *_cells, _rows))
def solve_rows(
    items: F32,
    solved: F64,
    gram: F64,
    penalty: float,
    start: I64,
    column: I32,
    value: F32,
    users: F32,
) -> int:
    """Solve ``(G + Vᵀ(C − I)V) u = VᵀC·1`` for each user that has cells.

    Parameters
    ----------
    items, solved
        ``(n_items, f)``: V, and ``VG⁻¹`` for the items of the users.
    gram
        ``(f, f)``: ``G = VᵀV + λI``.
    penalty
        λ > 0.
    start, column, value
        Cells as CSR; those of user r are ``start[r]:start[r + 1]``.
    users
        ``(n_users, f)``, overwritten.

    Returns
    -------
    Number of users with fewer cells than factors who were solved in the space of the factors.
    """
    f, again = len(gram), 0
    buffers = np.empty((4, f * (f + 1)))
    for user in range(len(users)):
        own, own_value = column[start[user] : start[user + 1]], value[start[user] : start[user + 1]]
        n, exact, result = len(own), False, np.zeros(0)
        if n == 0:
            continue
        if n < f:
            x, z, c = _matrix(buffers[0], n, f), _matrix(buffers[1], n, f), np.empty(n)
            for at in range(n):
                c[at] = own_value[at]
                to_x, to_z, from_x = x[at], z[at], items[np.uint32(own[at])]
                from_z = solved[np.uint32(own[at])]
                for place in range(f):
                    to_x[place] = from_x[place]
                    to_z[place] = from_z[place]
            result = _in_items(x, z, c, _matrix(buffers[2], n, n + 1), buffers[3])
            exact = _is_exact(x, c, gram, penalty, result)
            again += not exact
        if not exact:
            result = _in_factors(items, gram, penalty, own, own_value, buffers)
        for place in range(f):
            users[user, place] = result[place]
    return again
