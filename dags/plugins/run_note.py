"""Airflow plugin that writes the outcome of a run into its note, which the list of runs shows.

A task cannot write the note: it has no access to Airflow's database. It leaves its text in XCom
(`dags.common.NOTE`), and the scheduler copies it at the end of the run; `dags.local.runner` calls
`copy_note` itself.

Guarantees: a note that a user has written stays, as does that of a run whose tasks left no text.
"""

from __future__ import annotations

import sys
from typing import Any

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from dags.common import NOTE

MAX_LENGTH = 1000
"""Airflow's column of the note."""


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Copy the text of a green run."""
    copy_note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Copy the text of a red run."""
    copy_note(dag_run)


def copy_note(dag_run: Any) -> None:
    """Copy the texts that the tasks of a run left to its note."""
    # In the body: every process of Airflow imports plugins, and few of them use the models.
    from airflow.models.xcom import XComModel
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None:  # in `DAG.test`
        return
    written = dag_run.dag_run_note
    if written is not None and written.user_id is not None:
        return
    rows = XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_run.dag_id, key=NOTE)
    failed = {ti.task_id for ti in dag_run.task_instances if ti.state == "failed"}
    # The interface shows the first line only, which is the reason of a red run.
    ordered = sorted(
        session.scalars(rows), key=lambda row: (row.task_id not in failed, row.timestamp)
    )
    texts = [XComModel.deserialize_value(row) for row in ordered]
    if texts:
        dag_run.note = "\n".join(texts)[:MAX_LENGTH]


class RunNotePlugin(AirflowPlugin):
    """Makes the two functions known to Airflow."""

    name = "nightjar_run_note"
    listeners = (sys.modules[__name__],)
