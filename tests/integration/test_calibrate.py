"""The gate's calibration on a small shop: its results, its cost, and its state after a kill."""

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from itertools import count
from unittest.mock import patch

import pytest

from pipeline.base import plain, silent
from pipeline.cli import main
from pipeline.models.item_knn import ItemKnn
from pipeline.steps.experiments.calibration.calibrate import gate_calibrate
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history
from pipeline.steps.nightly.nightly import nightly
from pipeline.steps.nightly.snapshot import snapshot
from pipeline.workspace import task_log
from pipeline.workspace.artifacts import SnapshotFile
from pipeline.workspace.history import LedgerHistory
from pipeline.workspace.ledger import CalibrationEntry
from pipeline.workspace.workspace import Workspace
from tests.raising import raises
from tests.worlds import CONFIG, NIGHTS, START, land, purchases

pytestmark = pytest.mark.slow

EVENTS = purchases()
AS_OF = NIGHTS[2]
DAY = timedelta(days=1)


@pytest.fixture(scope="module", autouse=True)
def _every_line():
    """Progress without a pause between two lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_log, "PROGRESS_SECONDS", 0.0)
        yield


class KilledError(Exception):
    """The calibration was stopped."""


def ticking():
    """A clock that advances by a second with each reading."""
    seconds = count()
    return lambda: float(next(seconds))


def calibrated(ws, as_of=AS_OF, until=None):
    """Calibrate, and return the result and the fits that were done; `until` kills it there."""
    fits: list[int] = []

    def progress(line):
        match = re.match(r"calibrate: fit (\d+) of 32", line)
        if match and until is not None and int(match[1]) == until:
            raise KilledError
        if match:
            fits.append(int(match[1]))

    return gate_calibrate(ws, as_of, elapsed=ticking(), progress=progress), fits


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A workspace whose first night is live."""
    ws = Workspace.init(tmp_path_factory.mktemp("shop") / "home", CONFIG)
    land(ws.home, EVENTS, AS_OF)
    feedback(ws, AS_OF)
    assert nightly(ws, AS_OF).exit_code == 0
    return ws.home


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory):
    """The workspace and result of an undisturbed calibration."""
    shutil.copytree(home, folder := tmp_path_factory.mktemp("whole") / "home")
    ws = Workspace.open(folder)
    result, fits = calibrated(ws)
    assert fits == list(range(1, 33))
    return ws, result


@pytest.fixture
def copy(home, tmp_path):
    shutil.copytree(home, tmp_path / "home")
    return Workspace.open(tmp_path / "home")


def test_it_reports_how_often_the_gate_is_wrong_and_its_power(whole):
    _, result = whole
    calibration = result.calibration
    assert (calibration.replicates, len(calibration.users), calibration.df) == (8, 4, 28)
    assert (calibration.pairs, calibration.disjoint_pairs, len(calibration.equal)) == (224, 16, 56)
    assert min(calibration.users) >= 200
    assert 0 < calibration.rate <= calibration.rate_upper < 0.02
    assert 0 < calibration.seed_sd < 0.05
    assert calibration.switched == 0
    # Personal frequency has nothing to list here.
    pairs = [(pair.recipe, pair.blocks) for pair in calibration.recipe_pairs]
    assert pairs == [("decayed_popularity", 4), ("mad", 4), ("popularity", 4)]
    assert calibration.planted == pytest.approx(0.03, abs=0.01)
    assert 0 <= calibration.power <= 1
    assert result.svg.startswith(b"<svg")
    text = result.text()
    for part in (
        "false switches",
        "224 ordered pairs",
        "seed SD",
        "within 4 blocks",
        "als, NDCG@20",
        "popularity against als: lift −",
        "SD of the lift from block to block",
    ):
        assert part in text


def test_the_ledger_keeps_it_and_later_nights_take_the_spread_from_there(whole):
    ws, result = whole
    (entry,) = [e for e in history(ws) if isinstance(e, CalibrationEntry)]
    assert entry == result.line
    assert entry.key == f"calibration:{entry.calibration}"
    assert (entry.recipe, entry.family, entry.metric, entry.k) == ("als", "als", "ndcg", 20)
    assert entry.task == "discovery"
    assert entry.cutoffs == tuple(AS_OF - (7 + 28 * back) * DAY for back in (3, 2, 1, 0))
    assert entry.seed_sd == result.calibration.seed_sd
    past = LedgerHistory.of(ws.ledger)
    assert past.seed_sds(AS_OF + 90 * DAY, "discovery", 20) == {"als": entry.seed_sd}
    assert past.seed_sds(AS_OF + 91 * DAY, "discovery", 20) == {}
    land(ws.home, EVENTS, AS_OF + DAY, AS_OF)
    feedback(ws, AS_OF + DAY)
    started = snapshot(ws, AS_OF + DAY)
    pinned = ws.runs.open(started.run_id).read(SnapshotFile)
    assert pinned.seed_sds == {"als": entry.seed_sd}


def test_the_same_call_fits_nothing_again(whole):
    ws, result = whole
    before = history(ws)
    again, fits = calibrated(ws)
    assert fits == []
    assert (again.line, again.calibration, again.svg) == (
        result.line,
        result.calibration,
        result.svg,
    )
    assert history(ws) == before


def test_a_killed_one_goes_on_and_finds_the_same_though_the_lake_has_grown(whole, copy):
    with pytest.raises(KilledError):
        calibrated(copy, until=12)
    assert [e for e in history(copy) if isinstance(e, CalibrationEntry)] == []
    land(copy.home, EVENTS.with_columns(EVENTS["event_id"] + "x"), AS_OF, START + 90 * DAY)
    assert feedback(copy, AS_OF).accepted > 0
    result, fits = calibrated(copy)
    assert fits == list(range(12, 33))
    assert result.calibration == whole[1].calibration
    assert result.svg == whole[1].svg


def test_an_earlier_as_of_without_a_champion_is_refused(copy):
    with raises("calibration.no_champion"):
        calibrated(copy, NIGHTS[1])


def test_too_little_history_is_refused_in_words(copy):
    toml = copy.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace("[split]", "[split]\nmin_users = 400"))
    with raises("calibration.too_few_holdouts"):
        calibrated(Workspace.open(copy.home))
    toml.write_text(toml.read_text().replace("min_users = 400", "holdout_days = 50"))
    with raises("calibration.too_few_holdouts"):
        calibrated(Workspace.open(copy.home))


def test_holdouts_touch_where_there_are_no_weeks_between_them(copy):
    toml = copy.home / "nightjar.toml"
    toml.write_text(toml.read_text().replace("[split]", "[split]\nholdout_days = 21"))
    result, _ = calibrated(Workspace.open(copy.home))
    assert result.line.cutoffs == tuple(AS_OF - 21 * n * DAY for n in (4, 3, 2, 1))


def test_a_recipe_without_randomness_is_reported_as_such(tmp_path):
    config = CONFIG[: CONFIG.index("[recipes.als]")]
    ws = Workspace.init(tmp_path / "home", config + '[recipes.knn]\nfamily = "item_knn"\n')
    land(ws.home, EVENTS, AS_OF)
    feedback(ws, AS_OF)
    assert nightly(ws, AS_OF, recipes=["knn"]).exit_code == 0
    replicates = []
    train = ItemKnn.train

    def counted(self, history, *, replicate=0, progress=silent):
        replicates.append(replicate)
        return train(self, history, replicate=replicate, progress=progress)

    with patch.object(ItemKnn, "train", counted):
        result, _ = calibrated(ws)
    assert replicates == [*range(8), 0, 1, 0, 1, 0, 1]  # what cannot differ is not trained again
    line = result.line
    assert (line.family, line.seed_sd, line.rate, line.v_hat) == ("item_knn", 0, 0, 0)
    assert "the recipe has no seed noise" in line.sentence
    assert 0 < line.tossed_upper < 0.02
    assert result.calibration.planted > 0.02


def nightjar(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["nightjar", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code, out.getvalue(), err.getvalue()


def test_the_command(whole, tmp_path):
    ws, result = whole
    figure = tmp_path / "figure.svg"
    code, out, _ = nightjar("gate", "calibrate", "--home", ws.home, "--json", "--out", figure)
    assert code == 0
    assert json.loads(out) == plain(result)
    assert figure.read_bytes() == result.svg
    code, out, _ = nightjar("gate", "calibrate", "--home", ws.home, "--out", figure)
    assert out.startswith("als: one block favours an equal recipe in ")
    assert str(figure) in out
    code, out, err = nightjar("gate")
    assert (code, out) == (2, "")
    assert "--run is missing" in err
    code, _, err = nightjar("gate", "--home", ws.home, "calibrate")
    assert code == 2
    assert "write options after the command calibrate" in err
