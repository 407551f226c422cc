"""Hyperparameter searches that continue after a restart: Optuna's studies, in one SQLite file.

Here: the file (`store`), one study (`study`), trials as plain data (`trial`), the result files of a
study (`files`).
Not here: the measured value of a trial, and the decision on it (`steps`).

SQLite instead of Optuna's journal: a crash during a write leaves a partial line in the journal, and
the next line makes the file unreadable; its lock file also stays after its process has ended.
SQLite rolls back, and the kernel frees its locks.
"""
