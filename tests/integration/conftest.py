from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.nightly.nightly import NightResult, nightly
from pipeline.stores.registry.connection import create
from pipeline.workspace.workspace import Workspace
from tests.worlds import CONFIG, NIGHTS, catalogue, copy_of, land, purchases

Make = Callable[[Path, str], Workspace]
OneNight = tuple[Path, NightResult]
TwoNights = tuple[Path, NightResult, NightResult]


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a workspace in a folder with a config, MLflow's tables in it.

    MLflow takes seconds to make its tables, so they are made once and copied. That a night makes
    them where they are missing is seen in test_cli, how it does in test_registry.
    """
    tables = tmp_path_factory.mktemp("tables") / "mlflow.db"
    create(f"sqlite:///{tables}", tables)

    def make(home: Path, config: str) -> Workspace:
        ws = Workspace.init(home, config)
        target = ws.home / "mlflow" / tables.name
        target.parent.mkdir()
        shutil.copy(tables, target)
        assert ws.tracking_uri == f"sqlite:///{target}"
        return ws

    return make


@pytest.fixture(scope="session")
def one_night(tmp_path_factory: pytest.TempPathFactory, workspace: Make) -> OneNight:
    """A workspace after its first night; it is copied by those who change it."""
    home = tmp_path_factory.mktemp("one-night") / "home"
    ws = workspace(home, CONFIG)
    catalogue(home)
    land(home, purchases(), NIGHTS[0])
    assert feedback(ws, NIGHTS[0]).accepted > 5000
    return home, nightly(ws, NIGHTS[0])


@pytest.fixture(scope="session")
def two_nights(tmp_path_factory: pytest.TempPathFactory, one_night: OneNight) -> TwoNights:
    """The same one, two weeks and a night later."""
    home = copy_of(one_night[0], tmp_path_factory.mktemp("two-nights") / "home")
    ws = Workspace.open(home)
    land(home, purchases(), NIGHTS[1], NIGHTS[0])
    feedback(ws, NIGHTS[1])
    return home, one_night[1], nightly(ws, NIGHTS[1])
