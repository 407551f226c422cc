"""Speed of evaluation: metrics per user at k = 10 and 20, against RecTools and ranx, on Gowalla.

The lists are the top 20 of a truncated SVD for 29,858 users, evaluated on the published test part.
The peers need an environment of their own, because RecTools would change this project's libraries;
`tests/golden/make.py` describes how to create it. It is given by ``--peers`` and runs as a child
process in turn with Nightjar: Nightjar, RecTools, ranx, Nightjar ..., so that other load of the
machine affects all of them. Each starts from its own input: arrays; frames of numbered users and
items; ``Qrels`` and a ``Run`` (a further row includes their construction from frames). Each returns
the means over users, which must be equal, MAP by the relation in `evaluation.metrics`; ranx has all
but the capped recall.

Times are CPU seconds of all threads. A ratio is the median over the rounds of a peer's time divided
by that of Nightjar in the same round, so above 1 Nightjar is faster: the goal is 50 for RecTools.
Of Nightjar's other rows it is their time divided by that of its metrics in the same round: the
intervals of 1,000 draws may take 10 times as long.
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

from benchmarks.command import GOWALLA, ROOT, parser, print_progress
from benchmarks.lists import K, seen_of
from pipeline.evaluation.beyond_accuracy import (
    coverage,
    gini,
    novelty,
    self_information,
    serendipity,
)
from pipeline.evaluation.intervals import DRAWS, means
from pipeline.evaluation.metrics import MAP, Truth, measure
from pipeline.models.contract import Scores
from pipeline.models.topk import Lists, top_k

DEPTHS = (10, 20)
ROUNDS = 5
TIMES = 5
"""Runs of Nightjar in a round; their median counts."""
RANK = 64
PEERS = ROOT / "build" / "peers" / "bin" / "python"
NAMES = {"rectools": "RecTools", "ranx": "ranx", "ranx from frames": "ranx, from frames"}


@dataclass(frozen=True)
class Row:
    """Time of one implementation; `ratio` as in the module's docstring."""

    what: str
    seconds: float
    ratio: float | None = None


class DifferentError(Exception):
    """The means of two implementations are not equal."""


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
        """Send a line to the child, and return its answer."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the peers have no pipes")
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the peers ended at {what!r}; see their messages above")
        return json.loads(answer)

    def close(self) -> None:
        """End the child."""
        self.process.communicate()


def mean_metrics(lists: Lists, truth: Truth) -> dict[str, float]:
    """Return the mean of every metric at every depth."""
    metrics = measure(lists, truth, *DEPTHS)
    return {f"{name}@{k}": float(values.mean()) for (name, k), values in metrics.items()}


def by_svd(seen: sp.csr_matrix) -> Scores:
    """Score by a truncated SVD of the matrix, scaled by the roots of its sums."""
    left, right = (
        sp.diags(1 / np.sqrt(np.maximum(np.asarray(seen.sum(axis=axis)).ravel(), 1)))
        for axis in (1, 0)
    )
    _, _, items = svds(left @ seen @ right, RANK, random_state=0)
    factors = np.ascontiguousarray(items.T, np.float32)
    return Scores(users=(seen @ right @ items.T).astype(np.float32), items=factors)


def check(nightjar: dict[str, float], peer: dict[str, float]) -> None:
    """Raise `DifferentError` where a mean differs by more than 1e-9."""
    for name, value in peer.items():
        if not abs(nightjar[name] - value) <= 1e-9:
            raise DifferentError(f"{name}: Nightjar has {nightjar[name]!r}, the peer {value!r}")


def divided_by_size(lists: Lists, truth: Truth) -> dict[str, float]:
    """Return the mean MAP divided by the number of targets, as the peers define it."""
    metrics = measure(lists, truth, *DEPTHS)
    return {
        f"{MAP}@{k}": float((metrics[MAP, k] * np.minimum(truth.size, k) / truth.size).mean())
        for k in DEPTHS
    }


def compare(child: Child, lists: Lists, truth: Truth, seen: sp.csr_matrix) -> list[Row]:
    """Compare the means, then measure CPU seconds in turn."""
    metrics = mean_metrics(lists, truth) | divided_by_size(lists, truth)
    for name in NAMES:
        check(metrics, child.ask(f"means {name}"))
    values = np.column_stack(list(measure(lists, truth, *DEPTHS).values()))
    information = self_information(seen)
    ranked = np.argsort(information, kind="stable")

    def of_catalogue() -> None:
        for k in DEPTHS:
            coverage(lists, seen.shape[1], k)
            gini(lists, seen.shape[1], k)
            novelty(lists, information, k)
            serendipity(lists, truth, seen, ranked[:k], k)

    others: dict[str, tuple[Callable[[], Any], int]] = {
        f"intervals of {DRAWS:,} draws": (lambda: means(values), 1),
        "coverage, Gini, novelty, serendipity": (of_catalogue, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("Nightjar", *others, *NAMES)}
    for done in range(ROUNDS):
        print_progress(f"round {done + 1} of {ROUNDS}")
        seconds["Nightjar"].append(taken(lambda: mean_metrics(lists, truth), TIMES))
        for name, (work, times) in others.items():
            seconds[name].append(taken(work, times))
        for name in NAMES:
            seconds[name].append(child.ask(f"time {name}"))
    rows = []
    for name, took in seconds.items():
        pairs = zip(took, seconds["Nightjar"], strict=True)
        ratio = None if name == "Nightjar" else statistics.median(a / b for a, b in pairs)
        label = NAMES.get(name) or (name if name == "Nightjar" else f"Nightjar: {name}")
        rows.append(Row(label, statistics.median(took), ratio))
    return rows


def taken(work: Callable[[], Any], times: int) -> float:
    """Median CPU seconds of a few runs."""
    took = []
    for _ in range(times):
        start = time.process_time()
        work()
        took.append(time.process_time() - start)
    return statistics.median(took)


def judged(data: Path) -> tuple[Lists, Truth, sp.csr_matrix]:
    """Return the lists, their targets, and the cells that they were learnt from."""
    train, test = (data / "gowalla" / f"{part}.parquet" for part in ("train", "test"))
    for file in (train, test):
        if not file.is_file():
            raise SystemExit(
                f"{file} does not exist; give the folder that holds gowalla/ as --data"
            )
    seen, wanted = seen_of(train), seen_of(test)
    if seen.shape != wanted.shape:
        raise SystemExit(f"{train} and {test} are not over the same users and items")
    lists = top_k(by_svd(seen), K, exclude=seen)
    return lists, Truth(wanted, np.diff(wanted.indptr).astype(np.int64)), seen


def main() -> None:
    arguments = parser(__doc__, data=GOWALLA)
    arguments.add_argument(
        "--peers", type=Path, default=PEERS, help="python of an environment with RecTools and ranx"
    )
    options = arguments.parse_args()
    if not options.peers.is_file():
        raise SystemExit(
            f"{options.peers} does not exist: the peers need an environment of their own, given as "
            "--peers; tests/golden/make.py describes how to create it"
        )
    print_progress("lists ...")
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
        show(rows, mean_metrics(lists, truth), versions)


def show(rows: list[Row], metrics: dict[str, float], versions: dict[str, str]) -> None:
    """Print the table, the means at k = 20 and the versions of the peers."""
    print(f"{'seven metrics at k = 10 and 20':<34} {'CPU ms':>8} {'ratio':>7}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}"
        print(f"{row.what:<34} {1000 * row.seconds:>8.1f} {ratio:>7}".rstrip())
    print(
        "\n" + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if "@20" in name)
    )
    print("  ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
