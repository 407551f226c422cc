"""Landing, ingesting, training, publishing and being killed in any order, against a plain account.

Files are the chaos shop's: new, repeated and re-ordered ones, with late, bad and contradictory
rows.
"""

import os
import tempfile
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from unittest import mock

import polars as pl
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pipeline import columns as c
from pipeline import failpoints
from pipeline.failpoints import FAILPOINTS, FailpointReached
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.testing.chaos.invariants import lake_entries
from pipeline.testing.chaos.synthetic_shop import CONFIG, FIRST_NIGHT, NIGHT, ExpectedState, Shop
from pipeline.workspace.artifacts import TablesFile
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.worlds import copy_of

PASS = (*FAILPOINTS["ingest"], *FAILPOINTS["foldin"])
AT_NIGHT = (*FAILPOINTS["night"], *FAILPOINTS["publish"])


class Looping(RuleBasedStateMachine):
    """A real workspace after its first night, and the expected result of each action."""

    start: ClassVar[tuple[Path, ExpectedState]]

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._patch = mock.patch.object(Child, "call", parsed_here)
        self._patch.start()
        home, account = self.start
        self.home = copy_of(home, Path(self._folder.name) / "ws")
        self.expected = deepcopy(account)
        self.landed = False
        self.nights = 0
        self.published = {FIRST_NIGHT}
        # A killed night goes on with the same options and with any versions that it pinned.
        self.publishes: bool | None = None
        self.pinned: set[int] = set()

    def teardown(self) -> None:
        self.ingest()
        self._night(publish=self.publishes is not False)
        self._patch.stop()
        self._folder.cleanup()

    @initialize(seed=st.integers(0, 1 << 20))
    def open(self, seed):
        self.shop = Shop(seed, self.expected)
        self.land()
        self.ingest()  # a feed that was silent for a week asks for no night

    @rule()
    def land(self):
        self.shop.batch(self.home)
        self.landed = True

    @precondition(lambda self: self.landed)
    @rule()
    def ingest(self):
        feedback(Workspace.open(self.home), NIGHT)
        self.landed = False
        assert lake_entries(self.home) == self.expected.entries()

    @precondition(lambda self: self.landed)
    @rule(point=st.sampled_from(PASS), hit=st.integers(1, 4))
    def crash(self, point, hit):
        self._dying(point, hit, lambda: feedback(Workspace.open(self.home), NIGHT))

    @precondition(lambda self: self.publishes is not True)
    @rule()
    def train(self):
        """A night that publishes no lists to users."""
        self._night(publish=False)

    @precondition(lambda self: self.publishes is not False)
    @rule()
    def publish(self):
        self._night(publish=True)

    @rule(point=st.sampled_from(AT_NIGHT), publish=st.booleans())
    def crash_at_night(self, point, publish):
        publish = publish if self.publishes is None else self.publishes
        self._dying(point, 1, lambda: self._night(publish=publish))

    def _night(self, *, publish: bool) -> None:
        ws, as_of = Workspace.open(self.home), NIGHT + timedelta(hours=self.nights)
        self.publishes = publish
        self.pinned.add(ws.lake.read("events").height)
        night = nightly(ws, as_of, publish=publish)
        assert (night.status, night.failures) == ("done", {})
        assert ws.runs.open(night.run_id).read(TablesFile).events in self.pinned
        self.nights, self.publishes, self.pinned = self.nights + 1, None, set()
        if publish and night.decision in ("refresh", "switch"):
            self.published.add(as_of)
        bases = ws.lake.read("publications").filter(pl.col(c.BASE).is_null())
        assert sorted(bases[c.AS_OF]) == sorted(self.published)
        lines = history(ws)
        published = [line.publication_id for line in lines if line.type == "publication"]
        assert sorted(published) == sorted(bases[c.PUBLICATION_ID])
        decided = [line for line in lines if line.type == "decision"]
        assert len(decided) == 1 + self.nights
        if not self.landed:
            assert lake_entries(self.home) == self.expected.entries()
        assert lists(ws, None).height > 0

    def _dying(self, point, hit, work) -> None:
        failpoints._armed.cache_clear()
        failpoints._passed.clear()
        with mock.patch.dict(os.environ, {failpoints.VARIABLE: f"{point}:raise:{hit}"}):
            try:
                work()
            except FailpointReached:
                pass
            finally:
                failpoints._armed.cache_clear()
        failpoints._armed()  # remembered while nothing is armed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loop_in_any_order_with_deaths_between(tmp_path):
    ws, shop = Workspace.init(tmp_path / "ws", CONFIG), Shop(0)
    shop.first(ws.home)
    feedback(ws, FIRST_NIGHT)
    assert nightly(ws, FIRST_NIGHT).decision == "first"
    with mock.patch.object(Looping, "start", (ws.home, shop.expected), create=True):
        run_state_machine_as_test(
            Looping,
            settings=settings(
                max_examples=3,
                stateful_step_count=5,
                database=None,
                derandomize=True,
                deadline=None,
                phases=[Phase.generate],  # to shrink a sequence of nights takes hours
            ),
        )
