"""Speed and memory of a night on the demo's data: ``make bench``.

Prints a table: task, seconds, rate, peak memory, and the ratio to a peer that does the same work on
the same data in the same run, where there is one. ``--run`` adds the whole of `make run` in a new
workspace. Nothing here is a test.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import ROOT, cpu_seconds, parser, print_progress

if TYPE_CHECKING:
    from pipeline.data.validate.rules import Rule
    from pipeline.stores.runs import Run

_ALL = "2018-01-02T00:00:00Z"
"""After the last purchase: the whole year is ingested, and the demo's first night is run."""


@dataclass
class Row:
    """A measured task; `peak_mb` is that of its process, `ratio` is to a peer."""

    what: str
    seconds: float
    rate: str
    peak_mb: float
    ratio: str = ""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--run", action="store_true", help="also the whole of `make run`")
    arguments.add_argument("--part", help=SUPPRESS)
    arguments.add_argument("--home", type=Path, help=SUPPRESS)
    options = arguments.parse_args()
    if options.part:
        print(json.dumps([asdict(row) for row in PARTS[options.part](options.home)]))
        return
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="nightjar-bench-"))
    try:
        for part in PARTS:
            print_progress(f"{part} ...")
            rows += _child(part, folder / "home")
        if options.run:
            print_progress("make run ...")
            rows.append(_whole_run(folder / "run"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print(f"{'what':<52} {'seconds':>8}  {'rate':<22} {'peak MB':>8}  ratio to a peer")
    for row in rows:
        print(
            f"{row.what:<52} {row.seconds:>8.2f}  {row.rate:<22} {row.peak_mb:>8.0f}  {row.ratio}"
        )


def _child(part: str, home: Path) -> list[Row]:
    """Run a part in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--part", part, "--home", str(home)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _whole_run(home: Path) -> Row:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "dags.local.demo", "--home", str(home)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("make run failed")
    seconds = time.perf_counter() - start
    return Row("make run: three nights through Airflow", seconds, "", usage.ru_maxrss / 1024)


@contextlib.contextmanager
def _clock() -> Iterator[Callable[[], float]]:
    start = time.perf_counter()
    end: list[float] = []
    yield lambda: (end[0] if end else time.perf_counter()) - start
    end.append(time.perf_counter())


def _cpu(work: Callable[[], Any]) -> float:
    """Return the median CPU seconds of five calls, with those of child processes."""
    took = []
    for _ in range(5):
        cpu = cpu_seconds()
        work()
        took.append(cpu_seconds() - cpu)
    return statistics.median(took)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _files(home: Path) -> list[Row]:
    import polars as pl

    from pipeline.base import Interval, as_of
    from pipeline.steps import demo

    lines = demo.completejourney.purchases(
        pl.read_parquet(demo._folder() / "transactions.parquet"),
        pl.read_parquet(demo._folder() / "products.parquet"),
        Interval(demo._FIRST_DAY, as_of(_ALL)),
    )
    home.parent.mkdir(exist_ok=True)
    lines.write_csv(_file(home, "csv"))
    lines.write_ndjson(_file(home, "jsonl"))
    lines.write_parquet(_file(home, "parquet"))
    return []


def _file(home: Path, suffix: str) -> Path:
    return home.parent / f"purchases-all.{suffix}"


def _ingest(home: Path, suffix: str = "csv") -> list[Row]:
    import polars as pl

    from pipeline.base import as_of
    from pipeline.steps import demo
    from pipeline.steps.feedback.feedback import feedback
    from pipeline.workspace.workspace import Workspace

    file, end = _file(home, suffix), as_of(_ALL)
    read = {"csv": partial(pl.read_csv, infer_schema=False), "jsonl": pl.read_ndjson}
    shop = home if suffix == "csv" else home.with_name(suffix)
    ws = Workspace.init(shop, demo.TEMPLATE.replace("purchases-*.csv", "purchases-*"))
    landed = shutil.copy(file, ws.home / "landing" / "events")
    os.utime(landed, (0, 0))
    cpu = cpu_seconds()
    with _clock() as seconds:
        result = feedback(ws, end)
    own, peak, cpu = cpu_seconds() - cpu, _peak(), cpu_seconds()
    read.get(suffix, pl.read_parquet)(file).unique("line").write_delta(home.with_name("peer"))
    peer = cpu_seconds() - cpu
    shutil.rmtree(home.with_name("peer"))
    return [
        Row(
            f"ingest of {suffix}: {result.rows:,} lines, exactly once",
            seconds(),
            f"{result.rows / seconds():,.0f} rows/s",
            peak,
            f"{own / peer:.1f}× the CPU time of a bare read, dedupe and Delta write",
        )
    ]


def _rules(home: Path) -> list[Row]:
    from pipeline.base import as_of
    from pipeline.data.validate.rules import JUDGED, declare, row_reasons
    from pipeline.workspace.workspace import Workspace

    ws = Workspace.open(home)
    events = ws.lake.read("events", columns=JUDGED)
    at, kinds = as_of(_ALL), ws.config.ingest.kinds
    rules = [rule for rule in declare(at=at, kinds=kinds) if rule.level == "row"]
    frame = events.to_pandas()
    _library_counts(frame.head(1000), rules)  # imports the library
    with _clock() as seconds:
        broken = int(row_reasons(events, at=at, kinds=kinds).list.len().sum())
    peak = _peak()
    own = _cpu(lambda: row_reasons(events, at=at, kinds=kinds))
    if _library_counts(frame, rules) != broken:
        raise SystemExit("Great Expectations counts other violations")
    peer = _cpu(lambda: _library_counts(frame, rules))
    return [
        Row(
            f"{len(rules)} rules for rows on {events.height:,} events",
            seconds(),
            f"{events.height / seconds():,.0f} events/s",
            peak,
            f"Great Expectations on pandas takes {peer / own:.1f}× the CPU time",
        )
    ]


def _library_counts(frame: Any, rules: Sequence[Rule]) -> int:
    """Return the number of violations that Great Expectations counts in a pandas frame."""
    from pipeline.data.validate.rules import CheckKind
    from pipeline.data.validate.suite import _library

    gx = _library()
    kinds = gx.expectations

    def expectation(rule: Rule) -> Any:
        bounds = {"min_value": rule.minimum, "max_value": rule.maximum}
        match rule.check:
            case CheckKind.PRESENT:
                return kinds.ExpectColumnValuesToNotBeNull(column=rule.column)
            case CheckKind.ONE_OF:
                return kinds.ExpectColumnValuesToBeInSet(
                    column=rule.column, value_set=list(rule.values)
                )
            case CheckKind.BYTES:
                return kinds.ExpectColumnValueLengthsToBeBetween(column=rule.column, **bounds)
            case CheckKind.PRINTABLE:  # all ids of these data are visible ASCII
                return kinds.ExpectColumnValuesToMatchRegex(column=rule.column, regex="^[!-~]*$")
            case _:
                return kinds.ExpectColumnValuesToBeBetween(column=rule.column, **bounds)

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(enable=False)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("events")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name="events", expectations=[expectation(x) for x in rules])
    results = batch.validate(suite, result_format="BASIC").results
    return sum(int(result.result["unexpected_count"]) for result in results)


def _matrix(home: Path) -> list[Row]:
    import numpy as np
    import pandas as pd
    import scipy.sparse as sp

    from pipeline.base import as_of
    from pipeline.data.features import WEIGHED, weigh
    from pipeline.data.matrix import US_PER_DAY, build_history
    from pipeline.data.windows import with_compact_ids
    from pipeline.workspace.workspace import Workspace

    ws, end, half_life = Workspace.open(home), as_of(_ALL), 30.0
    # A night turns ids into categories once for all its windows; pandas gets categories, too.
    events = with_compact_ids(ws.lake.read("events", columns=WEIGHED))
    weighted = weigh(events, ws.config.features)
    frame = weighted.to_pandas()

    def in_pandas() -> sp.csr_matrix:
        user, user_ids = pd.factorize(frame["user_id"], sort=True)
        item, item_ids = pd.factorize(frame["item_id"], sort=True)
        rows = frame.assign(user=user, item=item)
        rows = rows.sort_values(["user", "timestamp", "item", "weight"])
        age = (pd.Timestamp(end) - rows["timestamp"]).dt.total_seconds() * 1e6 / US_PER_DAY
        value = (rows["weight"] * np.exp2(-age / half_life)).astype(np.float32)
        shape = (len(user_ids), len(item_ids))
        return sp.csr_matrix((value, (rows["user"], rows["item"])), shape=shape)

    def window() -> sp.csr_matrix:
        return build_history(weighted, end).confidence(half_life)

    with _clock() as seconds:
        cells = window()
    peak = _peak()
    if abs(cells - in_pandas()).max() > 1e-3:
        raise SystemExit("pandas computes another matrix")
    return [
        Row(
            f"window and matrix of {weighted.height:,} events",
            seconds(),
            f"{weighted.height / seconds():,.0f} events/s",
            peak,
            f"the same in pandas takes {_cpu(in_pandas) / _cpu(window):.1f}× the CPU time",
        )
    ]


def _help(home: Path) -> list[Row]:
    def call(command: Sequence[str | Path]) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)

    own = [Path(sys.executable).with_name("nightjar"), "--help"]
    with _clock() as seconds:
        call(own)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    ratio = _cpu(lambda: call(own)) / _cpu(lambda: call([sys.executable, "-c", "pass"]))
    cost = f"{ratio:.1f}× the CPU time of a bare interpreter"
    return [Row("nightjar --help", seconds(), "", peak, cost)]


def _night(home: Path) -> list[Row]:
    from pipeline.steps import demo
    from pipeline.steps.nightly import nightly
    from pipeline.workspace.artifacts import TablesFile
    from pipeline.workspace.registry import registry
    from pipeline.workspace.workspace import Workspace

    ws = Workspace.open(home)
    registry(ws).prepare()
    rows = []

    def timed(what: str, step: Callable[[], Any], per: Callable[[], str] = lambda: "") -> None:
        with _clock() as seconds:
            step()
        taken = seconds()
        count, _, unit = per().partition(" ")
        rate = f"{float(count) / taken:,.0f} {unit}/s" if unit else ""
        rows.append(Row(what, taken, rate, _peak()))

    started = nightly.snapshot(ws, demo.NIGHTS[0])
    run_id = started.run_id
    timed("validate: polars and Great Expectations", lambda: nightly.validate(ws, run_id))
    timed("features: clean, split, both windows", lambda: nightly.features(ws, run_id))
    run = ws.run(run_id)
    events = run.read(TablesFile).events
    learnt = [n for n in started.recipes if not ws.config.recipes[n].capabilities.repeats_only]
    for name in learnt:
        timed(
            f"train {name}",
            lambda name=name: nightly.train(ws, run_id, name),
            lambda: f"{events} events",
        )
    for name in set(started.recipes) - set(learnt):
        nightly.train(ws, run_id, name)  # commits that it does not fit this task
    judged = len(learnt)
    timed(
        f"evaluate {judged} recipes, full ranking",
        lambda: nightly.evaluate(ws, run_id),
        lambda: f"{judged * run.ref('evaluate').rows} users",
    )
    timed("gate, page and figures", lambda: nightly.gate(ws, run_id))
    timed("refit", lambda: nightly.refit(ws, run_id))
    timed("cold check in a fresh process", lambda: nightly.cold_check(ws, run_id))
    timed("register in MLflow", lambda: nightly.register(ws, run_id))
    timed(
        "recommend: lists for all users",
        lambda: nightly.recommend(ws, run_id),
        lambda: f"{run.ref('recommend').rows} users",
    )
    timed("publish", lambda: nightly.publish(ws, run_id))
    rows.append(_top_k(run))
    return rows


def _top_k(run: Run) -> Row:
    import numpy as np
    from implicit.cpu.topk import topk as library_topk

    from pipeline.models.topk import top_k
    from pipeline.workspace.run_files import read_history, read_scorer

    history, scorer = read_history(run, "full"), read_scorer(run, "refit")
    scores = scorer.score(history)
    assert scores.users is not None
    assert scores.items is not None
    with _clock() as own:
        lists = top_k(scores, 20, exclude=history.seen)
    with _clock() as library:
        library_topk(scores.items, scores.users, 20, filter_query_items=history.seen, num_threads=2)
    return Row(
        f"top 20 of {history.n_items:,} items, exact, ties by item id",
        own(),
        f"{len(np.unique(lists.indptr)) / own():,.0f} users/s",
        _peak(),
        f"{own() / library():.1f}× implicit's top-k",
    )


PARTS: dict[str, Callable[[Path], list[Row]]] = {
    "files": _files,
    "ingest": _ingest,
    "ingest of jsonl": partial(_ingest, suffix="jsonl"),
    "ingest of parquet": partial(_ingest, suffix="parquet"),
    "rules": _rules,
    "matrix": _matrix,
    "help": _help,
    "night": _night,
}

if __name__ == "__main__":
    main()
