"""Commands that a user starts: backtest, calibration, comparison, reproduction, tuning.

Here: one folder per command, with its own storage.
Not here: code that a scheduled run needs (`nightly`, `feedback`).
"""
