"""Tasks and commands: a step reads artefacts, calls one stage and writes once.

Here: `nightly`, `ingest` and `feedback`, one function per task of a DAG (task id = function =
module = folder under `runs/<run_id>/` = CLI command, with hyphens); `diagnostics`, `reporting`,
`experiments` and `maintenance`; single commands (`demo`, `doctor`, `lists`).
Not here: column expressions, formulas, Airflow; the config, the clients of the stores and the types
of artefacts (`workspace`).
"""
