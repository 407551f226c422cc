"""A process killed at any failpoint and started again ends in the state of an undisturbed run.

Ingest is compared with an account kept by hand, a night with an undisturbed run. A reader polls the
lists during each run.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from pipeline import failpoints
from pipeline.errors import ConfigError, LakeError
from pipeline.failpoints import FAILPOINTS, FailpointReached, failpoint
from pipeline.steps.feedback.feedback import feedback
from pipeline.stores.lake import Lake
from pipeline.testing.chaos import chaos
from pipeline.testing.chaos.chaos import HITS, Tally, draw_hit, kill, sandbox
from pipeline.testing.chaos.invariants import Reader, lake_entries, published_entries
from pipeline.testing.chaos.synthetic_shop import NIGHT, Shop
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.dying import parsed_here
from tests.ingesting import AT, land, orders, state, workspace

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1)
SCENARIOS = {
    # place: what is done, from which state
    "listed": ("feedback", "landed"),
    "claimed": ("feedback", "landed"),
    "parsed": ("feedback", "landed"),
    "quarantine_written": ("feedback", "landed"),
    "before_commit": ("feedback", "landed"),
    "committed": ("feedback", "landed"),
    "fsynced": ("feedback", "landed"),
    "archived": ("feedback", "landed"),
    "before_asset": ("feedback", "landed"),
    "before_foldin": ("feedback", "landed"),
    "patch_staged": ("feedback", "landed"),
    "patch_swapped": ("feedback", "landed"),
    "snapshot_pinned": ("nightly", "taken"),
    "step_tmp": ("nightly", "taken"),
    "step_renamed": ("nightly", "taken"),
    "manifest": ("nightly", "taken"),
    "mid_train": ("nightly", "taken"),
    "evaluated": ("nightly", "taken"),
    "decided": ("nightly", "judged"),
    "refit": ("nightly", "judged"),
    "artifact_logged": ("nightly", "judged"),
    "version_created": ("nightly", "judged"),
    "tagged": ("nightly", "judged"),
    "lists_written": ("nightly", "mirrored"),
    "checked": ("nightly", "mirrored"),
    "staged": ("nightly", "mirrored"),
    "before_swap": ("nightly", "mirrored"),
    "swapped": ("nightly", "mirrored"),
    "ledger": ("nightly", "mirrored"),
    "alias": ("nightly", "mirrored"),
    "compacted": ("gc", "due"),
    "checkpointed": ("gc", "due"),
    "sums_written": ("gc", "due"),
    "log_cleared": ("gc", "due"),
    "run_renamed": ("gc", "due"),
}

PUBLISHED = {"landed": 2, "taken": 3, "judged": 3, "mirrored": 5, "due": 2}
"""Publications at the end: a base and its patch; the night's; the patches of what overtook it."""


def places() -> Counter[str]:
    """The names in the code: `failpoint("...")` with a literal, or this fails."""
    counts: Counter[str] = Counter()
    for path in [*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "dags").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "failpoint"
            ):
                [argument] = node.args
                assert isinstance(argument, ast.Constant), path
                counts[argument.value] += 1
    return counts


def test_every_place_has_a_scenario_and_every_scenario_a_place():
    assert len(SCENARIOS) == 35
    assert set(places()) == set(SCENARIOS)
    assert set(places().values()) == {1}
    assert [name for names in FAILPOINTS.values() for name in names] == list(SCENARIOS)
    assert set(HITS) <= set(SCENARIOS)


@pytest.fixture
def armed(monkeypatch):
    """Arm a failpoint in this process."""

    def arm(text: str) -> None:
        failpoints._armed.cache_clear()
        failpoints._passed.clear()
        monkeypatch.setenv(failpoints.VARIABLE, text)

    yield arm
    monkeypatch.undo()
    failpoints._armed.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "committed",
        "committed:kill:1:2",
        "commited:kill",
        "committed:explode",
        "committed:kill:",
        "committed:kill:0",
        "committed:kill:two",
        "committed:kill:²",
    ],
)
def test_a_malformed_setting_is_an_error(armed, text):
    armed(text)
    with pytest.raises(ConfigError, match=re.escape(f"={text} is invalid")):
        failpoint("listed")


def test_a_place_acts_once_when_its_turn_comes(armed, capfd):
    armed("")
    failpoint("listed")
    armed("listed:raise:2")
    failpoint("claimed")
    failpoint("listed")
    with pytest.raises(FailpointReached, match="listed"):
        failpoint("listed")
    failpoint("listed")
    assert capfd.readouterr().err == "failpoint listed: raise\n"


@pytest.fixture(scope="module")
def landed(tmp_path_factory):
    """A workspace in which three files wait, and its state after an undisturbed pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "call", parsed_here)
        ws = workspace(tmp_path_factory.mktemp("landed") / "ws")
        # The users are known already, because pseudonyms of new users are random.
        land(ws, "orders-0.csv", orders("0,anna,bread,1,2024-03-01", "9,bert,milk,1,2024-03-01"))
        feedback(ws, AT)
        land(ws, "orders-1.csv", orders("1,anna,bread,1,2024-03-01", ",bert,milk,1,2024-03-01"))
        land(ws, "orders-2.csv", orders("1,anna,bread,1,2024-03-01", "2,anna,salt,x,2024-03-02"))
        land(ws, "items.csv", "item_id,title\nbread,Bread\n", "items")
        shutil.copytree(ws.home, ws.home.parent / "calm")
        expected = _pass(ws.home.parent / "calm")
        assert len(expected[0]["events"]) == 4
        return ws.home, expected


def _pass(home: Path) -> tuple[object, ...]:
    ws = Workspace.open(home)
    feedback(ws, AT)
    left = [*(home / "scratch").glob("*"), *(home / "lake" / "_spool").glob("*")]
    left += (home / "landing" / "events").glob("*")
    versions = {t: ws.lake.version(t) for t in ("events", "items", "quarantine", "batches")}
    return state(ws), versions, left


# Items come first: intent, rows, end. Then both files of events at once: intent, bad rows, rows,
# end. An exception while the second of them is read lets the first one in by itself.
@pytest.mark.parametrize(
    ("point", "hit"),
    [
        *((point, 1) for point in FAILPOINTS["ingest"]),
        *((point, 2) for point in ("claimed", "parsed", "archived")),
        *((point, 3) for point in ("claimed", "parsed", "archived")),
        *((point, hit) for point in ("committed", "fsynced") for hit in range(2, 8)),
        ("quarantine_written", 2),
    ],
)
def test_an_exception_at_a_place_of_ingest_costs_nothing(
    landed, tmp_path, monkeypatch, armed, point, hit
):
    monkeypatch.setattr(Child, "call", parsed_here)
    home, expected = landed
    shutil.copytree(home, tmp_path / "ws")
    armed(f"{point}:raise:{hit}")
    with pytest.raises(FailpointReached):
        feedback(Workspace.open(tmp_path / "ws"), AT)
    armed("")
    result = _pass(tmp_path / "ws")
    alone = hit == 3 and point in ("claimed", "parsed")
    assert (result[0], result[2]) == (expected[0], expected[2])
    assert (result[1] != expected[1]) == alone


def test_a_full_disk_at_the_commit_is_one_sentence(landed, tmp_path, monkeypatch, armed):
    monkeypatch.setattr(Child, "call", parsed_here)
    home, expected = landed
    shutil.copytree(home, tmp_path / "ws")
    armed("committed:enospc:6")
    with pytest.raises(LakeError, match="no space left on device"):
        feedback(Workspace.open(tmp_path / "ws"), AT)
    armed("")
    assert _pass(tmp_path / "ws") == expected


class Scenes:
    """States of a sandbox for a seed, each made on first use."""

    def __init__(self, box: chaos.ChaosSandbox) -> None:
        self.box = box
        self._shops: dict[tuple[str, int], Shop] = {}
        self._ends: dict[tuple[str, int, str], Counter] = {}

    def go_to(self, name: str, seed: int) -> Shop:
        made = (name, seed)
        if made not in self._shops:
            self._shops[made] = getattr(self, f"_{name}")(seed)
            self.box.save(f"{name}-{seed}")
        self.box.restore(f"{name}-{seed}")
        return self._shops[made]

    def end(self, name: str, seed: int, work: str) -> Counter:
        """Return the end of an undisturbed run of the work from this shop."""
        if (name, seed, work) not in self._ends:
            tally = Tally(seed)
            self.go_to(name, seed)
            self._ends[name, seed, work] = self.box.faultless_end(tally, work)
            assert tally.sound, tally.text()
        return self._ends[name, seed, work]

    def _landed(self, seed: int) -> Shop:
        self.box.restore("started")
        shop = self.box.shop(seed)
        shop.batch(self.box.home)
        return shop

    def _taken(self, seed: int) -> Shop:
        shop = self.go_to("landed", seed)
        tally = Tally(seed)
        chaos.run_without_faults(self.box, tally, "feedback")
        assert tally.sound, tally.text()
        return shop

    def _judged(self, seed: int) -> Shop:
        shop = self.go_to("taken", seed)
        assert kill(self.box, Tally(seed), "nightly", "evaluated", 1).killed
        return shop

    def _mirrored(self, seed: int) -> Shop:
        """Before its end, files are ingested that the night did not read."""
        shop = deepcopy(self.go_to("judged", seed))
        assert kill(self.box, Tally(seed), "nightly", "tagged", 1).killed
        shop.batch(self.box.home)
        tally = Tally(seed)
        chaos.run_without_faults(self.box, tally, "feedback")
        assert tally.sound, tally.text()
        return shop

    def _due(self, seed: int) -> Shop:
        """A night is half done, another one was given up, and all files but its are old.

        Upkeep was there before it, and files were taken in since.
        """
        shop = self.go_to("landed", seed)
        tally = Tally(seed)
        for work in ("gc", "feedback"):
            chaos.run_without_faults(self.box, tally, work)
        assert tally.sound, tally.text()
        assert kill(self.box, tally, "nightly", "evaluated", 1).killed
        runs = Workspace.open(self.box.home).runs
        *_, half = (run.folder for run in runs.starting_with(""))
        shutil.copytree(half, half.with_name("20240101T000000Z-given0up"))
        old = (NIGHT - timedelta(days=40)).timestamp()
        for path in self.box.home.rglob("*"):
            os.utime(path, (old, old))
        os.utime(half / "snapshot" / "manifest.json", (NIGHT.timestamp(),) * 2)
        return shop


@pytest.fixture(scope="module")
def scenes():
    with sandbox() as box:
        yield Scenes(box)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("point", SCENARIOS)
def test_killed_there_and_started_again(scenes, point, seed):
    work, place = SCENARIOS[point]
    expected = scenes.end(place, seed, work)
    assert Counter(entry[0] for entry in expected)["publication"] == PUBLISHED[place]
    shop = scenes.go_to(place, seed)
    tally = Tally(seed)
    random = np.random.default_rng([seed, *point.encode()])
    with Reader(scenes.box.home) as reader:
        ended = kill(scenes.box, tally, work, point, draw_hit(point, random))
        assert ended.killed, f"{point} was never reached: {ended.words}"
        chaos.run_without_faults(scenes.box, tally, work)
    tally.add_reads(reader)
    tally.compare(shop.expected.entries(), lake_entries(scenes.box.home), "ingest")
    tally.compare(expected, published_entries(scenes.box.home), work)
    assert tally.reads > {"gc": 2}.get(work, 10)  # it takes a second
    assert tally.sound, tally.text()


@pytest.mark.slow
def test_a_night_that_was_half_done_ends_as_if_upkeep_had_never_been_killed(scenes):
    expected = scenes.end("due", 0, "nightly")
    scenes.go_to("due", 0)
    tally = Tally(0)
    assert kill(scenes.box, tally, "gc", "log_cleared", 4).killed
    chaos.run_without_faults(scenes.box, tally, "gc")
    left = Workspace.open(scenes.box.home).lake
    with pytest.raises(LakeError, match="version 0 cannot be read"):
        left.read("batches", version=0)
    chaos.run_without_faults(scenes.box, tally, "nightly")
    tally.compare(expected, published_entries(scenes.box.home), "nightly")
    assert tally.sound, tally.text()


@pytest.mark.slow
def test_a_seed_repeats_its_episodes(scenes):
    tallies = [Tally(seed=5) for _ in range(2)]
    for tally in tallies:
        chaos.episode(scenes.box, tally, kills=3)
        assert tally.sound, tally.text()
        assert tally.reads > 0
    assert tallies[0].places == tallies[1].places
    assert 1 <= tallies[0].kills <= 3


@pytest.mark.slow
def test_the_command_leaves_nothing_and_prints_one_object(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "chaos", "--kills", "1", "--seed", "3", "--json"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {name: printed[name] for name in ("kills", "lost", "duplicated", "mixed", "seed")} == {
        "kills": 1, "lost": 0, "duplicated": 0, "mixed": 0, "seed": 3,
    }  # fmt: skip
    assert "workspace and first nightly run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed_and_files_in_use_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos.tempfile, "tempdir", str(tmp_path))
    left, used, other = (tmp_path / f"nightjar-chaos-{name}" for name in ("left", "used", "other"))
    other.mkdir()
    with Lake(left).lock("chaos"):
        (left / "ws").mkdir()
    with Lake(used).lock("chaos"):
        chaos.remove_left_over()
        assert sorted(tmp_path.iterdir()) == [other, used]
    chaos.remove_left_over()
    assert list(tmp_path.iterdir()) == [other]


def test_the_sandbox_of_another_user_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(chaos.tempfile, "tempdir", str(tmp_path))
    left = tmp_path / "nightjar-chaos-left"
    with Lake(left).lock("chaos"):
        pass
    owner = os.geteuid()
    monkeypatch.setattr(chaos.os, "geteuid", lambda: owner + 1)
    left.chmod(0)  # an ordinary user cannot look into it, either
    chaos.remove_left_over()
    left.chmod(0o700)
    assert list(tmp_path.iterdir()) == [left]


def test_differences_are_counted_and_the_seed_is_printed():
    tally = Tally(seed=7)
    assert tally.sound
    tally.compare(
        Counter({("event", "a"): 2, ("event", "b"): 1}), Counter({("event", "b"): 3}), "x"
    )
    assert (tally.lost, tally.duplicated) == (2, 2)
    assert not tally.sound
    assert "--seed 7" in tally.text()
    assert "0 kills at 0 places, 0 or more at each: 2 lost, 2 duplicated, 0 mixed" in tally.text()


def test_the_expected_state_has_the_outcome_of_each_row(tmp_path):
    (tmp_path / "landing" / "events").mkdir(parents=True)
    shop = Shop(3)
    for _ in range(5):
        shop.batch(tmp_path)
    ends = np.array(list(shop.expected.batches.values()))
    assert (ends[:, 0] == ends[:, 1:].sum(axis=1)).all()
    assert (ends.sum(axis=0) > 0).all()
    entries = Counter(entry[0] for entry in shop.expected.entries().elements())
    assert entries["event"] == ends[:, 1].sum()
    assert entries["quarantined"] == ends[:, 2].sum()
    files = list((tmp_path / "landing" / "events").iterdir())
    assert len(files) >= len(ends)
    assert NIGHT.timestamp() > max(path.stat().st_mtime for path in files)
