"""Commands that a person starts: backtest, calibration, comparison, reproduction, tuning.

Here: one folder per command, with its own storage.
Not here: anything that a scheduled run needs (`nightly`, `feedback`).
"""
