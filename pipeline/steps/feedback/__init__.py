"""Work between nightly runs: fold-in, attribution of responses, drift, retrain policy.

Here: steps that read the lake as of an instant and write a patch or a measurement.
Not here: the arithmetic (`serving`, `monitoring`) and the nightly run (`nightly`). A new task is a
module with the task's name, and a task in `dags/feedback_ingest.py`.
"""
