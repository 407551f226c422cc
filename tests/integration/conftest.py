from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.gate import Decided
from pipeline.steps.nightly.nightly import NightResult, nightly
from pipeline.stores.registry.connection import create
from pipeline.workspace.workspace import Workspace
from tests.deciding import decide
from tests.worlds import CONFIG, NIGHTS, catalogue, copy_of, land, purchases


class Make(Protocol):
    """Makes a workspace with MLflow's tables."""

    def __call__(self, home: Path, config: str, group: str | None = None) -> Workspace: ...


OneNight = tuple[Path, NightResult]
TwoNights = tuple[Path, NightResult, NightResult]
Once = Callable[[str, Callable[[Path], Any]], tuple[Path, Any]]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a workspace once for all workers of pytest-xdist, and give each a copy of its own.

    Takes a name and a function that makes the workspace at a path and returns further values for
    tests; returns the path of the copy, and these values. No worker ever opens the original:
    another one may copy it at any time.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make_once(name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
        original, made = shared / f"{name}-original", shared / f"{name}.pickle"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(original, ignore_errors=True)  # of a worker that died half-way
                unfinished = made.with_suffix(".new")
                unfinished.write_bytes(pickle.dumps(make(original)))
                unfinished.replace(made)
        copy = copy_of(original, tmp_path_factory.mktemp(name) / "home")
        return copy, pickle.loads(made.read_bytes())

    return make_once


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to make."""
    file = tmp_path_factory.mktemp("tables") / "mlflow.db"
    create(f"sqlite:///{file}", file)
    return file


@pytest.fixture(scope="session")
def workspace(tables: Path) -> Make:
    """Make a workspace in a folder with a config, MLflow's tables in it.

    The tables are made once and copied. That a night makes them where they are missing is seen in
    test_cli, how it does in test_registry.
    """

    def make(home: Path, config: str, group: str | None = None) -> Workspace:
        ws = Workspace.init(home, config, group)
        target = ws.home / "mlflow" / tables.name
        target.parent.mkdir()
        shutil.copyfile(tables, target)
        assert ws.tracking_uri == f"sqlite:///{target}"
        return ws

    return make


@pytest.fixture(scope="session")
def one_night(once: Once, workspace: Make) -> OneNight:
    """A workspace after its first night; a test that changes it takes a copy."""

    def make(home: Path) -> NightResult:
        ws = workspace(home, CONFIG)
        catalogue(home)
        land(home, purchases(), NIGHTS[0])
        assert feedback(ws, NIGHTS[0]).accepted > 5000
        return nightly(ws, NIGHTS[0])

    return once("one-night", make)


@pytest.fixture(scope="session")
def two_nights(once: Once, one_night: OneNight) -> TwoNights:
    """The same one, two weeks and a night later."""

    def make(home: Path) -> NightResult:
        ws = Workspace.open(copy_of(one_night[0], home))
        land(home, purchases(), NIGHTS[1], NIGHTS[0])
        feedback(ws, NIGHTS[1])
        return nightly(ws, NIGHTS[1])

    home, second = once("two-nights", make)
    return home, one_night[1], second


@pytest.fixture(scope="session")
def third_landed(once: Once, two_nights: TwoNights) -> Path:
    """Another two weeks later: the events of the third night are in the lake."""

    def make(home: Path) -> None:
        ws = Workspace.open(copy_of(two_nights[0], home))
        land(home, purchases(), NIGHTS[2], NIGHTS[1])
        feedback(ws, NIGHTS[2])

    return once("third-landed", make)[0]


@pytest.fixture(scope="session")
def third_decided(once: Once, third_landed: Path) -> tuple[Path, str, Decided]:
    """The run of the third night, and its decision."""

    def make(home: Path) -> tuple[str, Decided]:
        return decide(Workspace.open(copy_of(third_landed, home)), NIGHTS[2])

    home, (run_id, decided) = once("third-decided", make)
    return home, run_id, decided
