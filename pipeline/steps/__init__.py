"""The only code that opens doors: a step reads, calls one stage, writes once.

Here: the workspace and the run, the composed config, and one function for each task of a DAG;
task id = function = CLI command = folder under `runs/<run_id>/`.
Not here: a column expression, a formula, Airflow.
"""
