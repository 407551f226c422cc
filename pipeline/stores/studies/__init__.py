"""Searches for hyper-parameters that outlive their process: Optuna's studies, in one SQLite file.

Here: the file (`store`), one study in it (`study`), what a trial is (`trial`), the pictures and
figures made of a study (`files`). Not here: what is measured, and whether it is better (`steps`).

SQLite, not Optuna's journal: a kill in the middle of a write leaves the journal with half a line,
and the next line written behind it makes the file unreadable for good; its lock file outlives its
process, too. SQLite rolls back, and its locks are the kernel's.
"""
