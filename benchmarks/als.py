"""Speed of the users of ALS for fixed item factors, against a loop with numpy.

The loop solves each user in float64 in the space of the factors, on one thread. Nightjar solves a
user with fewer items than factors in the space of its items. Factors, items and confidences are
drawn, every user has 60 items (``--items``); both results are compared before the time is
measured, in turn within one process. Seconds are those of the CPU on all threads, so the ratio is
that of one core; ``by the clock`` is with all cores.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import cpu_seconds, parser
from pipeline.models.als import solve_users

USERS = {64: 8000, 128: 4000, 256: 2000}
"""Number of users for each number of factors."""
CATALOGUE = 5000
PENALTY = 3.0
ROUNDS = 3
ALIKE = 1e-5
"""Largest difference of two results, relative to the largest factor."""


@dataclass(frozen=True)
class Row:
    """CPU microseconds for each user, and the ratios of the loop to Nightjar."""

    factors: int
    loop: float
    nightjar: float
    ratio: float
    ratio_by_the_clock: float
    difference: float


def loop(
    item_factors: NDArray[np.float32], cells: sp.csr_matrix, regularization: float
) -> NDArray[np.float32]:
    """Solve the users one after the other.

    Parameters
    ----------
    item_factors, cells, regularization
        As for `solve_users`.
    """
    users = np.zeros((cells.shape[0], item_factors.shape[1]), np.float32)
    with threadpool_limits(1, "blas"):  # threads cost more than f × f matrices gain
        matrix = item_factors.astype(np.float64)
        everywhere = matrix.T @ matrix + regularization * np.eye(users.shape[1])
        for row in np.flatnonzero(np.diff(cells.indptr)):
            own = slice(cells.indptr[row], cells.indptr[row + 1])
            confidence = cells.data[own].astype(np.float64)
            items = item_factors[cells.indices[own]].astype(np.float64)
            left = everywhere + items.T @ ((confidence - 1.0)[:, None] * items)
            users[row] = np.linalg.solve(left, items.T @ confidence)
    return users


def measure(factors: int, n_items: int) -> Row:
    """Compare both, then measure them in turn.

    Parameters
    ----------
    factors
        Length of a factor vector.
    n_items
        Items of a user.
    """
    rng, n_users = np.random.default_rng(3), USERS[factors]
    items = (rng.standard_normal((CATALOGUE, factors)) * 0.1).astype(np.float32)
    column = np.concatenate([rng.choice(CATALOGUE, n_items, replace=False) for _ in range(n_users)])
    value = (rng.random(len(column)) * 5 + 0.01).astype(np.float32)
    start = np.arange(n_users + 1) * n_items
    cells = sp.csr_matrix((value, column, start), shape=(n_users, CATALOGUE))

    def seconds(
        solve: Callable[[NDArray[np.float32], sp.csr_matrix, float], object],
    ) -> tuple[float, float]:
        clock, used = time.perf_counter(), cpu_seconds()
        solve(items, cells, PENALTY)
        return cpu_seconds() - used, time.perf_counter() - clock

    expected, solved = loop(items, cells, PENALTY), solve_users(items, cells, PENALTY)
    difference = float(np.abs(expected - solved).max() / np.abs(expected).max())
    if difference > ALIKE:
        raise SystemExit(f"{factors} factors: the results differ by {difference:.1e}")
    timed = np.array([[seconds(loop), seconds(solve_users)] for _ in range(ROUNDS)]).min(axis=0)
    (before, before_clock), (after, after_clock) = timed.tolist()
    each = 1e6 / n_users
    return Row(
        factors, before * each, after * each, before / after, before_clock / after_clock, difference
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--items", type=int, default=60, help="items of each user")
    options = arguments.parse_args()
    rows = [measure(factors, options.items) for factors in USERS]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(
        f"{options.items} items a user, CPU µs a user\nfactors  loop  Nightjar  ratio  by the clock"
    )
    for row in rows:
        print(
            f"{row.factors:>7}{row.loop:>6.0f}{row.nightjar:>10.0f}{row.ratio:>6.1f}×"
            f"{row.ratio_by_the_clock:>13.1f}×"
        )


if __name__ == "__main__":
    main()
