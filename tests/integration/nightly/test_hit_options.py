"""A night on which no recipe has a hit names the settings that give hits."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipeline.base import as_of
from pipeline.steps.feedback.feedback import feedback
from pipeline.workspace.artifacts import EvaluationFile
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide

NIGHT = as_of(datetime(2024, 3, 1, 9, tzinfo=UTC))
CONFIG = """
[split]
task = "discovery"
min_users = 20
holdout_days_options = [7]

[gate]
min_users = 20
min_nonzero = 10
slice_users = 20

[recommend]
length = 1

[features]
infer = false

[recipes.popularity]
"""


def events() -> pl.DataFrame:
    """Users who buy the third item of their list, and click on the first one.

    Others have made four items popular, in this order. Two weeks ago the users bought the first.
    """
    rows = [(f"fan{n}", f"p{item}", "purchase", 40 + n / 100)
            for item in range(1, 5) for n in range(50 - 10 * item)]  # fmt: skip
    for n in range(30):
        user = f"u{n}"
        rows += [(user, "x", "purchase", 40.0), (user, "p1", "purchase", 10.0)]
        rows += [(user, "p2", "click", 3.0), (user, "p4", "purchase", 2.0)]
    return pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(rows))],
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "kind": [row[2] for row in rows],
            "timestamp": [f"{NIGHT - timedelta(days=row[3]):%Y-%m-%dT%H:%M:%SZ}" for row in rows],
        }
    )


@pytest.fixture(scope="module")
def decided(workspace, tmp_path_factory: pytest.TempPathFactory):
    ws: Workspace = workspace(tmp_path_factory.mktemp("hits") / "home", CONFIG)
    path: Path = ws.home / "landing" / "events" / "events.csv"
    events().write_csv(path)
    os.utime(path, (0, 0))
    feedback(ws, NIGHT)
    run_id, decision = decide(ws, NIGHT)
    return ws.run(run_id), decision


def test_each_setting_that_gives_hits_is_named_with_its_users(decided) -> None:
    run, decision = decided
    options = run.read(EvaluationFile).hit_options
    assert [(option.setting, option.value, option.users) for option in options] == [
        ("recommend.length", "5", 30),
        ("split.holdout_days", "14 with holdout_days_options = [14]", 30),
        ("split.target_kinds", '["click"]', 30),
    ]
    assert decision.kind == "first"
    assert "recommend.length = 5 (decayed_popularity: 30 users)" in decision.sentence


def test_a_night_with_hits_looks_for_none(one_night) -> None:
    home, first = one_night
    assert Workspace.open(home).run(first.run_id).read(EvaluationFile).hit_options == ()
