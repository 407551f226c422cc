"""Landing, repeating, re-ordering, ingesting and being killed in any order, against plain dicts."""

import gzip
import os
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from pipeline import columns as c
from pipeline import failpoints
from pipeline.failpoints import FAILPOINTS, FailpointReached
from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, CONFIG, land, orders, workspace

# Few of each, so that the same comes again and again.
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["", "1", "2", "3"]),
        st.sampled_from(["anna", "bert", ""]),
        st.sampled_from(["bread", "milk"]),
        st.sampled_from(["1", "2", "two"]),
        st.sampled_from(["2024-03-01", "2024-03-02", "2023-03-01"]),
    ),
    min_size=1,
    max_size=6,
)
Row = tuple[str, str, str, str, str]


class Ingesting(RuleBasedStateMachine):
    """A real workspace, and the expected outcome of each row."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._patch = mock.patch.object(Child, "call", parsed_here)
        self._patch.start()
        # A commit holds one to three files.
        config = f"{CONFIG}\n[ingest]\nrows_per_commit = 6\n"
        self.ws = workspace(Path(self._folder.name) / "ws", config)
        self.files: list[list[Row]] = []
        self.waiting: list[tuple[bytes, list[Row]]] = []
        self.read: set[bytes] = set()
        self.named: dict[tuple[str, str], Row] = {}
        self.without_id: Counter[Row] = Counter()
        self.ends: Counter[str] = Counter()

    def teardown(self) -> None:
        self.ingest()
        self._patch.stop()
        self._folder.cleanup()

    @rule(rows=ROWS)
    def land(self, rows):
        self._land(rows, packed=False)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 99), packed=st.booleans())
    def duplicate(self, which, packed):
        self._land(self.files[which % len(self.files)], packed=packed)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 99), random=st.randoms(use_true_random=False))
    def reorder(self, which, random):
        rows = list(self.files[which % len(self.files)])
        random.shuffle(rows)
        self._land(rows, packed=False)

    @rule()
    def ingest(self):
        feedback(Workspace.open(self.ws.home), AT)
        for data, rows in self.waiting:
            if data not in self.read:
                self.read.add(data)
                self._account(rows)
        self.waiting.clear()
        self._compare()

    @precondition(lambda self: self.waiting)
    @rule(point=st.sampled_from(FAILPOINTS["ingest"]), hit=st.integers(1, 4))
    def crash(self, point, hit):
        failpoints._armed.cache_clear()
        failpoints._passed.clear()
        with mock.patch.dict(os.environ, {failpoints.VARIABLE: f"{point}:raise:{hit}"}):
            try:
                feedback(Workspace.open(self.ws.home), AT)
            except FailpointReached:
                pass
            finally:
                failpoints._armed.cache_clear()
        failpoints._armed()  # remembered while nothing is armed

    def _land(self, rows: list[Row], *, packed: bool) -> None:
        number = len(self.files)
        data = orders(*map(",".join, rows)).encode()
        name = f"orders-{number}.csv"
        if packed:
            data, name = gzip.compress(data, mtime=number), f"{name}.gz"
        path = land(self.ws, name, data)
        os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
        self.files.append(rows)
        self.waiting.append((data, rows))

    def _account(self, rows: list[Row]) -> None:
        equal: Counter[Row] = Counter()
        for row in rows:
            name, user, _, value, day = row
            if not user:
                self.ends["skipped"] += 1
            elif value == "two":
                self.ends["quarantined"] += 1
            elif not name:
                equal[row] += 1
                known = equal[row] <= self.without_id[row]
                self.without_id[row] += not known
                self.ends["duplicates" if known else "accepted"] += 1
            elif (name, day) in self.named:
                same = self.named[name, day] == row
                self.ends["duplicates" if same else "quarantined"] += 1
            else:
                self.named[name, day] = row
                self.ends["accepted"] += 1

    def _compare(self) -> None:
        ws = Workspace.open(self.ws.home)
        events = ws.lake.read("events")
        raw = ws.vault.reveal(events[c.USER_ID].unique().to_list())
        actual = Counter(
            ("" if name.startswith("d") else name, raw[user], item, f"{value:g}", str(day))
            for name, user, item, value, day in events.select(
                c.EVENT_ID, c.USER_ID, c.ITEM_ID, c.VALUE, c.EVENT_DAY
            ).iter_rows()
        )
        assert actual == Counter(self.named.values()) + self.without_id
        done = ws.lake.read("batches").filter(pl.col(c.STATUS) == c.BatchStatus.DONE)
        counts = {name: done[name].sum() for name in (c.ACCEPTED, c.QUARANTINED, c.DUPLICATES)}
        assert counts == {name: self.ends[name] for name in counts}
        assert done[c.SKIPPED].sum() == self.ends["skipped"]
        assert ws.lake.read("quarantine").height == self.ends["quarantined"]
        assert events.height == self.ends["accepted"]
        assert list((ws.home / "landing" / "events").iterdir()) == []
        assert not (ws.home / "scratch").exists()


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Ingesting,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            derandomize=True,
            deadline=None,
        ),
    )


def test_files_in_any_order_with_deaths_between():
    run(4, 8)


@pytest.mark.slow
def test_many_files_in_any_order_with_deaths_between():
    run(40, 16)
