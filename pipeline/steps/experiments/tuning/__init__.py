"""Searches hyperparameters within a budget, on windows that end before any holdout.

Here: the command (`tune`), the trials (`search`), a study and its storage (`study`), and the result
as text (`report`).
Not here: search spaces (`models.search`), the windows (`evaluation.earlier_windows`), the database
of studies (`stores.studies`), and pages (`pipeline.report`).
"""
