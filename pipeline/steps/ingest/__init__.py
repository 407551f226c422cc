"""Files on disk -> rows in the lake or in quarantine, each file exactly once.

Here: discovery, the bounded reading of one file, the commit of its rows, archive and reject.
Not here: the rules for rows (`data.ingest`), the tables (`stores.lake`), the protocol of a commit
(`stores.batches`). A new table is a branch in `bundle` and an entry in `discovery.TABLES`.
"""
