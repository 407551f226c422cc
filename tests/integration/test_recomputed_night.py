"""A night of real purchases, recomputed in plain Python from the specification and raw events."""

import json
import math
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from benchmarks.backtest import SOURCE, made
from benchmarks.command import DATA
from pipeline.base import as_of
from pipeline.steps.nightly.nightly import nightly
from tests import plain_gate as plain

FILE = (
    next((path for path in DATA if path.is_dir()), DATA[0]) / "online-retail/online_retail.parquet"
)
NIGHTS = [datetime(2011, 9, 30, tzinfo=UTC) + timedelta(weeks=week) for week in range(4)]
START = datetime(2010, 1, 1, tzinfo=UTC)
HALF_LIVES = {"popularity": None, "decayed_popularity": 20.0, "quick": 4.0, "slow": 60.0}
CONFIG = f"""{SOURCE}
[split]
task = "discovery"

[features]
infer = false

[publish]
live_from = "as_of"

[recipes.quick]
family = "decayed_popularity"
half_life_days = 4.0

[recipes.slow]
family = "decayed_popularity"
half_life_days = 60.0
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILE.exists(), reason="needs Online Retail"),
]


def raw_events():
    """Read the invoice lines with a customer, a product's code, a quantity and a price."""
    events = set()
    lines = pl.read_parquet(FILE)
    names = ("CustomerID", "StockCode", "Quantity", "UnitPrice", "InvoiceDate")
    for user, item, quantity, price, at in lines.select(names).iter_rows():
        if user is not None and quantity > 0 and price > 0 and item[:5].isdigit():
            day = (at.replace(tzinfo=UTC) - START) / timedelta(days=1)
            events.add((str(int(user)), item.upper(), day))
    return events


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """Decisions of some weekly nights as JSON, and their blocks in days."""
    home = tmp_path_factory.mktemp("recomputed") / "home"
    ws = made("online-retail", home, FILE.parents[1], CONFIG)
    nights = []
    for night in NIGHTS:
        run = nightly(ws, as_of(night)).run_id
        decision = json.loads((home / "runs" / run / "gate" / "decision.json").read_bytes())
        block = tuple(
            (datetime.fromisoformat(end) - START) / timedelta(days=1) for end in decision["block"]
        )
        nights.append((decision, block))
    return nights


def rule(decision, name):
    return next(one for one in decision["rules"] if one["name"] == name)


@pytest.fixture(scope="module")
def values(decided):
    """Values by user of each recipe on each night's block, from raw events."""
    events = raw_events()
    return events, [plain.evaluated(events, block, HALF_LIVES) for _, block in decided]


def test_a_blocked_night_has_the_figures_of_the_specification(decided, values):
    events, of_night = values
    (first, first_block), _, (decision, block), _ = decided
    champion = first["recipe"]
    assert (first["kind"], decision["kind"]) == ("first", "block")
    # R2: tonight against the scorer of the first night, the last accepted one.
    pair = plain.against_stored(events, block, first_block[0], HALF_LIVES[champion])
    last = plain.compared(*pair)
    stored = rule(decision, "refresh.last")
    assert last["n"] >= 200 and last["differ"] >= 30
    assert stored["figure"] == pytest.approx(last["x"], rel=1e-9)
    assert stored["bound"] == pytest.approx(-max(0.02, 3 * last["se"]), rel=1e-9)
    assert stored["outcome"] == "pass" and last["x"] >= stored["bound"]
    # R6: the champion over the best baseline of tonight's block and of the last accepted one, which
    # is that of the first night, because the second one was blocked.
    pairs = []
    for one in (of_night[2], of_night[0]):
        best = max(one, key=lambda name: sum(one[name].values()))
        pairs.append((one[champion], one[best]))
    ratio, se = plain.ratio(pairs)
    stored = rule(decision, "refresh.floor")
    assert stored["figure"] == pytest.approx(ratio - 1, rel=1e-9)
    assert stored["bound"] == pytest.approx(-max(0.02, 3 * se), rel=1e-9)
    assert stored["outcome"] == "fail" and ratio - 1 < stored["bound"]
    # R7: the same over the anchor, the ratio of the first night's block.
    one = of_night[0]
    best = max(one, key=lambda name: sum(one[name].values()))
    anchor, anchor_se = plain.ratio([(one[champion], one[best])])
    x = ratio / anchor - 1
    error = math.hypot(se, (x + 1) * anchor_se) / anchor
    stored = rule(decision, "refresh.anchor")
    assert stored["figure"] == pytest.approx(x, rel=1e-9)
    assert stored["bound"] == pytest.approx(-max(0.1, 3 * error), rel=1e-9)
    assert stored["outcome"] == "pass" and x >= stored["bound"]


def test_a_switch_has_the_e_value_of_the_specification(decided, values):
    _, of_night = values
    champion, decision = decided[0][0]["recipe"], decided[-1][0]
    assert [one["kind"] for one, _ in decided] == ["first", "block", "block", "switch"]
    assert {end - begin for _, (begin, end) in decided[1:]} == {7.0}
    winners = []
    for status in decision["e_processes"]:
        name = status["recipe"]
        records = [plain.compared(one[name], one[champion]) for one in of_night[1:]]
        figures = plain.e_value(records, 0.01)
        assert status["blocks"] == len(records) == 3
        assert status["threshold"] == pytest.approx(4 * 3 / 0.03)
        for key, value in figures.items():
            assert status[key] == pytest.approx(value, rel=1e-8), (name, key)
        held = figures["log_e"] >= math.log(400) and figures["lift"] >= 0.01
        if held and figures["log_rest"] >= math.log(10):
            winners.append((figures["log_e"], name))
        # S6: its summed values over those of each baseline, in units of the champion's mean.
        for rule_ in decision["rules"]:
            prefix = "switch.baselines."
            if rule_["subject"] == name and rule_["name"].startswith(prefix):
                base = rule_["name"].removeprefix(prefix)
                total = sum(plain.total(one[name], one[champion]) for one in of_night[1:])
                other = sum(plain.total(one[base], one[champion]) for one in of_night[1:])
                assert rule_["figure"] == pytest.approx(total, rel=1e-9)
                assert rule_["bound"] == pytest.approx(other, rel=1e-9)
    assert max(winners)[1] == decision["recipe"]
