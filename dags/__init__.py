"""Airflow's side of Nightjar: DAGs that call `pipeline`.

Here: one file per DAG, each with its tasks and their order; `common` (names of workspaces, pools
and assets; Airflow's dates); `settings` (the part of the config that is read at parse time);
`factory` (makes a DAG and its tasks for one workspace); `nightly_task` (makes the tasks of the
nightly run); `review` and `run_outcome` (the human review and the end of a nightly run); `problems`
(lines about errors), `alerts`, `late_night` and `webhook` (messages); `links` (from a run to its
results); `plugins` (loaded by Airflow's own processes: note and id of a run).

Not here: computations, which belong to `pipeline`; programs that run DAGs on one machine, which
belong to `dags.local`.

To add a DAG, write a file with a function that adds its tasks for an `AirflowWorkspace`, decorated
with `factory.nightjar_dag`, and name the file in `.airflowignore`: Airflow parses only the files
that are named there. Import `pipeline` only in the body of a task, so that Airflow parses the file
in a second.
"""
