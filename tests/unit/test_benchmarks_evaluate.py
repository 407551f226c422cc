from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from benchmarks import evaluate
from pipeline.evaluation.metrics import Truth
from pipeline.models.topk import Lists

# Answers in the format of the peers; every metric has its value from `told.json` beside it.
PEER = """
import json, pathlib, sys
told = json.loads(pathlib.Path(__file__).with_name("told.json").read_text())
for line in sys.stdin:
    what = line.split()[0]
    answer = {"means": told, "time": 0.5, "versions": {"rectools": "1"}}[what]
    print(json.dumps(answer), flush=True)
"""


def small() -> tuple[Lists, Truth, sp.csr_matrix]:
    seen, wanted = (
        sp.random(40, 60, density=0.1, format="lil", dtype=np.float32, random_state=seed)
        for seed in (0, 1)
    )
    wanted[:, 0] = 1.0  # everybody went for something
    seen[39, 59] = wanted[39, 59] = 1.0  # both reach to the last item
    seen, wanted = seen.tocsr(), wanted.tocsr()
    lists = evaluate.top_k(evaluate.by_svd(seen), evaluate.K, exclude=seen)
    return lists, Truth(wanted, np.diff(wanted.indptr).astype(np.int64)), seen


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "RANK", 8)
    monkeypatch.setattr(evaluate, "ROUNDS", 2)


def asked(folder: Path, values: dict[str, float]) -> list[evaluate.Row]:
    (folder / "told.json").write_text(json.dumps(values))
    (folder / "evaluate_peers.py").write_text(PEER)
    lists, truth, seen = small()
    child = evaluate.Child(Path(sys.executable), lists, truth, folder)
    try:
        return evaluate.compare(child, lists, truth, seen)
    finally:
        child.close()


@pytest.mark.usefixtures("quick")
def test_peers_that_say_the_same_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "__file__", str(tmp_path / "evaluate.py"))
    lists, truth, _ = small()
    means = evaluate.mean_metrics(lists, truth)
    by_size = evaluate.divided_by_size(lists, truth)
    assert set(by_size) == {"map@10", "map@20"} and by_size["map@10"] < means["map@10"]
    rows = {row.what: row for row in asked(tmp_path, means | by_size)}
    assert rows["RecTools"].seconds == 0.5
    assert rows["RecTools"].ratio is not None and rows["RecTools"].ratio > 1
    assert rows["Nightjar"].ratio is None
    assert {"ranx", "ranx, from frames", "Nightjar: intervals of 1,000 draws"} <= set(rows)
    with pytest.raises(evaluate.DifferentError, match=r"map@10: Nightjar has .*, the peer"):
        asked(tmp_path, means)


def test_without_peers_the_error_names_their_script(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/evaluate.py", "--peers", tmp_path / "none"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{tmp_path / 'none'} does not exist: the peers need")
    assert "tests/golden/make.py" in done.stderr and "Traceback" not in done.stderr


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"train\.parquet does not exist; give the folder"):
        evaluate.judged(tmp_path)


@pytest.mark.usefixtures("quick")
def test_the_published_split_is_read_as_it_lies(tmp_path: Path) -> None:
    _, truth, seen = small()
    (tmp_path / "gowalla").mkdir()
    for part, cells in (("train", seen), ("test", truth.items)):
        user, item = cells.nonzero()
        pl.DataFrame({"user": user, "item": item}).write_parquet(
            tmp_path / "gowalla" / f"{part}.parquet"
        )
    lists, read, had = evaluate.judged(tmp_path)
    assert (read.items != truth.items.sign()).nnz == 0
    assert read.size.tolist() == np.diff(truth.items.tocsr().indptr).tolist()
    assert lists.counts.tolist() == [evaluate.K] * 40
    assert not had[lists.row, lists.item].any()
