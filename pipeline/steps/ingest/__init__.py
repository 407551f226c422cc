"""Files on disk to rows in the lake or in quarantine, each file exactly once.

Here: discovery, the bounded reading of one file, the commit of what it holds, archive and reject.
Not here: the rules for rows (`data.ingest`) and the tables (`stores.lake`).
"""
