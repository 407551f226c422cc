"""Removal of old data: lake versions, files of runs, landed files; MLflow filled again.

Here: the lake versions and files of runs that are still needed, and the removal of the others; the
copy of all runs and studies to MLflow.
Not here: the removal inside a store (`stores`).
One more kind of data is one more method of `gc._Maintenance`, with its retention time in
`stores.retention`.
"""
