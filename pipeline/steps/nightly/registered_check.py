"""Check that the registered model returns the lists of the refit, before anything is published.

Guarantees: a fresh process loads the version through the registry, as a server would, and its lists
of the canaries are compared with those of the training item by item.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from pipeline.data.matrix import History
from pipeline.errors import GateError
from pipeline.stores.registry.loaded import registered_lists
from pipeline.workspace.artifacts import REFIT
from pipeline.workspace.child_process import run_child
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import read_scorer
from pipeline.workspace.workspace import Workspace

_SERVER = ("MLFLOW_TRACKING_", "REQUESTS_CA_BUNDLE", "AWS_", "AZURE_", "GOOGLE_")
"""Beginnings of the variables with the login of a server and of its artifact store."""


def check_registered(night: Night, version: int) -> None:
    """Compare the lists of a registered version with those of the refit.

    Parameters
    ----------
    night
        Run whose refit the version is.
    version
        Number in MLflow.

    Raises
    ------
    GateError
        `register.lists_differ`: a list of the canaries differs.
    """
    login = {name: text for name, text in os.environ.items() if name.startswith(_SERVER)}
    arguments = [str(night.ws.home), night.run_id, str(version)]
    response = run_child("pipeline.steps.nightly.registered_check", arguments, also=login)
    # MLflow may print above it.
    users, differ = json.loads(response.splitlines()[-1])
    if differ:
        raise GateError(
            "register.lists_differ",
            f"version {version} of {night.ws.config.registry.model_name}, loaded from MLflow, "
            f"returns other lists than the refit of run {night.run_id} for {differ:,} of {users:,} "
            "users; nothing was published: compare the files of the version with "
            f"{night.run.folder}/{REFIT}, then run `nightjar nightly` with a later as-of",
        )


def _compare(night: Night, version: int) -> tuple[int, int]:
    """Return the number of canaries, and of those whose lists differ."""
    run, ws = night.run, night.ws
    canaries, items = run.arrays(REFIT, "canaries"), read_scorer(run, REFIT).item_ids
    users = History.from_arrays(run.arrays(REFIT, "history")).user_ids[canaries["rows"]].tolist()
    lists = registered_lists(ws.tracking_uri, ws.config.registry.model_name, version, users)
    ends, item, score = (canaries[name] for name in ("indptr", "item", "score"))
    differ = 0
    for user, begin, end in zip(users, ends[:-1], ends[1:], strict=True):
        rows = lists.get(user, [])
        same = [name for name, _ in rows] == items[item[begin:end]].tolist()
        # Items must be equal, scores up to rounding: the served ones are float32.
        differ += not (same and np.allclose([x for _, x in rows], score[begin:end], rtol=1e-5))
    return len(users), differ


if __name__ == "__main__":
    workspace = Workspace.open(Path(sys.argv[1]))
    night = Night.read(workspace, workspace.run(sys.argv[2]))
    sys.stdout.write(json.dumps(_compare(night, int(sys.argv[3]))))
