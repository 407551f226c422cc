"""A night of real purchases, recomputed in plain Python from the specification and raw events."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from benchmarks.backtest import SOURCE, made
from benchmarks.command import DATA
from pipeline.base import as_of
from pipeline.steps.nightly.nightly import nightly
from tests import plain_gate as plain

FILE = next(
    (path for folder in DATA if (path := folder / "online-retail/online_retail.parquet").exists()),
    Path("/work/shared/data/online-retail/online_retail.parquet"),
)
NIGHTS = [datetime(2011, 9, 30, tzinfo=UTC) + timedelta(weeks=week) for week in range(6)]
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
    found = []
    for night in NIGHTS:
        run = nightly(ws, as_of(night)).run_id
        decision = json.loads((home / "runs" / run / "gate" / "decision.json").read_bytes())
        block = tuple(
            (datetime.fromisoformat(decision["block"][end]) - START) / timedelta(days=1)
            for end in ("start", "end")
        )
        found.append((decision, block))
    return found


def rule(decision, name):
    return next(one for one in decision["rules"] if one["name"] == name)


def test_the_last_night_has_the_figures_of_the_specification(decided):
    events = raw_events()
    values = [plain.evaluated(events, block, HALF_LIVES) for _, block in decided]
    decision, block = decided[-1]
    champion = decided[0][0]["recipe"]
    assert [one["kind"] for one, _ in decided] == ["first"] + ["refresh"] * (len(NIGHTS) - 1)
    assert {one["recipe"] for one, _ in decided} == {champion}
    assert {end - begin for _, (begin, end) in decided[1:]} == {7.0}
    # R2: tonight against the scorer of the night before.
    pair = plain.against_stored(events, block, decided[-2][1][0], HALF_LIVES[champion])
    last = plain.compared(*pair)
    stored = rule(decision, "refresh.last")
    assert last["n"] >= 200 and last["differ"] >= 30
    assert stored["figure"] == pytest.approx(last["x"], rel=1e-9)
    assert stored["bound"] == pytest.approx(-max(0.02, 3 * last["se"]), rel=1e-9)
    assert (stored["outcome"] == "pass") == (last["x"] >= stored["bound"])
    # R5: the level against the accepted blocks before.
    usual = [list(one[champion].values()) for one in values[1:-1][::-1][:4]]
    x, bound = plain.level(list(values[-1][champion].values()), usual)
    stored = rule(decision, "refresh.level")
    assert stored["figure"] == pytest.approx(x, rel=1e-9)
    assert stored["bound"] == pytest.approx(bound, rel=1e-9)
    # R6: the champion over the best baseline of each of two blocks.
    blocks = []
    for one in values[:-3:-1]:
        base = max(one, key=lambda name: sum(one[name].values()))
        blocks.append((one[champion], one[base]))
    stored = rule(decision, "refresh.floor")
    x, bound = plain.floor(blocks)
    if blocks[0][0] is blocks[0][1]:
        x, bound = 0.0, None  # tonight it is the best baseline itself
    assert stored["figure"] == pytest.approx(x, rel=1e-9, abs=1e-12)
    assert stored["bound"] == (None if bound is None else pytest.approx(bound, rel=1e-9))
    # The decision: no rule failed, no candidate reached its threshold.
    assert {one["outcome"] for one in decision["rules"] if one["name"].startswith("refresh.")} <= {
        "pass",
        "reported",
        "underpowered",
    }
    for status in decision["e_processes"]:
        records = [plain.compared(one[status["recipe"]], one[champion]) for one in values[1:]]
        records = [one for one in records if one["differ"] >= 30]
        found = plain.e_value(records, 0.01)
        assert status["blocks"] == len(records)
        assert status["threshold"] == pytest.approx(4 * 3 / 0.03)
        for name, figure in found.items():
            assert status[name] == pytest.approx(figure, rel=1e-8), (status["recipe"], name)
        assert status["log_e"] < 6  # below its threshold
