"""Replays past days in sandboxes, once for each retrain schedule, and compares the schedules.

Here: the loop over days (`backtest`), the copy of a workspace that it runs in (`sandbox`), and the
figures of a day (`days`).
Not here: the nightly run that it replays (`nightly`), planted changes (`data.synthetic_shift`), and
the page (`report.backtest`).
"""
