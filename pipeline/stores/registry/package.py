"""The winner's files as an MLflow model: code, arrays, a signature and an example; no pickle.

Guarantees: the model is not run to infer its signature or requirements; nothing is downloaded; the
process-wide state of MLflow does not change.
"""

from __future__ import annotations

import json
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import columns as c
from pipeline.stores.registry.records import ModelRecord

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

_SERVED = Path(__file__).with_name("pyfunc_model.py")
META = "meta.json"
"""File of a model with its fallback list, which has the length of the published lists."""
_NEEDED = ("mlflow", "implicit", "numpy", "pandas", "polars", "pydantic", "scipy")


def save(folder: Path, model: ModelRecord, *, model_id: str, run_id: str) -> None:
    """Write a model as code and arrays.

    Parameters
    ----------
    folder
        A new folder; the code is also written beside it.
    model
        Files of the model.
    model_id, run_id
        MLflow's ids of the logged model and of its run.
    """
    import mlflow.pyfunc
    import pandas as pd  # type: ignore[import-untyped]
    from mlflow.models import Model

    # MLflow copies a file with its mode: that of the package is readable by all users.
    [meta] = (file for file in model.files if file.name == META)
    k = len(json.loads(meta.read_bytes())["fallback"])
    served = folder.with_name(_SERVED.name)
    served.write_bytes(_SERVED.read_bytes())
    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(served),
        artifacts={file.name: str(file) for file in model.files},
        signature=_signature(k),
        # A pseudonym in the example would stay after its user was deleted.
        input_example=(pd.DataFrame({c.USER_ID: [c.FALLBACK_USER]}), {"k": k}),
        # Nightjar is not in a package index: its name here could install a foreign package.
        pip_requirements=[f"{name}=={installed(name)}" for name in _NEEDED],
        mlflow_model=Model(run_id=run_id, model_id=model_id, model_uuid=model_id),
    )


def _signature(k: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", c.USER_ID)]),
        outputs=Schema(
            [
                ColSpec("string", c.USER_ID),
                ColSpec("integer", c.POSITION),
                ColSpec("string", c.ITEM_ID),
                ColSpec("float", c.SCORE),
                ColSpec("string", c.SLOT),
                ColSpec("boolean", c.KNOWN),
            ]
        ),
        params=ParamSchema([ParamSpec("k", "long", k)]),
    )
