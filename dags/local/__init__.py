"""Programs that run the DAGs on one machine, and the settings of its Airflow.

Here: `environment` (Airflow's settings and database; Docker uses it too), `runner` (runs DAGs in
one process), `activity` (its lines in the terminal), `demo` (`make run`), `ui` (`make ui`), `login`
with `login_airflow` and `login_mlflow` (the login of its two servers; `plugins` makes it known to
both), `document` (writes docs/DAGS.md).

Not here: DAGs and their tasks, which belong to `dags`; Airflow ignores this folder when it looks
for DAGs.

To add a program, write a module with `main(arguments)` that returns the exit code, and start it
as `python -m dags.local.NAME`. Call `environment.apply` before anything imports Airflow.
"""
