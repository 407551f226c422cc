"""Judging events by named rules: row by row when they come in, as a batch before each night.

Here: `rules`, the one table that says what a good event is; `suite`, the same table as a suite of
Great Expectations; `judge`, the night's judgement; `volume` and `checks`, its parts.
Not here: what to do with a bad row (`data.ingest`), changing values (`data.clean`).
"""
