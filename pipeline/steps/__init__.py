"""Tasks and commands: a step reads artefacts, calls one stage, writes once.

Here: `nightly`, `ingest` and `feedback`, one function for each task of a DAG (task id = function =
module = folder under `runs/<run_id>/` = CLI command, with hyphens); `diagnostics`, `reporting`,
`experiments` and `maintenance`; single commands (`demo`, `doctor`, `lists`).
Not here: a column expression, a formula, Airflow; the config, the stores' clients and the types of
artefacts (`workspace`).
"""
