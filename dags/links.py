"""Links of a nightly run to its page, its run in MLflow and its model version.

Guarantees: a link that the run does not have is not shown; the addresses are those that a browser
on the user's machine opens, not those that the tasks use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from pipeline.workspace.workspace import Workspace

ADDRESSES = "links"
"""XCom key of the addresses by name of the link."""
MLFLOW_VARIABLE = "NIGHTJAR_MLFLOW_URL"
"""Environment variable with the address of MLflow's pages, where tasks use another one."""
_LOCAL_PORT = "MLFLOW_PORT"
"""Environment variable with the port of the MLflow that `make ui` serves."""

_TRAINING = "workflowType=machine_learning"
"""Without it MLflow shows its pages for chats."""


class AddressLink(BaseOperatorLink):
    """Button on the page of a task.

    Parameters
    ----------
    name
        Its text, and the key of the address in `ADDRESSES`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """Text of the button."""
        return self._name

    @property
    def xcom_key(self) -> str:
        """XCom key under which Airflow keeps the address of this task."""
        return f"_link_{self._name.replace(' ', '_')}"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address that the task left; Airflow calls it at the end of the task."""
        addresses = ti_key.xcom_pull(task_ids=ti_key.task_id, key=ADDRESSES) or {}
        return str(addresses.get(self._name, ""))


PAGE, MLFLOW_RUN, VERSION = "night page", "MLflow run", "model version"
LINKS = tuple(map(AddressLink, (PAGE, MLFLOW_RUN, VERSION)))


def addresses(ws: Workspace, page: str, version: int | None) -> dict[str, str]:
    """Return the addresses of a registered run by the name of their link.

    Parameters
    ----------
    ws
        Workspace.
    page
        Page of the run in MLflow, relative to the server.
    version
        Number of the model version, if the run has one.
    """
    configured = ws.config.registry.tracking_uri or ""
    local = f"http://127.0.0.1:{os.environ.get(_LOCAL_PORT, '5000')}"
    served = configured if configured.startswith("http") else local
    root = (os.environ.get(MLFLOW_VARIABLE) or served).rstrip("/")
    pages = {PAGE: f"{page}/artifacts/page.html", MLFLOW_RUN: page}
    if version is not None:
        pages[VERSION] = f"#/models/{ws.config.registry.model_name}/versions/{version}"
    return {name: f"{root}/{place}?{_TRAINING}" for name, place in pages.items()}
