"""Acceptance by the operator: a kept or blocked recipe goes live only with name and reason."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.base import plain
from pipeline.cli.app import app
from pipeline.errors import GateError
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.maintenance.gc import gc
from pipeline.steps.nightly.accept import accept_run, set_anchor
from pipeline.steps.nightly.gate_history import gate_history_of
from pipeline.steps.nightly.nightly import nightly, result
from pipeline.steps.reporting.page_files import page_files
from pipeline.workspace.artifacts import EvaluationFile
from pipeline.workspace.ledger import entries_of
from pipeline.workspace.night import decision_of, open_night
from pipeline.workspace.registry import registry
from pipeline.workspace.release_artifacts import DecisionFile
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, catalogue, copy_of, land, purchases

pytestmark = pytest.mark.slow

WORD = {"by": "Ada", "reason": "the tastes have changed"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory, one_night):
    """A first night, and a second one blocked because tastes have changed."""
    home = copy_of(one_night[0], tmp_path_factory.mktemp("word") / "home")
    ws, first = Workspace.open(home), one_night[1]
    land(home, purchases(tastes=1, seed=7), NIGHTS[1], NIGHTS[0])
    feedback(ws, NIGHTS[1])
    second = nightly(ws, NIGHTS[1])
    assert (first.decision, second.decision) == ("first", "block")
    return home, first.run_id, second.run_id


@pytest.fixture
def copy(shop, tmp_path):
    return Workspace.open(copy_of(shop[0], tmp_path / "home")), shop[1], shop[2]


def lines(ws, type_):
    return [entry for entry in entries_of(ws.ledger) if entry.type == type_]


@pytest.fixture(scope="module")
def accepted(shop, tmp_path_factory):
    """The blocked night, accepted twice after weeks and maintenance, and started again.

    Returns the workspace, the id of its run, both entries, the result, and the rest of gc.
    """
    ws = Workspace.open(copy_of(shop[0], tmp_path_factory.mktemp("accepted") / "home"))
    run_id = shop[2]
    arrays = [(step, f"{step}/scorer.npz") for step in ws.run(run_id).steps("train")]
    gc(ws, datetime.now(UTC) + timedelta(days=20))
    ws = Workspace.open(ws.home)
    left = [step for step, file in arrays if (ws.run(run_id).folder / file).exists()]
    assert len(left) < len(arrays)
    entries = accept_run(ws, run_id, **WORD), accept_run(ws, run_id, **WORD)
    return ws, run_id, entries, nightly(ws, NIGHTS[1]), left


def test_a_blocked_night_goes_live_when_a_user_accepts_it(accepted):
    ws, run_id, (line, again), ended, left = accepted
    assert left == ["train/als"]  # what is needed for it
    assert (line.key, line.kind, line.by) == (f"override:{run_id}", "refresh", "Ada")
    assert line.sentence.startswith("refresh, accepted by Ada: the tastes have changed; ")
    # The same override twice is one line, and the night goes on where it stopped.
    assert again == line
    assert len(lines(ws, "override")) == 1
    assert (ended.run_id, ended.status, ended.decision) == (run_id, "done", "refresh")
    assert ended.publication_id == f"p-{run_id}"
    assert ended.exit_code == 0
    assert lines(ws, "publication")[-1].run_id == run_id
    assert registry(ws).aliases()["champion"] == int(ended.model_version)
    assert nightly(ws, NIGHTS[1]).status == "already_done"
    [page] = ws.run(run_id).folder.rglob("page.html")
    assert "Refresh, accepted by Ada: the tastes have changed" in page.read_text()
    # The gate's decision stays in the run.
    assert ws.run(run_id).read(DecisionFile).root.kind == "block"
    assert decision_of(ws.run(run_id)).kind == "refresh"


def test_the_next_night_builds_on_the_accepted_run(accepted, tmp_path):
    ws = Workspace.open(copy_of(accepted[0].home, tmp_path / "home"))
    land(ws.home, purchases(tastes=1, seed=7), NIGHTS[2], NIGHTS[1])
    feedback(ws, NIGHTS[2])
    third, _ = decide(ws, NIGHTS[2])
    last = ws.run(third).read(EvaluationFile).references.last
    assert last.run_id == accepted[1]


def test_the_next_night_is_compared_with_an_accepted_run_that_was_not_published(copy):
    ws, _, run_id = copy
    accept_run(ws, run_id, **WORD)
    # Its large files stay for the comparison.
    gc(ws, datetime.now(UTC) + timedelta(days=20))
    land(ws.home, purchases(tastes=1, seed=7), NIGHTS[2], NIGHTS[1])
    feedback(ws, NIGHTS[2])
    third, _ = decide(ws, NIGHTS[2])
    assert ws.run(third).read(EvaluationFile).references.last.run_id == run_id
    rules = {rule.name: rule for rule in ws.run(third).read(DecisionFile).root.rules}
    assert rules["refresh.last"].outcome != "missing"
    # It is the start of the level history, too.
    past = gate_history_of(open_night(ws, third))
    assert past.levels_since == NIGHTS[1]
    assert [level.block.end for level in past.levels if level.accepted][-1] == NIGHTS[1]


def test_a_live_an_unknown_and_an_unexplained_run_cannot_be_accepted(copy):
    ws, first, run_id = copy
    with raises("override.already_trained"):
        accept_run(ws, first, **WORD)
    with raises("run.unknown"):
        accept_run(ws, "20240101T000000Z-00000000", **WORD)
    for missing in ({"by": " "}, {"reason": ""}):
        with raises("override.empty"):
            accept_run(ws, run_id, **WORD | missing)


def test_an_accepted_run_cannot_be_accepted_otherwise(accepted):
    ws, run_id, *_ = accepted
    with raises("override.contradicts"):
        accept_run(ws, run_id, by="Bob", reason="late")
    with raises("override.contradicts"):
        accept_run(ws, run_id, recipe="another", **WORD)
    for odd in ("two\nlines", "\x1b[31m", "a\udcff"):
        with raises("override.not_printable"):
            accept_run(ws, run_id, **WORD | {"reason": odd})


def test_a_kept_run_names_the_command_while_it_works(copy):
    ws, first, run_id = copy
    command = f"nightjar gate accept {run_id} --by NAME --reason TEXT"

    def advice(one):
        ended = result(ws, one)
        assert plain(ended)["acceptable"] == list(ended.acceptable)
        return ended.acceptable, "gate accept" in ended.text()

    assert advice(first) == ((), False)  # it is live
    assert advice(run_id) == (("als",), True)
    assert command in result(ws, run_id).text()
    page = page_files(ws.run(run_id))["page.html"].decode()
    assert f"<code>{command}</code> chooses als; it prints" in page
    asked = command.split()[1:]
    asked = [{"NAME": "Ada", "TEXT": "so"}.get(word, word) for word in asked]
    app([*asked, "--home", str(ws.home)], standalone_mode=False)
    assert advice(run_id) == ((), False)


def test_a_run_without_evaluation_cannot_be_accepted(copy, monkeypatch):
    ws, _, run_id = copy
    from pipeline.steps.nightly import accept

    def spoilt(run, *_, **__):
        raise GateError(
            "accept.not_evaluated",
            "this run cannot be accepted: half of the catalogue is gone",
        )

    monkeypatch.setattr(accept, "accept", spoilt)
    with raises("accept.not_evaluated"):
        accept_run(ws, run_id, **WORD)
    assert lines(ws, "override") == []
    assert ws.run(run_id).committed("accept") is None


def test_an_anchor_is_set_by_hand_and_counts_from_then_on(copy):
    ws, _, run_id = copy
    line = set_anchor(ws, **WORD)
    assert line.type == "anchor"
    assert line == set_anchor(ws, **WORD)
    with raises("override.contradicts"):
        set_anchor(ws, by="Bob", reason="again")
    decision = ws.run(run_id).read(DecisionFile).root
    assert line.anchor.recipe_hash in {level.recipe_hash for level in decision.levels}
    assert line.recipe == lines(ws, "publication")[-1].name
    land(ws.home, purchases(tastes=1, seed=7), NIGHTS[2], NIGHTS[1])
    feedback(ws, NIGHTS[2])
    third, decided = decide(ws, NIGHTS[2])
    assert decided.kind in ("refresh", "keep", "block")
    assert ws.run(third).read(DecisionFile).root.anchor == line.anchor


GREY = CONFIG + "\n[gate]\nalpha = 1e-200\n"
"""No evidence of three weeks suffices."""
GREY_NIGHT = NIGHTS[0] + timedelta(days=21)


@pytest.fixture(scope="module")
def decided(tmp_path_factory, workspace):
    """A decided night: als is better than the champion, without enough evidence yet."""
    home = tmp_path_factory.mktemp("grey") / "home"
    ws = workspace(home, GREY)
    catalogue(home)
    land(home, purchases(), NIGHTS[0])
    feedback(ws, NIGHTS[0])
    first = nightly(ws, NIGHTS[0], recipes=["mad"])
    assert (first.decision, first.recipe) == ("first", "popularity")
    # Its first night opens the e-process of als; a switch needs two further weeks.
    for week in (1, 2):
        night = NIGHTS[0] + timedelta(days=7 * week)
        land(home, purchases(), night, night - timedelta(days=7))
        feedback(ws, night)
        assert nightly(ws, night).decision == "refresh"
    land(home, purchases(), GREY_NIGHT, GREY_NIGHT - timedelta(days=7))
    feedback(ws, GREY_NIGHT)
    run_id, decision = decide(ws, GREY_NIGHT)
    statuses = ws.run(run_id).read(DecisionFile).root.e_processes
    log_e = next(status.log_e for status in statuses if status.recipe == "als")
    # Twice the evidence that one candidate alone needs; a later one needs eight times as much.
    toml = home / "nightjar.toml"
    toml.write_text(toml.read_text().replace("1e-200", repr(2 * math.exp(-log_e))))
    ws = Workspace.open(home)
    run_id, decision = decide(ws, GREY_NIGHT)
    assert decision.kind == "refresh"
    assert not decision.needs_review  # the settings do not ask for it
    assert "als is inconclusive" in decision.sentence
    return home, run_id


@pytest.fixture
def grey(decided, tmp_path):
    return Workspace.open(copy_of(decided[0], tmp_path / "home")), decided[1]


def test_a_candidate_in_the_grey_zone_goes_live_by_a_persons_word(grey):
    ws, run_id = grey
    line = accept_run(ws, run_id, **WORD)
    assert (line.kind, line.recipe) == ("switch", "als")
    ended = nightly(ws, GREY_NIGHT)
    assert (ended.run_id, ended.decision, ended.recipe) == (run_id, "switch", "als")
    assert lines(ws, "publication")[-1].name == "als"
    # It is the champion from then on: with its own anchor, and all accounts begin anew.
    land(ws.home, purchases(), NIGHTS[2], GREY_NIGHT)
    feedback(ws, NIGHTS[2])
    decision = ws.run(decide(ws, NIGHTS[2])[0]).read(DecisionFile).root
    assert (decision.recipe, decision.kind) == ("als", "refresh")
    hashes = {status.champion_hash for status in decision.e_processes}
    assert hashes == {decision.recipe_hash} == {decision.anchor.recipe_hash}


def test_a_recipe_that_the_night_does_not_offer_cannot_be_accepted(grey):
    ws, run_id = grey
    with raises("accept.unknown_recipe"):
        accept_run(ws, run_id, **WORD, recipe="mad")


def test_without_a_word_the_grey_zone_changes_nothing(grey):
    ws, run_id = grey
    ended = nightly(ws, GREY_NIGHT)
    assert (ended.run_id, ended.decision, ended.recipe) == (run_id, "refresh", "popularity")
    with raises("override.already_trained"):
        accept_run(ws, run_id, **WORD)
