"""The nightly run: one module per Airflow task, named like it, and `nightly`, their order.

Here: steps that open the run, read artefacts, call one stage, and write one folder once.
Not here: measurements that decide nothing (`diagnostics`) and the page (`reporting`). A new task
is a module with the task's name, an entry in `nightly`, and a task in `dags/nightly_retrain.py`.
"""
