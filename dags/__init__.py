"""Airflow's side of Nightjar: wiring, dates and words for people; the work is in `pipeline.steps`.

Here: one file a DAG (`nightly_retrain`, `feedback_ingest`); `common`, what they share and the only
code that knows Airflow's dates; `verdict` and `webhook`, how a night ends and who hears of it;
`environment`, the settings of a single-machine Airflow; `demo`, the runner of `make run`; `ui`,
the servers of `make ui`; `document`, which writes docs/DAGS.md.
Not here: anything that a night does. A DAG file imports Airflow and these modules when it is
parsed, and `pipeline` only inside a task's body, so that parsing stays fast and cheap.
"""
