"""Airflow plugin that puts the values of the trigger form into the id of a manual run.

Airflow's list of runs shows the id first, and its own id of a manual run differs from others only
by the time. It is made before the form is read, so the id is changed when the run is created.

Guarantees: only the id that Airflow has made for its trigger form is changed; one that a user or a
client has chosen stays, and so does the id of a run without values.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from sqlalchemy import event

_MANUAL = "manual__"
_MAX_LENGTH = 150
"""The id is also the name of a folder, and Airflow's column has 250 characters."""


def describe(run_id: str, conf: Mapping[str, Any]) -> str:
    """Return the id of a manual run with what it was asked to do.

    Parameters
    ----------
    run_id
        Airflow's own id.
    conf
        Values of the trigger form.

    Returns
    -------
    ``manual__2017-12-29T09:00:00Z_als+blend__TIME``; values that the id has are not repeated.
    """
    values = ["+".join(map(str, v)) if isinstance(v, list) else v for v in conf.values()]
    # Airflow allows these characters, and single dots.
    texts = [re.sub("[^A-Za-z0-9_~:+-]+", "-", v) for v in values if isinstance(v, str) and v]
    new = "_".join(text for text in texts if text not in run_id)[:_MAX_LENGTH]
    return f"{_MANUAL}{new}__{run_id.removeprefix(_MANUAL)}" if new else run_id


def _on_new_run(run: Any, arguments: Any, values: dict[str, Any]) -> None:
    by, due = getattr(values.get("triggered_by"), "name", ""), values.get("run_after")
    # A client that has chosen an id, even one in Airflow's form, asks for the run by it.
    if by == "UI" and due is not None and values["run_id"] == f"{_MANUAL}{due.isoformat()}":
        values["run_id"] = describe(values["run_id"], values.get("conf") or {})


# Every process of Airflow imports plugins; those that create runs have imported the models before.
if (models := sys.modules.get("airflow.models.dagrun")) is not None:
    event.listen(models.DagRun, "init", _on_new_run)


class RunIdPlugin(AirflowPlugin):
    """Makes Airflow import this module."""

    name = "nightjar_run_id"
