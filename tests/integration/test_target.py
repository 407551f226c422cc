"""A stronger kind of event: proposed by a night, and made the target by a user."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.base import as_of
from pipeline.cli.app import app
from pipeline.errors import ConfigError
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.accept import accept_target
from pipeline.workspace.artifacts import SplitFile
from pipeline.workspace.ledger import TargetEntry, entries_of
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.raising import raises
from tests.worlds import NIGHTS, copy_of, land, purchases

pytestmark = pytest.mark.slow

WORD = {"by": "Ada", "reason": "orders are what the shop lives from"}
NEXT = as_of(NIGHTS[2] + timedelta(days=1))
ORDERS = """
[sources.orders]
table = "events"
path = "orders-*.csv"
constants = { kind = "order" }

[ingest]
kinds = ["purchase", "order"]

[features]
infer = false
weights = { purchase = 3.0, order = 9.0 }
"""


@dataclass
class Shop:
    ws: Workspace
    run_id: str
    sentence: str


def land_orders(home: Path, since, until) -> None:
    """Every purchase of these days was an order, too."""
    rows = purchases().with_columns(event_id="o" + pl.col("event_id"))
    path = land(home, rows, until, since)
    path.rename(path.with_name(f"orders-{until:%Y%m%d}.csv"))


@pytest.fixture(scope="module")
def shop(third_landed: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop of purchases that has had orders for exactly four blocks."""
    home = copy_of(third_landed, tmp_path_factory.mktemp("target") / "home")
    toml = home / "nightjar.toml"
    toml.write_text(toml.read_text().replace('path = "*.csv"', 'path = "shop-*.csv"') + ORDERS)
    ws = Workspace.open(home)
    land_orders(home, NIGHTS[0], NIGHTS[2])
    assert feedback(ws, NIGHTS[2]).accepted > 3000
    run_id, decided = decide(ws, NIGHTS[2])
    return Shop(ws, run_id, decided.sentence)


def test_a_stronger_kind_is_proposed_with_the_command_that_accepts_it(shop):
    split = shop.ws.run(shop.run_id).read(SplitFile)
    assert (split.target_kinds, split.stronger_kinds) == (("purchase",), ("order",))
    assert f"`nightjar gate accept {shop.run_id} --target order`" in shop.sentence


def test_only_a_proposed_kind_of_a_decided_run_is_accepted(shop, monkeypatch, capsys):
    with raises("accept.unknown_target"):
        accept_target(shop.ws, shop.run_id, "view", **WORD)
    with raises("override.empty"):
        accept_target(shop.ws, shop.run_id, "order", by="", reason="x")
    assert not [e for e in entries_of(shop.ws.ledger) if isinstance(e, TargetEntry)]
    options = ["--by", "a", "--reason", "b", "--recipe", "als", "--target", "order"]
    monkeypatch.setenv("NIGHTJAR_HOME", str(shop.ws.home))
    with pytest.raises(ConfigError) as error:
        app(["gate", "accept", shop.run_id, *options], standalone_mode=False)
    assert error.value.id == "usage.recipe_and_target"


def test_the_accepted_kind_is_the_target_of_a_new_task(shop, tmp_path):
    ws = Workspace.open(copy_of(shop.ws.home, tmp_path / "home"))
    entry = accept_target(ws, shop.run_id, "order", **WORD)
    assert (entry.target_kinds, entry.by, entry.as_of) == (("order",), "Ada", NIGHTS[2])
    assert accept_target(ws, shop.run_id, "order", **WORD) == entry
    with raises("override.contradicts"):
        accept_target(ws, shop.run_id, "order", by="Bob", reason="again")

    land(ws.home, purchases(), NEXT, NIGHTS[2])
    land_orders(ws.home, NIGHTS[2], NEXT)
    feedback(ws, NEXT)
    run = ws.run(decide(ws, NEXT)[0])
    with raises("override.later_run"):
        accept_target(ws, shop.run_id, "order", **WORD)
    split, decision = run.read(SplitFile), run.read(DecisionFile).root
    assert (split.target_kinds, split.stronger_kinds) == (("order",), ())
    # Evidence, level history and anchor start anew.
    assert {(s.opened, s.blocks) for s in decision.e_processes} == {(NEXT, 0)}
    outcomes = {rule.name: rule.outcome for rule in decision.rules}
    assert (outcomes["refresh.level"], outcomes["refresh.anchor"]) == ("reported", "reported")
    assert decision.anchor is not None
    assert decision.kind == "refresh"
