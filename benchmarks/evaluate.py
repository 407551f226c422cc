"""How fast is judging? Seven metrics at k = 10 and 20, against RecTools and ranx, on Gowalla.

The lists are the top 20 of a truncated SVD for 29,858 users, judged by the published test part. The
peers live in an environment of their own, because RecTools would change this project's libraries;
`tests/golden/make.py` says how to make it. It is named by ``--peers`` and runs as a child that
takes turns with us: ours, RecTools, ranx, ours ..., so that whatever else the machine does falls on
all of them. Each starts from what it takes, ready made: arrays; frames of numbered users and items;
``Qrels`` and a ``Run``. (Making these two from frames is told in a row of its own.) Each ends with
the means over users, and they must be equal, MAP by the relation that `evaluation.metrics` states;
ranx knows six of the seven.

A ratio is the median over the rounds of their seconds over ours of the same round, so above 1 ours
is the faster one. Of our other rows it is theirs over our metrics of the same round: an interval of
1,000 draws may cost 50 times as much.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ROOT, parser, tell
from benchmarks.lists import K, seen_of
from pipeline.evaluation.beyond_accuracy import coverage, gini, novelty, self_information
from pipeline.evaluation.intervals import DRAWS, means
from pipeline.evaluation.metrics import MAP, Truth, measure
from pipeline.models.contract import Scores
from pipeline.models.topk import Lists, top_k

DEPTHS = (10, 20)
ROUNDS = 15
TIMES = 5
"""Runs of ours in a round; their median counts."""
RANK = 64
PEERS = ROOT / "build" / "peers" / "bin" / "python"
NAMES = {"rectools": "RecTools", "ranx": "ranx", "ranx from frames": "ranx, from frames"}


@dataclass(frozen=True)
class Row:
    """What one way took; `ratio` is as the module says."""

    what: str
    seconds: float
    ratio: float | None = None


class DifferentError(Exception):
    """Two ways gave means that are not equal."""


class Child:
    """The peers, in a process of their environment: a line in, a line of JSON out."""

    def __init__(self, python: Path, lists: Lists, truth: Truth, folder: Path) -> None:
        file = folder / "lists.npz"
        np.savez(
            file,
            indptr=lists.indptr,
            item=lists.item,
            truth_indptr=truth.items.indptr,
            truth_item=truth.items.indices,
        )
        script = Path(__file__).with_name("evaluate_peers.py")
        self.process = subprocess.Popen(
            [python, script, file, ",".join(map(str, DEPTHS))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> Any:
        """Return what the child answers."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the peers have no pipes")
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peers ended at {what!r}; their words are above")
        return json.loads(answer)

    def close(self) -> None:
        """Let the child end."""
        self.process.communicate()


def ours(lists: Lists, truth: Truth) -> dict[str, float]:
    """Return the mean of every metric at every depth."""
    found = measure(lists, truth, *DEPTHS)
    return {f"{name}@{k}": float(values.mean()) for (name, k), values in found.items()}


def by_svd(seen: sp.csr_matrix) -> Scores:
    """Score by a truncated SVD of the matrix, scaled by the roots of its sums."""
    left, right = (
        sp.diags(1 / np.sqrt(np.maximum(np.asarray(seen.sum(axis=axis)).ravel(), 1)))
        for axis in (1, 0)
    )
    _, _, items = svds(left @ seen @ right, RANK, random_state=0)
    factors = np.ascontiguousarray(items.T, np.float32)
    return Scores(users=(seen @ right @ items.T).astype(np.float32), items=factors)


def check(mine: dict[str, float], theirs: dict[str, float]) -> None:
    """Raise `DifferentError` where a mean differs by more than 1e-9."""
    for name, value in theirs.items():
        if not abs(mine[name] - value) <= 1e-9:
            raise DifferentError(f"{name}: ours is {mine[name]!r}, theirs {value!r}")


def divided_by_size(lists: Lists, truth: Truth) -> dict[str, float]:
    """Return our mean MAP as it is with the size below the line, as theirs is."""
    found = measure(lists, truth, *DEPTHS)
    return {
        f"{MAP}@{k}": float((found[MAP, k] * np.minimum(truth.size, k) / truth.size).mean())
        for k in DEPTHS
    }


def compare(child: Child, lists: Lists, truth: Truth, seen: sp.csr_matrix) -> list[Row]:
    """Compare the means, then take the time in turn."""
    told = ours(lists, truth) | divided_by_size(lists, truth)
    for name in NAMES:
        check(told, child.ask(f"means {name}"))
    values = np.column_stack(list(measure(lists, truth, *DEPTHS).values()))
    information = self_information(seen)

    def of_catalogue() -> None:
        for k in DEPTHS:
            coverage(lists, seen.shape[1], k)
            gini(lists, seen.shape[1], k)
            novelty(lists, information, k)

    beside: dict[str, tuple[Callable[[], Any], int]] = {
        f"intervals of {DRAWS:,} draws": (lambda: means(values), 1),
        "coverage, Gini, novelty": (of_catalogue, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *beside, *NAMES)}
    for done in range(ROUNDS):
        tell(f"round {done + 1} of {ROUNDS}")
        seconds["ours"].append(taken(lambda: ours(lists, truth), TIMES))
        for name, (work, times) in beside.items():
            seconds[name].append(taken(work, times))
        for name in NAMES:
            seconds[name].append(child.ask(f"time {name}"))
    rows = []
    for name, took in seconds.items():
        pairs = zip(took, seconds["ours"], strict=True)
        ratio = None if name == "ours" else statistics.median(one / other for one, other in pairs)
        label = NAMES.get(name) or ("ours" if name == "ours" else f"ours: {name}")
        rows.append(Row(label, statistics.median(took), ratio))
    return rows


def taken(work: Callable[[], Any], times: int) -> float:
    """Median seconds of a few runs."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def judged(data: Path) -> tuple[Lists, Truth, sp.csr_matrix]:
    """Return the lists, what judges them, and what they were learnt from."""
    train, test = (data / "gowalla" / f"{part}.parquet" for part in ("train", "test"))
    for file in (train, test):
        if not file.is_file():
            raise SystemExit(f"there is no {file}; name the folder that holds gowalla/ by --data")
    seen, wanted = seen_of(train), seen_of(test)
    if seen.shape != wanted.shape:
        raise SystemExit(f"{train} and {test} are not over the same users and items")
    lists = top_k(by_svd(seen), K, exclude=seen)
    return lists, Truth(wanted, np.diff(wanted.indptr).astype(np.int64)), seen


def main() -> None:
    arguments = parser(__doc__, data="folder that holds gowalla/{train,test}.parquet")
    arguments.add_argument(
        "--peers", type=Path, default=PEERS, help="python of an environment with RecTools and ranx"
    )
    options = arguments.parse_args()
    if not options.peers.is_file():
        raise SystemExit(
            f"there is no {options.peers}: the peers need an environment of their own, named by "
            "--peers; tests/golden/make.py says how to make it"
        )
    tell("lists ...")
    lists, truth, seen = judged(options.data)
    with tempfile.TemporaryDirectory() as folder:
        child = Child(options.peers, lists, truth, Path(folder))
        try:
            rows = compare(child, lists, truth, seen)
            versions = child.ask("versions")
        finally:
            child.close()
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "versions": versions}))
    else:
        show(rows, ours(lists, truth), versions)


def show(rows: list[Row], told: dict[str, float], versions: dict[str, str]) -> None:
    print(f"{'seven metrics at k = 10 and 20':<34} {'ms':>8} {'/ ours':>7}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        print(f"{row.what:<34} {1000 * row.seconds:>8.1f} {ratio:>7}".rstrip())
    print("\n" + "  ".join(f"{name} {value:.4f}" for name, value in told.items() if "@20" in name))
    print("  ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
