"""After a power cut, the same commands end as if it had not happened.

The workspace lies on ext4 on a loop device, mounted so that only what was fsynced survives (a
journal that is written every 300 s, and no order between data and journal). A process ingests
files, runs a night, and makes a feedback pass. At six calls of fsync, drawn at random, and once
after MLflow has created the version, it is stopped and the device is copied: the copy is the disk
after a power cut at that moment. On each copy the same commands run again.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import columns as c
from pipeline import failpoints
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.disk import sync
from pipeline.stores.registry.connection import create
from pipeline.testing.chaos.fork_server import _WARM
from pipeline.testing.chaos.synthetic_shop import CONFIG, FIRST_NIGHT, NIGHT, Shop
from pipeline.workspace.ledger import entries_of
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace

ROOT = Path(__file__).parents[2]
OPTIONS = "commit=300,data=writeback,noauto_da_alloc"
BYTES = 400 << 20
CUTS = 6
SEED = int(os.environ.get("POWER_CUT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Mount an image; yields the folder of the workspace on it."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,{OPTIONS}", image, place)
    try:
        yield place / "home"
    finally:
        run("umount", place)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A device with a workspace whose files have landed; all of it is on the disk."""
    folder = tmp_path_factory.mktemp("power")
    image = folder / "start.img"
    with image.open("wb") as file:
        file.truncate(BYTES)
    run("mkfs.ext4", "-q", image)
    tables = folder / "mlflow.db"
    create(f"sqlite:///{tables}", tables)  # takes seconds
    try:
        with mounted(image, folder / "disk"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no ext4 on a loop device can be mounted here: {error}")
    with mounted(image, folder / "disk") as home:
        ws = Workspace.init(home, CONFIG)
        ws.mlflow_database.parent.mkdir()
        shutil.copy(tables, ws.mlflow_database)
        shop = Shop(0)
        shop.first(ws.home)
        ready = {path.name for path in (home / "landing/events").iterdir()}
        shop.batch(ws.home)
        (home.parent / "week").mkdir()
        for path in (home / "landing/events").iterdir():
            if path.name not in ready:
                path.rename(home.parent / "week" / path.name)
    return image


class Server:
    """A process that has imported the libraries and forks a child for each workspace."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.test_power_cut"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def close(self) -> None:
        with self._process as process:
            process.kill()

    def stops(self, home: Path, result: Path, cuts: Sequence[int] = ()) -> Iterator[int]:
        """Work on a workspace; yields each time the child has stopped itself, then continues it."""
        self._send(json.dumps([str(home), str(result), list(cuts)]))
        count = 0
        while (answer := self._receive()) == "stopped":
            yield count
            count += 1
            self._send("continue")
        assert answer == "0", result.with_suffix(".log").read_text()[-3000:]

    def outcome(self, home: Path, result: Path) -> dict[str, Any]:
        """Work without a cut, and return the state of the workspace."""
        assert list(self.stops(home, result)) == []
        state: dict[str, Any] = json.loads(result.read_text())
        return state

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _receive(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def serve() -> None:
    """Answer the requests of `Server` until its process ends."""
    for name in _WARM:
        import_module(name)
    for line in sys.stdin:
        home, result, cuts = json.loads(line)
        child = os.fork()
        if child == 0:
            with Path(result).with_suffix(".log").open("w") as log:
                os.dup2(log.fileno(), 2)
                try:
                    main(Path(home), Path(result), set(cuts))
                except BaseException:
                    traceback.print_exc()
                    log.flush()
                    os._exit(1)
                os._exit(0)
        while True:
            _, status = os.waitpid(child, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                break
            print("stopped", flush=True)
            sys.stdin.readline()
            os.kill(child, signal.SIGCONT)
        print(os.waitstatus_to_exitcode(status), flush=True)


def work(home: Path) -> None:
    """Ingest, make a night, deliver the files of the next week, and make a pass."""
    ws, week = Workspace.open(home), home.parent / "week"
    if week.exists():
        feedback(ws, FIRST_NIGHT)
        nightly(ws, FIRST_NIGHT)
        week.rename(home / "landing/events/week")
        sync(home.parent, home / "landing/events")
    feedback(ws, NIGHT)


def outcome(home: Path) -> dict[str, Any]:
    """State that must be equal: rows by raw ids, files, publications, ledger, lists, versions."""
    ws = Workspace.open(home)
    events = ws.lake.read("events").drop(c.EVENT_ID)
    raw = ws.vault.reveal(events[c.USER_ID].unique().to_list())
    rows = events.with_columns(events[c.USER_ID].replace_strict(raw)).rows()
    batches = ws.lake.read("batches")
    done = batches.filter(batches[c.STATUS] == c.BatchStatus.DONE).drop(
        c.SEQ, c.VAULT_ID, c.VAULT_USERS
    )
    publications = ws.lake.read("publications").sort(c.GENERATION)
    shown = lists(ws, None).select(c.USER_ID, c.POSITION, c.ITEM_ID, c.SLOT)
    client = registry(ws)
    return {
        "events": sorted(map(str, rows)),
        "quarantine": sorted(map(str, ws.lake.read("quarantine").rows())),
        "batches": sorted(map(str, done.rows())),
        "publications": list(
            map(str, publications.select(c.GENERATION, c.RECIPE, c.AS_OF, c.MODEL_VERSION).rows())
        ),
        "ledger": [entry.type for entry in entries_of(ws.ledger)],
        # Without scores: pseudonyms are random, and so are the order of users and the last digits.
        "lists": sorted(map(str, shown.rows())),
        "versions": sorted(client.versions()),
        "aliases": client.aliases(),
        "files": sorted(path.name for path in (home / "archive").iterdir()),
    }


def main(home: Path, result: Path, cuts: set[int]) -> None:
    """Work, and stop after some calls of fsync; write the number of calls and the state."""
    real, calls = os.fsync, 0

    def stop(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def fsync(handle: int) -> None:
        nonlocal calls
        real(handle)
        calls += 1
        if calls in cuts:
            stop()

    os.fsync = fsync
    if cuts:
        os.environ[failpoints.VARIABLE] = "version_created:sleep"
        failpoints.time = SimpleNamespace(sleep=stop)
    work(home)
    result.write_text(json.dumps({"calls": calls, **outcome(home)}))


@pytest.fixture
def servers():
    pair = Server(), Server()
    yield pair
    for server in pair:
        server.close()


@pytest.mark.root
@pytest.mark.timeout(600)
def test_a_power_cut_at_any_moment_changes_nothing(image, tmp_path, servers):
    shutil.copy(image, tmp_path / "undisturbed.img")
    with mounted(tmp_path / "undisturbed.img", tmp_path / "disk") as home:
        undisturbed = servers[0].outcome(home, tmp_path / "undisturbed.json")
    calls = undisturbed.pop("calls")
    assert undisturbed["versions"] == [1]
    assert "patch" in undisturbed["ledger"]
    chosen = sorted(random.Random(SEED).sample(range(1, calls), CUTS))
    print(f"POWER_CUT_SEED={SEED}: cuts after calls {chosen} of {calls} of fsync")
    running = tmp_path / "undisturbed.img"
    shutil.copy(image, running)
    with mounted(running, tmp_path / "disk") as home:
        for number in servers[0].stops(home, tmp_path / "running.json", chosen):
            run("cp", "--sparse=always", running, tmp_path / f"{number}.img")
    images = sorted(tmp_path.glob("[0-9].img"))
    assert len(images) == CUTS + 1

    def rerun(half: int) -> dict[str, dict[str, Any]]:
        states = {}
        for path in images[half :: len(servers)]:
            with mounted(path, tmp_path / f"disk-{half}") as home:
                states[path.name] = servers[half].outcome(home, path.with_suffix(".json"))
            path.unlink()
        return states

    with ThreadPoolExecutor(len(servers)) as pool:
        states = {name: s for part in pool.map(rerun, (0, 1)) for name, s in part.items()}
    assert len(states) == CUTS + 1
    for name, state in sorted(states.items()):
        del state["calls"]
        assert state == undisturbed, name


if __name__ == "__main__":
    serve()
