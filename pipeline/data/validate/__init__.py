"""Validation of events by named rules: per row at ingest, and per batch before a nightly run.

Here: `rules`, the table of rules; `suite`, the same rules as a Great Expectations suite; `judge`,
the checks of a nightly run; `volume`, `activity`, `returns` and `checks`, parts of these.
Not here: handling of bad rows (`data.ingest`), changes of values (`data.clean`).
To add one more rule: a line in `rules.declare`; polars and Great Expectations both use it.
"""
