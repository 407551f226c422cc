"""Speed of lists: exact top 20 of all users, against implicit's `recommend` and torch.

On Gowalla (train part: 29,858 users, 40,981 items), without the items that a user had, with 128
factors that ALS learnt in three rounds, and with 128 and 1,024 factors that are drawn: a fixed
seed, a spectrum that falls as 1/√j, norms of items that vary as popularity does. Nightjar's row has
the share of the products that it computed; the others cannot change a list, because no inner
product exceeds the product of the norms. Of drawn factors fewer can be left out than of learnt
ones.

First the settings of each library are tried on a few thousand users, and the fastest is taken (for
implicit: threads of its own and of the BLAS; for torch: users at a time). Then all lists are
compared, see `alike`; a list that differs by more than rounding ends the benchmark. Then the time
is measured in turn, Nightjar, peer, Nightjar, peer ..., within one process. Seconds are those of
the CPU on all threads, the fewest of the rounds; a ratio is a peer's seconds divided by Nightjar's,
so above 1 Nightjar is faster. Torch takes part if it is installed.

Also measured: scores besides factors (links between items, own counts), against a sparse product of
scipy and a selection in numpy; with ``--home``, the same for the parts of the model that the latest
run of a workspace trained, such as the one of `make run`; and the memory by which the process grows
while it makes the lists of equally many users from larger and larger catalogues.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from argparse import SUPPRESS
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import GOWALLA, parser, print_progress
from pipeline.models import topk
from pipeline.models.contract import Scores
from pipeline.models.topk import Lists, top_k

K = 20
WIDTHS = {128: 5, 1024: 3}
"""Factors, and rounds of measurement."""
TRIED = 4096
"""Users on which a library's settings are tried."""
LINKS = 200
CATALOGUES = (40_000, 160_000, 640_000)
MEMORY_USERS = 2_000
ROUNDING = 2.0**-24

Peer = Callable[[Scores, sp.csr_matrix], NDArray[np.integer[Any]]]
"""Scores and cells to leave out -> users × k items."""


@dataclass(frozen=True)
class Row:
    """Result of one implementation; ``None`` where it was not measured.

    `ratio` is its seconds divided by Nightjar's, `alike` the share of its lists with the same items
    as Nightjar's (the others differ by rounding alone).
    """

    what: str
    seconds: float | None = None
    users_per_second: float | None = None
    ratio: float | None = None
    alike: float | None = None
    peak_mb: float | None = None
    note: str = ""


class DifferentError(Exception):
    """The lists of two implementations differ by more than rounding."""


def seen_of(file: Path) -> sp.csr_matrix:
    """Read pairs of numbered users and items."""
    pairs = pl.read_parquet(file)
    user, item = (pairs[name].to_numpy() for name in ("user", "item"))
    ones = np.ones(len(pairs), np.float32)
    seen = sp.csr_matrix((ones, (user, item)), shape=(user.max() + 1, item.max() + 1))
    seen.sum_duplicates()
    return seen


def drawn(n_users: int, n_items: int, factors: int, seed: int = 0) -> Scores:
    """Draw factors with the spectrum and the norms of learnt ones."""
    rng = np.random.default_rng(seed)
    users = rng.standard_normal((n_users, factors), np.float32)
    items = rng.standard_normal((n_items, factors), np.float32)
    users *= np.arange(1, factors + 1, dtype=np.float32) ** np.float32(-0.5)
    items *= np.exp(0.5 * rng.standard_normal((n_items, 1), np.float32))
    return Scores(users, items)


def learnt(seen: sp.csr_matrix, factors: int) -> Scores:
    """Learn factors by ALS."""
    from implicit.cpu.als import AlternatingLeastSquares

    with threadpool_limits(1, "blas"):  # it warns of more
        model = AlternatingLeastSquares(
            factors, regularization=1.0, alpha=1.0, iterations=3, random_state=0
        )
        model.fit(seen * np.float32(3), show_progress=False)
    return Scores(model.user_factors, model.item_factors)


def linked(seen: sp.csr_matrix) -> Scores:
    """Link items by walks of three steps, as the family `rp3beta` does."""
    from pipeline.base import silent
    from pipeline.models.item_item import topk_rows_product

    def power(axis: int, exponent: float) -> NDArray[np.float64]:
        return np.maximum(np.asarray(seen.sum(axis=axis), np.float64).ravel(), 1) ** exponent

    forth = sp.diags(power(1, -0.8)) @ seen.astype(np.float64) @ sp.diags(power(0, -0.3))
    back = (seen.astype(np.float64) @ sp.diags(power(0, -0.6))).T
    links = topk_rows_product(back.tocsr(), forth.tocsr(), LINKS, silent)
    return Scores(user_history=seen, item_similarity=links)


def alike(
    nightjar: Lists, peer: NDArray[np.integer[Any]], scores: Scores, seen: sp.csr_matrix
) -> float:
    """Compare lists of full length as sets; return the share of users for whom they are equal.

    Where they are not, the items that only one of them holds must be too close for a float32
    product: the float64 scores of any two of them, one of each list, differ by at most twice the
    bound of its rounding, ``2·f·2⁻²⁴·‖u‖·max‖v‖``.

    Raises
    ------
    DifferentError
        A list is shorter, holds an item twice or one that was to be left out, or differs by more.
    """
    n, n_items = scores.shape
    k = peer.shape[1]
    if (nightjar.counts != k).any():
        raise DifferentError(
            f"user {np.argmax(nightjar.counts != k)}: Nightjar's list is shorter than {k}"
        )
    row = np.repeat(np.arange(n), k)
    mine, other = row * n_items + nightjar.item, row * n_items + peer.ravel()
    gone = np.repeat(np.arange(n), np.diff(seen.indptr)) * n_items + seen.indices
    for name, pairs in (("Nightjar's list", mine), ("the peer's list", other)):
        unique, count = np.unique(pairs, return_counts=True)
        if len(unique) < len(pairs):
            raise DifferentError(_pair(unique[np.argmax(count > 1)], n_items, f"twice in {name}"))
        wrong = np.intersect1d(pairs, gone)
        if len(wrong):
            raise DifferentError(_pair(wrong[0], n_items, f"in {name}, though the user had it"))
    left, right = np.setdiff1d(mine, other), np.setdiff1d(other, mine)
    users, items = scores.users.astype(np.float64), scores.items.astype(np.float64)
    longest = np.linalg.norm(items, axis=1).max()
    ends = []
    for pairs in (left, right):
        user, item = np.divmod(pairs, n_items)
        score = np.einsum("nf,nf->n", users[user], items[item])
        low, high = np.full(n, np.inf), np.full(n, -np.inf)
        np.minimum.at(low, user, score)
        np.maximum.at(high, user, score)
        ends.append((low, high))
    (our_low, our_high), (their_low, their_high) = ends
    apart = np.maximum(our_high - their_low, their_high - our_low)
    bound = 2 * users.shape[1] * ROUNDING * np.linalg.norm(users, axis=1) * longest
    far = np.flatnonzero(apart > bound)
    if len(far):
        user = far[0]
        raise DifferentError(
            f"user {user}: the lists hold items that score {apart[user]:.3g} apart, "
            f"where rounding explains {bound[user]:.3g}"
        )
    return 1 - len(np.unique(left // n_items)) / n


def _pair(pair: np.integer[Any], n_items: int, what: str) -> str:
    return f"user {pair // n_items}: item {pair % n_items} is {what}"


def exact_lists(scores: Scores, seen: sp.csr_matrix | None) -> Lists:
    """Return Nightjar's lists."""
    return top_k(scores, K, exclude=seen)


def share_visited(scores: Scores, seen: sp.csr_matrix) -> float:
    """Return the share of the products of users and items that the lists needed."""
    computed, offer = 0, topk._BestItems._offer_tile

    def counted(best: Any, block: Any, live: NDArray[np.int64], base: int, exact: bool) -> int:
        nonlocal computed
        computed += len(live) * min(topk._TILE_ITEMS, scores.shape[1] - base)
        return offer(best, block, live, base, exact)

    topk._BestItems._offer_tile = counted
    try:
        exact_lists(scores, seen)
    finally:
        topk._BestItems._offer_tile = offer
    return computed / (scores.shape[0] * scores.shape[1])


def by_scipy(scores: Scores, seen: sp.csr_matrix | None) -> NDArray[np.integer[Any]]:
    """Return lists by a sparse product, a dense block and a selection."""
    n, n_items = scores.shape
    ranked = np.empty((n, min(K, n_items)), np.int64)
    for start in range(0, n, 128):
        rows = slice(start, start + 128)
        block = np.zeros((len(ranked[rows]), n_items), np.float32)
        for beside in (
            None
            if scores.user_history is None
            else scores.user_history[rows] @ scores.item_similarity,
            None if scores.sparse_bonus is None else scores.sparse_bonus[rows],
        ):
            if beside is not None:
                block += beside.toarray()
        if scores.users is None:
            block[block == 0] = -np.inf
        else:
            block += scores.users[rows] @ scores.items.T
        if seen is not None:
            block[seen[rows].nonzero()] = -np.inf
        some = np.argpartition(-block, ranked.shape[1] - 1, axis=1)[:, : ranked.shape[1]]
        order = np.argsort(-np.take_along_axis(block, some, axis=1), axis=1)
        ranked[rows] = np.take_along_axis(some, order, axis=1)
    return ranked


def implicit_by(own: int, blas: int) -> Peer:
    """Return implicit's `recommend` with so many threads of its own and of the BLAS."""
    from implicit.cpu.als import AlternatingLeastSquares

    def lists(scores: Scores, seen: sp.csr_matrix) -> NDArray[np.integer[Any]]:
        with threadpool_limits(blas, "blas"):
            model.user_factors, model.item_factors = scores.users, scores.items
            return model.recommend(np.arange(scores.shape[0]), seen, N=K)[0]

    with threadpool_limits(1, "blas"):  # it warns of more
        model = AlternatingLeastSquares(factors=1, num_threads=own)
    return lists


def torch_by(at_once: int) -> Peer:
    """Return a product and `topk` in torch, for so many users at a time."""
    import torch

    def lists(scores: Scores, seen: sp.csr_matrix) -> NDArray[np.integer[Any]]:
        users, items = torch.from_numpy(scores.users), torch.from_numpy(scores.items).T
        ranked = np.empty((scores.shape[0], K), np.int64)
        with torch.inference_mode():
            for start in range(0, len(users), at_once):
                part = slice(start, start + at_once)
                block = users[part] @ items
                row, column = (torch.from_numpy(at.astype(np.int64)) for at in seen[part].nonzero())
                block[row, column] = -torch.inf
                ranked[part] = torch.topk(block, K, dim=1).indices.numpy()
        return ranked

    return lists


def peers() -> dict[str, dict[str, Peer]]:
    """Return the settings to try of each library; none if it is not installed."""
    cores = os.cpu_count() or 1
    threads = dict.fromkeys([(cores, 1), (1, 1), (1, cores), (cores, cores)])
    by_torch = {}
    if importlib.util.find_spec("torch"):
        by_torch = {f"{n} users at a time": torch_by(n) for n in (128, 512, 2048)}
    return {
        "implicit": {
            f"threads: {own} of its own, {blas} of the BLAS": implicit_by(own, blas)
            for own, blas in threads
        },
        "torch": by_torch,
    }


def compare(what: str, scores: Scores, seen: sp.csr_matrix, rounds: int) -> list[Row]:
    """Choose settings, compare the lists, then measure the time in turn."""
    n = scores.shape[0]
    few = Scores(scores.users[:TRIED], scores.items), seen[:TRIED]
    chosen = {name: _best(settings, *few) for name, settings in peers().items()}
    runs = {name: measured[1] for name, measured in chosen.items() if measured}
    reference = exact_lists(scores, seen)
    same = {name: alike(reference, run(scores, seen), scores, seen) for name, run in runs.items()}
    seconds = dict.fromkeys(("Nightjar", *runs), math.inf)
    for _ in range(rounds):
        for name, run in {"Nightjar": exact_lists, **runs}.items():
            seconds[name] = min(seconds[name], _taken(lambda run=run: run(scores, seen)))
    note = f"{share_visited(scores, seen):.0%} of the products"
    rows = [_row(f"{what}: Nightjar", seconds["Nightjar"], n, note=note)]
    for name, measured in chosen.items():
        if measured is None:
            rows.append(Row(f"{what}: {name}", note="not installed"))
            continue
        ratio = seconds[name] / seconds["Nightjar"]
        rows.append(_row(f"{what}: {name}", seconds[name], n, ratio, same[name], measured[0]))
    return rows


def other_scores(seen: sp.csr_matrix, factors: int) -> list[Row]:
    """Measure lists from links and own counts, alone and with factors."""
    own = seen.copy()
    own.data = np.random.default_rng(1).random(own.nnz, np.float32)
    scores, links = learnt(seen, factors), linked(seen)
    both = replace(scores, user_history=seen, item_similarity=links.item_similarity)
    return [
        *against_scipy(f"{LINKS} links an item", links, seen),
        *against_scipy(f"factors and {LINKS} links", both, seen),
        *against_scipy("factors and own counts", replace(scores, sparse_bonus=own), None),
        *against_scipy("own counts", Scores(sparse_bonus=own), None),
    ]


def against_scipy(what: str, scores: Scores, seen: sp.csr_matrix | None) -> list[Row]:
    """Measure Nightjar and `by_scipy` in turn; only lists of full length are compared."""
    lists, peer = exact_lists(scores, seen), by_scipy(scores, seen)
    full = lists.counts == peer.shape[1]
    mine = lists.item[full[lists.row]].reshape(-1, peer.shape[1])
    same = float((np.sort(mine) == np.sort(peer[full])).all(axis=1).mean()) if full.any() else 1.0
    seconds = [math.inf, math.inf]
    for _ in range(3):
        for at, run in enumerate((exact_lists, by_scipy)):
            seconds[at] = min(seconds[at], _taken(lambda run=run: run(scores, seen)))
    return [
        _row(f"{what}: Nightjar", seconds[0], len(full)),
        _row(f"{what}: scipy", seconds[1], len(full), seconds[1] / seconds[0], same),
    ]


def parts_of_run(home: Path) -> list[Row]:
    """Measure the model that the latest run of a workspace trained, whole and by parts."""
    from pipeline.workspace.run_files import read_history, read_scorer
    from pipeline.workspace.workspace import Workspace

    names = sorted(path.parent.name for path in (home / "runs").glob("*/refit"))
    run = Workspace.open(home).run(names[-1])
    history, scorer = read_history(run, "full"), read_scorer(run, "refit")
    parts = {"whole model": scorer, **getattr(scorer, "parts", {})}
    return [
        row
        for name, part in parts.items()
        for row in against_scipy(name, part.score(history), history.seen)
    ]


def growth(n_items: int) -> float:
    """Return the MB by which this process grows at its peak while it makes lists."""
    scores = drawn(MEMORY_USERS, n_items, 128)
    rng = np.random.default_rng(2)
    cells = np.ones(MEMORY_USERS * 30, np.float32), rng.integers(0, n_items, MEMORY_USERS * 30)
    seen = sp.csr_matrix((*cells, np.arange(MEMORY_USERS + 1) * 30), shape=scores.shape)
    seen.sum_duplicates()
    exact_lists(
        Scores(scores.users[:300], scores.items[:1000]), seen[:300, :1000]
    )  # loads what it needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    exact_lists(scores, seen)
    return _status("VmHWM") - before


def memory() -> list[Row]:
    """Measure `growth` for each catalogue, in a process of its own."""
    rows = []
    for n_items in CATALOGUES:
        command = [sys.executable, __file__, "--grow", str(n_items)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        what = f"Nightjar: {MEMORY_USERS:,} users, {n_items:,} items, 128 factors"
        rows.append(Row(what, peak_mb=float(done.stdout)))
    return rows


def _best(
    settings: dict[str, Peer], scores: Scores, seen: sp.csr_matrix
) -> tuple[str, Peer] | None:
    if not settings:
        return None
    taken = dict.fromkeys(settings, math.inf)
    for _ in range(3):  # in turn, too: other load of the machine affects all of them
        for name, run in settings.items():
            taken[name] = min(taken[name], _taken(lambda run=run: run(scores, seen)))
    fastest = min(taken, key=lambda name: taken[name])
    return fastest, settings[fastest]


def _taken(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _row(
    what: str,
    seconds: float,
    users: int,
    ratio: float | None = None,
    same: float | None = None,
    note: str = "",
) -> Row:
    return Row(what, seconds, users / seconds, ratio, same, None, note)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kilobytes) / 1024


def main() -> None:
    arguments = parser(__doc__, data=GOWALLA)
    arguments.add_argument("--home", type=Path, help="workspace with a run")
    arguments.add_argument("--grow", type=int, help=SUPPRESS)
    options = arguments.parse_args()
    if options.grow:
        print(growth(options.grow))
        return
    file = options.data / "gowalla" / "train.parquet"
    if not file.is_file():
        raise SystemExit(f"{file} does not exist; give the folder that holds gowalla/ as --data")
    seen = seen_of(file)
    rows: list[Row] = []
    for at, (factors, rounds) in enumerate(WIDTHS.items()):
        print_progress(f"{factors:,} factors ...")
        if not at:
            rows += compare(f"{factors:,} learnt", learnt(seen, factors), seen, rounds)
        rows += compare(f"{factors:,} drawn", drawn(*seen.shape, factors), seen, rounds)
    print_progress("other scores, memory ...")
    rows += other_scores(seen, next(iter(WIDTHS)))
    if options.home:
        rows += parts_of_run(options.home)
    rows += memory()
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
    else:
        show(rows)


def show(rows: list[Row]) -> None:
    """Print the table."""

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    print(f"{'what':<48} {'seconds':>8} {'users/s':>8} {'ratio':>7} {'alike':>8} {'+MB':>5}")
    for row in rows:
        print(
            f"{row.what:<48} {cell(row.seconds, '.2f'):>8} {cell(row.users_per_second, ',.0f'):>8} "
            f"{cell(row.ratio, '.2f'):>7} {cell(row.alike, '.3%'):>8} {cell(row.peak_mb, '.0f'):>5}"
            f"  {row.note}".rstrip()
        )


if __name__ == "__main__":
    main()
