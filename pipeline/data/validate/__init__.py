"""Judging events by named rules: row by row when they come in, as a batch before each night.

Here: `rules`, the one table that says what a good event is; `suite`, the same table as a suite of
Great Expectations; `judge`, the night's judgement of batch, volume, catalogue and schema.
Not here: what to do with a bad row (`data.ingest`), changing values (`data.clean`).
"""

from pipeline.data.validate.rules import JUDGED, Rule, declare, row_reasons

__all__ = ["JUDGED", "Rule", "declare", "row_reasons"]
