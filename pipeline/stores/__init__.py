"""Storage, one library per store, each imported in one place.

Here: the Delta lake (`lake`), the files of a run (`runs`), the ledger (`ledger`), the vault of
pseudonyms (`vault`), MLflow (`registry`), files that were ingested (`batches`), Optuna's studies
(`studies`), locks (`locks`), and the age at which files are removed (`retention`, `pruning`). A
store knows one library, bytes and checksums.
Not here: the meaning of a metric, a recipe or a list; the types of artefacts and ledger entries
(`workspace`).
"""
