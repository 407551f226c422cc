"""The served model from its files, without MLflow's server."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def served(folder: Path) -> Any:
    """Load the files of a model as MLflow does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow has an opinion about type hints
        from pipeline.stores.registry.pyfunc_model import Recommender
    model = Recommender()
    files = {path.name: str(path) for path in folder.iterdir()}
    model.load_context(SimpleNamespace(artifacts=files))  # type: ignore[arg-type]
    return model
