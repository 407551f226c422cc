"""A config without recipes: the night chooses recipes that fit its data."""

from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import nightly
from pipeline.workspace.night import Night
from tests.worlds import NIGHTS, land, purchases

CONFIG = """\
[sources.shop]
table = "events"
path = "*.csv"
constants = { kind = "purchase" }

[split]
min_users = 60

[gate]
min_users = 60

[publish]
live_from = "as_of"
"""


def test_a_night_without_recipes_tunes_the_default_and_decides(workspace, tmp_path):
    ws = workspace(tmp_path / "home", CONFIG)
    land(ws.home, purchases(users=120, items=50), NIGHTS[0])
    feedback(ws, NIGHTS[0])
    messages = []
    ended = nightly(ws, NIGHTS[0], progress=messages.append)
    night = Night.read(ws, ws.run(ended.run_id))
    assert night.snapshot.recipes["blend"].has_free_params
    assert not night.recipes["blend"].has_free_params
    assert any(text.startswith("train blend: ") for text in messages)
    parts = night.recipes["blend"].parts
    assert all(f"{name} × " in ended.chosen["blend"] for name in parts)
    page = ws.run(ended.run_id).folder.joinpath("page.html").read_text(encoding="utf-8")
    assert ended.chosen["blend"] in page
    assert (ended.status, ended.decision, ended.failures) == ("done", "first", {})
