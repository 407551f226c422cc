"""Speed of ALS on a GPU beside the CPU of the same machine, and whether the lists agree.

    gpu.py                                      draws 200,000 users × 50,000 items × 10 M events
    gpu.py gowalla.npz drawn.npz                reads matrices of users × items
    gpu.py --write gowalla.npz --data FOLDER    writes Gowalla's train part
    gpu.py --write drawn.npz                    writes the drawn matrix

For 64, 128 and 256 factors: the fewest seconds of an iteration; for a sample of users, the seconds
of the solve for fixed items (on the GPU by implicit's steps, on the CPU by its Cholesky solver) and
of the top 10 (on the GPU by implicit's search, on the CPU by a blocked product). Both devices begin
at the same vectors. `overlap` is the share of the CPU's first 10 items that the GPU's factors give
as well, by the same product and the same solver of the users; below 0.99 the exit code is 1.
`search` is the same for the lists of implicit's search on the GPU.

It needs numpy, scipy, threadpoolctl, implicit and RMM, and of this project only
`pipeline/models/device.py` with the two modules that it imports, so it runs on a bare machine with
CUDA 13. A row that would begin after `--minutes` is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.models import device
from pipeline.models.gpu_driver import GpuError

K, LEAST = 10, 0.99
ALPHA, PENALTY = 30.0, 30.0
GROUPS = 50
BLOCK = 1000
Floats = NDArray[np.float32]
Items = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Row:
    """Result for one matrix and number of factors; seconds of the GPU, then of the CPU."""

    matrix: str
    factors: int
    iteration: tuple[float, float]
    solve: tuple[float, float]
    lists: tuple[float, float]
    overlap: float
    search: float
    gpu_mb: float


def drawn(users: int, items: int, events: int, seed: int = 0) -> sp.csr_matrix:
    """Draw events: few users and items have many, and a user prefers one of 50 groups of items."""
    rng = np.random.default_rng(seed)
    activity = np.cumsum(rng.lognormal(0, 1, users))
    popularity = np.cumsum(1 / (np.arange(items) + 20))
    user = np.searchsorted(activity, rng.random(events) * activity[-1])
    item = np.searchsorted(popularity, rng.random(events) * popularity[-1])
    own = item - item % GROUPS + rng.integers(0, GROUPS, users)[user]
    item = np.where((rng.random(events) < 0.7) & (own < items), own, item)
    return _counted(user, item, (users, items))


def gowalla(folder: Path) -> sp.csr_matrix:
    """Read the train part of Gowalla."""
    import polars as pl

    pairs = pl.read_parquet(folder / "gowalla" / "train.parquet")
    user, item = (pairs[name].to_numpy() for name in ("user", "item"))
    return _counted(user, item, (int(user.max()) + 1, int(item.max()) + 1))


def _counted(user: Items, item: Items, shape: tuple[int, int]) -> sp.csr_matrix:
    cells = sp.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)
    cells.sum_duplicates()
    return cells


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def plain_lists(users: Floats, items: Floats, seen: sp.csr_matrix) -> Items:
    """Return the best items of each user that are not in `seen`, by blocks of a plain product."""
    lists = np.empty((len(users), K), np.int64)
    for at in range(0, len(users), BLOCK):
        scores = users[at : at + BLOCK] @ items.T
        scores[seen[at : at + BLOCK].nonzero()] = -np.inf
        best = np.argpartition(scores, scores.shape[1] - K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        lists[at : at + BLOCK] = np.take_along_axis(best, order, axis=1)
    return lists


def overlap(left: Items, right: Items) -> float:
    """Return the mean share of items that two lists of a user have in common."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(left, right, strict=True)]
    return float(np.mean(shared)) / K


def solve_on_cpu(items: Floats, cells: sp.csr_matrix) -> Floats:
    """Solve users for fixed items by implicit's Cholesky solver, on all cores."""
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):  # implicit threads over users
        model = AlternatingLeastSquares(items.shape[1], regularization=PENALTY)
        model.item_factors = items
        return np.asarray(model.recalculate_user(np.arange(cells.shape[0]), cells))


def model_on_gpu(items: Floats) -> Any:
    """Return implicit's model of the GPU with these items."""
    import implicit.gpu
    from implicit.gpu.als import AlternatingLeastSquares

    wide = device.whole_warps(items)
    model = AlternatingLeastSquares(wide.shape[1], regularization=PENALTY)
    model.item_factors = implicit.gpu.Matrix(wide)
    return model


def measure(name: str, cells: sp.csr_matrix, factors: int, rounds: int, sample: int) -> Row:
    """Fit, solve and list on both devices.

    Parameters
    ----------
    name
        Name of the matrix.
    cells
        Users × items confidence.
    factors, rounds
        Length of a factor vector, and iterations.
    sample
        Users that are solved and get a list.
    """
    start = np.random.default_rng(1).normal(0, 0.01, (cells.shape[1], factors)).astype(np.float32)
    seconds: dict[str, list[float]] = {"cuda": [], "cpu": []}
    items: dict[str, Floats] = {}
    with device.watch_gpu() as use:
        for wanted in seconds:

            def report(_: int, passed: float, *__: object, of: str = wanted) -> None:
                seconds[of].append(passed)

            how = device.LeastSquares(PENALTY, rounds, report)
            items[wanted], _ = device.fit(wanted, how, cells, start.copy())
    # All items are alike for a user without events.
    active = np.flatnonzero(np.diff(cells.indptr))
    seen = cells[np.random.default_rng(2).permutation(active)[:sample]]
    model, rows = model_on_gpu(items["cuda"]), np.arange(seen.shape[0])
    model.user_factors, gpu_solve = timed(lambda: model.recalculate_user(rows, seen))
    users, cpu_solve = timed(lambda: solve_on_cpu(items["cpu"], seen))
    (searched, _), gpu_lists = timed(lambda: model.recommend(rows, seen, N=K))
    on_cpu, cpu_lists = timed(lambda: plain_lists(users, items["cpu"], seen))
    on_gpu = plain_lists(solve_on_cpu(items["cuda"], seen), items["cuda"], seen)
    return Row(
        matrix=name,
        factors=factors,
        iteration=(min(seconds["cuda"]), min(seconds["cpu"])),
        solve=(gpu_solve, cpu_solve),
        lists=(gpu_lists, cpu_lists),
        overlap=overlap(on_gpu, on_cpu),
        search=overlap(np.asarray(searched), on_cpu),
        gpu_mb=use.peak_bytes / (1 << 20),
    )


def confidence(cells: sp.csr_matrix) -> sp.csr_matrix:
    """Return a matrix as float32 confidence of a fixed mean."""
    cells = sp.csr_matrix(cells, dtype=np.float32)
    cells.data *= np.float32(ALPHA / cells.data.mean(dtype=np.float64))
    return cells


def table(rows: list[Row]) -> str:
    """Return the rows as text; seconds of the GPU and the CPU, and their ratio."""
    head = f"{'matrix':<10}{'factors':>8}" + "".join(
        f"{what + ', GPU':>16}{'CPU':>9}{'ratio':>7}" for what in ("iteration", "solve", "lists")
    )
    lines = [head + f"{'overlap':>9}{'search':>8}{'GPU, MB':>9}"]
    for row in rows:
        pairs = "".join(
            f"{gpu:>16.3f}{cpu:>9.3f}{cpu / gpu:>7.1f}"
            for gpu, cpu in (row.iteration, row.solve, row.lists)
        )
        ends = f"{row.overlap:>9.4f}{row.search:>8.4f}{row.gpu_mb:>9,.0f}"
        lines.append(f"{row.matrix:<10}{row.factors:>8}{pairs}{ends}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, or write a matrix; return the exit code."""
    options = _options(arguments)
    if options.write is not None:
        made = drawn(*options.size) if options.data is None else gowalla(options.data)
        sp.save_npz(options.write, made)
        return 0
    began, rows = time.monotonic(), list[Row]()
    try:
        gpu = device.usable_gpu()
        print(f"{gpu.name}, compute capability {gpu.capability}", file=sys.stderr)
        for file in options.matrix or [None]:
            name = "drawn" if file is None else file.stem
            cells = confidence(drawn(*options.size) if file is None else sp.load_npz(file))
            for factors in options.factors:
                if time.monotonic() - began > 60 * options.minutes:
                    print(f"{name}, {factors} factors: left out, time is up", file=sys.stderr)
                    continue
                rows.append(measure(name, cells, factors, options.iterations, options.sample))
                print(table(rows[-1:]), file=sys.stderr)
    except GpuError as cause:
        print(f"{cause.id}: {cause.sentence}", file=sys.stderr)
        return cause.exit_code
    print(json.dumps([asdict(row) for row in rows]) if options.json else table(rows))
    return int(any(row.overlap < LEAST for row in rows))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("matrix", nargs="*", type=Path, help="files of scipy.sparse.save_npz")
    parser.add_argument("--factors", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--sample", type=int, default=5_000, help="users of solve and lists")
    parser.add_argument("--size", nargs=3, type=int, default=[200_000, 50_000, 10_000_000])
    parser.add_argument("--minutes", type=float, default=6.0, help="no row begins later")
    parser.add_argument("--write", type=Path, help="write a matrix and end")
    parser.add_argument("--data", type=Path, help="folder with gowalla/train.parquet")
    parser.add_argument("--json", action="store_true", help="one JSON array on stdout")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
