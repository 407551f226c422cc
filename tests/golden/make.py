"""Write the values of ranx and RecTools for a few users' lists: the golden figures of our metrics.

They run in an environment of their own, beside this project's (RecTools would change its
libraries):

    python3.11 -m venv build/peers
    build/peers/bin/pip install ranx==0.3.21 rectools==0.19.0
    build/peers/bin/python tests/golden/make.py

Users, lists and truths are drawn, and then there are those at the edges: no truth, one item, fewer
items than k, an empty list, a truth outside the catalogue. For users without a truth no
library is called: null.
"""

from __future__ import annotations

import json
import platform
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import ranx
from rectools import Columns
from rectools.metrics import (
    MAP,
    MRR,
    NDCG,
    CatalogCoverage,
    HitRate,
    Intersection,
    IntraListDiversity,
    MeanInvUserFreq,
    PairwiseHammingDistanceCalculator,
    Precision,
    Recall,
)

COMMAND = "build/peers/bin/python tests/golden/make.py"
FILE = Path(__file__).with_name("metrics.json")
DEPTHS = (1, 5, 10, 20)
N_ITEMS = 30
"""Items of the catalogue; a truth item from here on lies outside it."""
KINDS = 4
OUTSIDE = N_ITEMS + 1


def drawn() -> list[dict[str, list[int]]]:
    """Return users: their list, another list, their targets and their earlier items."""
    rng = random.Random(20)
    users = []
    for _ in range(30):
        likes = rng.sample(range(N_ITEMS), 10)
        pool = likes + rng.sample(range(N_ITEMS), 8)
        users.append(
            {
                "list": list(dict.fromkeys(rng.sample(pool, rng.randint(1, 12)))),
                "other": rng.sample(range(N_ITEMS), rng.randint(1, 12)),
                "truth": rng.sample(likes, rng.randint(1, 8)),
                "had": rng.sample(range(N_ITEMS - 3), rng.randint(1, 9)),  # no user had the last
            }
        )
    full = list(range(12))
    edges = [
        ([3], [3], [3]),  # one item, and it is right
        ([3], [4], [5]),  # one item, and it is wrong
        (full, full, full),  # everything is right
        (full, full[::-1], [11]),  # the last one is right
        (full, full, [*full, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]),  # more truth than k
        (full, full, [2, OUTSIDE, OUTSIDE + 1]),  # truth outside the catalogue
        (full, full, [OUTSIDE]),  # all of it
        ([], full, [1, 2]),  # an empty list
        (full, full, []),  # no truth
    ]
    users += [{"list": a, "other": b, "truth": t, "had": [0, 1]} for a, b, t in edges]
    return users


def lists(users: list[dict[str, list[int]]], name: str) -> pd.DataFrame:
    rows = [(u, i, r) for u, x in enumerate(users) for r, i in enumerate(x[name], start=1)]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Rank])


def pairs(users: list[dict[str, list[int]]], name: str) -> pd.DataFrame:
    return lists(users, name)[[Columns.User, Columns.Item]]


def by_user(values: pd.Series, n: int) -> list[float | None]:
    by_id = {int(user): float(value) for user, value in values.items()}
    return [by_id.get(user) for user in range(n)]


def rectools(users: list[dict[str, list[int]]]) -> dict[str, Any]:
    n, listed, other = len(users), lists(users, "list"), lists(users, "other")
    truth, had = pairs(users, "truth"), pairs(users, "had")
    kinds = pd.DataFrame(
        [[int(i % KINDS == kind) for kind in range(KINDS)] for i in range(N_ITEMS)],
        index=pd.Index(range(N_ITEMS), name=Columns.Item),
    )
    apart = PairwiseHammingDistanceCalculator(kinds)
    values: dict[str, Any] = {}
    for k in DEPTHS:
        asked = {
            "NDCG(divide_by_achievable=True)": NDCG(k=k, divide_by_achievable=True),
            "NDCG": NDCG(k=k),
            "Recall": Recall(k=k),
            "Precision(r_precision=True)": Precision(k=k, r_precision=True),
            "Precision": Precision(k=k),
            "MAP": MAP(k=k),
            "MRR": MRR(k=k),
            "HitRate": HitRate(k=k),
        }
        values |= {
            f"{name}@{k}": by_user(m.calc_per_user(listed, truth), n) for name, m in asked.items()
        }
        novelty = MeanInvUserFreq(k=k).calc_per_user(listed, had)
        values[f"MeanInvUserFreq@{k}"] = by_user(novelty, n)
        if k > 1:  # of one item RecTools makes integers of no use
            mixed = IntraListDiversity(k=k, distance_calculator=apart).calc_per_user(listed)
            values[f"IntraListDiversity(Hamming)@{k}"] = by_user(mixed, n)
        common = Intersection(k=k).calc_per_user(listed, other)
        values[f"Intersection@{k}"] = by_user(common, n)
        covered = CatalogCoverage(k=k, normalize=True).calc(listed, range(N_ITEMS))
        values[f"CatalogCoverage(normalize=True)@{k}"] = float(covered)
    return values


def by_ranx(users: list[dict[str, list[int]]]) -> dict[str, Any]:
    asked = [u for u, user in enumerate(users) if user["truth"]]
    qrels = ranx.Qrels({str(u): {str(i): 1 for i in users[u]["truth"]} for u in asked})
    # An empty list is not a run: it gets an item that is in no truth.
    run = ranx.Run(
        {str(u): {str(i): -float(r) for r, i in enumerate(users[u]["list"] or [-1])} for u in asked}
    )
    names = ("ndcg", "recall", "precision", "map", "mrr", "hit_rate")
    metrics = [f"{name}@{k}" for name in names for k in DEPTHS]
    ranx.evaluate(qrels, run, metrics)
    return {
        name: [
            None if str(u) not in run.scores[name] else float(run.scores[name][str(u)])
            for u in range(len(users))
        ]
        for name in metrics
    }


def main() -> None:
    users = drawn()
    libraries = ("ranx", "rectools", "numba", "numpy", "pandas")
    golden = {
        "command": COMMAND,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in libraries},
        "n_items": N_ITEMS,
        "kinds": KINDS,
        "depths": DEPTHS,
        "users": users,
        "ranx": by_ranx(users),
        "rectools": rectools(users),
    }
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in golden.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
