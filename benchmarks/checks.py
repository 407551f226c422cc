"""Cost of the checks of the stores: their share of a feedback pass and of a nightly run.

    checks.py [--passes N] [--json]

Online Retail, with one ALS recipe and the baselines: one nightly run, passes over the following
days, each with the events of one day, and a second nightly run. Measured are the seconds inside the
checks (checksums of the lake's files and logs, comparison of the stores, checksums of the live
lists, structure of the vault) and the seconds of everything else. The share is the first divided by
the second.

A process remembers the checksums of files that have not changed. `forgotten` measures the same
without this memory: more than a process per task, as in Airflow, costs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.churn import DATA
from benchmarks.command import ONLINE_RETAIL, parser, print_progress
from benchmarks.quality import missing
from pipeline import columns as c
from pipeline.base import as_of
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly import snapshot
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores import disk
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.workspace import publications
from pipeline.workspace.workspace import Workspace

AIM: Final = 0.1
_CONFIG: Final = """\
[publish]
live_from = "as_of"

[recipes.als]
family = "als"
"""
_CHECKS: Final = (
    (CommitIntegrity, "verify"),
    (CommitIntegrity, "check_log"),
    (CommitIntegrity, "check"),
    (Workspace, "compare_stores"),
    (snapshot, "verify_vault"),
    (publications.publish, "first_altered"),
)


@dataclass
class Share:
    """Seconds inside the checks and seconds of everything else, of all calls of one kind."""

    what: str
    calls: int = 0
    checks: float = 0.0
    rest: float = 0.0
    share: float = field(default=0.0)


@dataclass
class _Clock:
    """Seconds inside the outermost check."""

    seconds: float = 0.0
    depth: int = 0

    def timed(self, check: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.depth += 1
            start = time.perf_counter()
            try:
                return check(*arguments, **options)
            finally:
                self.depth -= 1
                # A check that reads the lake contains other checks.
                self.seconds += (time.perf_counter() - start) * (self.depth == 0)

        return call


class _Forgetful(dict[Path, Any]):
    def get(self, *_: object) -> None:
        return None


@contextmanager
def _clock() -> Iterator[_Clock]:
    clock = _Clock()
    patches = [patch.object(o, name, clock.timed(getattr(o, name))) for o, name in _CHECKS]
    for one in patches:
        one.start()
    try:
        yield clock
    finally:
        for one in patches:
            one.stop()


def measure(folder: Path, passes: int, *, remembered: bool) -> list[Share]:
    """Return the shares of nightly runs and of passes.

    Parameters
    ----------
    folder
        Folder of the data sets.
    passes
        Number of passes between the two nightly runs.
    remembered
        Whether checksums of unchanged files are remembered.
    """
    label = "" if remembered else ", forgotten"
    shares = {name: Share(f"{name}{label}") for name in ("feedback pass", "nightly run")}
    events = DATA["online-retail"].load(folder).select(c.USER_ID, c.ITEM_ID, "at").sort("at")
    start = events["at"].quantile(0.8)
    assert isinstance(start, datetime)

    def timed(name: str, run: Callable[[], object]) -> None:
        disk._SUMS.clear()  # a command is a new process
        with _clock() as clock:
            began = time.perf_counter()
            run()
            seconds = time.perf_counter() - began
        share = shares[name]
        share.calls += 1
        share.checks += clock.seconds
        share.rest += seconds - clock.seconds
        share.share = share.checks / share.rest
        print_progress(f"  {share.what}: {clock.seconds:.2f} of {seconds:.2f} s")

    with tempfile.TemporaryDirectory(prefix="nightjar-checks-") as home:
        memory = disk._SUMS if remembered else _Forgetful()
        with patch.object(disk, "_SUMS", memory):
            ws = Workspace.init(Path(home) / "ws", _CONFIG)
            _land(ws, events.filter(pl.col("at") < start), start)
            feedback(ws, as_of(start))
            timed("nightly run", lambda: nightly(Workspace.open(ws.home), as_of(start)))
            at = start
            for _ in range(passes):
                since, at = at, at + timedelta(days=1)
                _land(ws, events.filter(pl.col("at") >= since, pl.col("at") < at), at)
                instant = as_of(at)
                timed("feedback pass", lambda i=instant: feedback(Workspace.open(ws.home), i))
            timed("nightly run", lambda: nightly(Workspace.open(ws.home), as_of(at)))
    return list(shares.values())


def _land(ws: Workspace, rows: pl.DataFrame, until: datetime) -> None:
    path = ws.home / "landing" / "events" / f"{until:%Y%m%d}.csv"
    rows.select(
        pl.format("{}-{}", pl.lit(path.stem), pl.int_range(pl.len())).alias(c.EVENT_ID),
        c.USER_ID,
        c.ITEM_ID,
        pl.lit("purchase").alias(c.KIND),
        pl.lit("1").alias(c.VALUE),
        pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").alias(c.TIMESTAMP),
    ).write_csv(path)
    os.utime(path, (0, 0))


def print_shares(shares: list[Share]) -> None:
    """Print the shares beside the aim, one line each."""
    for row in shares:
        met = "reached" if row.share <= AIM else "MISSED "
        print(
            f"{row.what:<26} {row.calls:>3} calls  checks {row.checks:>6.2f} s  "
            f"rest {row.rest:>7.2f} s  {row.share:>6.1%}  {met} aim: {AIM:.0%}"
        )


def main() -> None:
    arguments = parser(__doc__, data=ONLINE_RETAIL)
    arguments.add_argument("--passes", type=int, default=10, help="passes that are timed")
    options = arguments.parse_args()
    if problem := missing("online-retail", options.data):
        raise SystemExit(problem)
    shares = [
        share
        for remembered in (True, False)
        for share in measure(options.data, options.passes, remembered=remembered)
    ]
    if options.json:
        print(json.dumps({"rows": [asdict(share) for share in shares], "aim": AIM}))
    else:
        print_shares(shares)


if __name__ == "__main__":
    main()
