"""Storage, one library per store, each imported in one place.

Here: the Delta lake (`lake`), the files of a run (`runs`), the ledger (`ledger`), the vault of
pseudonyms (`vault`), MLflow (`registry`), ingested files (`batches`), Optuna's studies (`studies`),
locks (`locks`), forced writes and checksums (`disk`), and the removal of old files (`retention`,
`pruning`). A store uses one library, and handles bytes and checksums.
Not here: the meaning of a metric, a recipe or a list; the types of artefacts and ledger entries
(`workspace`).
One more store is one more module or folder; give it its own error ids, a lock if several processes
write it, and a row in `docs/STORES.md`.
"""
