"""Maintenance of stores: removal of old data, repairs of damaged stores, MLflow filled again.

Here: the lake versions and files of runs that are still needed, and the removal of the others; what
is restored from other stores (`repair_lake`, `repair_batches`, `repair_ledger`); the copy of all
runs and studies to MLflow (`register_all`).
Not here: the removal and the restoration inside a store (`stores`).
One more kind of old data is one more method of `gc._Maintenance`, with its retention time in
`stores.retention`; one more repair is a command and lines in `docs/RECOVERY.md`.
"""
