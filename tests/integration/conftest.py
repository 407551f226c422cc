from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.steps.run import Workspace
from pipeline.stores.registry.door import create

Make = Callable[[Path, str], Workspace]


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
