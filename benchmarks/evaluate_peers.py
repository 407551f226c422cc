"""RecTools and ranx, one request a line: the child process of `evaluate.py`.

It imports nothing of this project, which is not installed in its environment. Requests: ``means
NAME`` (the mean of each metric, under Nightjar's name), ``time NAME`` (CPU seconds of one run),
``versions``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")  # of the peers' own libraries

import ranx  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.metrics import (  # noqa: E402
    MAP,
    MRR,
    NDCG,
    HitRate,
    Precision,
    Recall,
    calc_metrics,
)

RANX = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate")


def runs(file: str, depths: list[int]) -> dict[str, Callable[[], dict[str, float]]]:
    """Return a function for each peer that computes the means from its own input."""
    arrays = np.load(file)
    listed, wanted = np.diff(arrays["indptr"]), np.diff(arrays["truth_indptr"])
    user, target_user = (np.repeat(np.arange(len(n)), n) for n in (listed, wanted))
    rank = np.arange(len(user)) - np.repeat(arrays["indptr"][:-1], listed) + 1
    reco = pd.DataFrame({Columns.User: user, Columns.Item: arrays["item"], Columns.Rank: rank})
    truth = pd.DataFrame({Columns.User: target_user, Columns.Item: arrays["truth_item"]})
    metrics = {}
    for k in depths:
        metrics |= {
            f"ndcg@{k}": NDCG(k=k, divide_by_achievable=True),
            f"recall@{k}": Recall(k=k),
            f"recall_capped@{k}": Precision(k=k, r_precision=True),
            f"precision@{k}": Precision(k=k),
            f"map@{k}": MAP(k=k),
            f"mrr@{k}": MRR(k=k),
            f"hit_rate@{k}": HitRate(k=k),
        }
    names = [f"{name}@{k}" for name in RANX for k in depths]
    judged = pd.DataFrame(
        {"q_id": target_user.astype(str), "doc_id": arrays["truth_item"].astype(str), "score": 1}
    )
    shown = pd.DataFrame(
        {
            "q_id": user.astype(str),
            "doc_id": arrays["item"].astype(str),
            "score": -rank.astype(float),
        }
    )

    def made() -> tuple[ranx.Qrels, ranx.Run]:
        return ranx.Qrels.from_df(judged), ranx.Run.from_df(shown)

    qrels, run = made()
    return {
        "rectools": lambda: calc_metrics(metrics, reco, truth),
        "ranx": lambda: ranx.evaluate(qrels, run, names, save_results_in_run=False),
        "ranx from frames": lambda: ranx.evaluate(*made(), names, save_results_in_run=False),
    }


def main() -> None:
    known = runs(sys.argv[1], [int(k) for k in sys.argv[2].split(",")])
    for line in sys.stdin:
        what, _, name = line.strip().partition(" ")
        if what == "means":
            answer = {metric: float(value) for metric, value in known[name]().items()}
        elif what == "time":
            start = time.process_time()
            known[name]()
            answer = time.process_time() - start
        else:
            answer = {library: version(library) for library in ("rectools", "ranx", "pandas")}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
