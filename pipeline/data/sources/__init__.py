"""Files of a configured format -> rows as text, with the line number of each row.

Here: `config`, sources and limits; `streams`, bounded and complete bytes; `delimited` (CSV),
`jsonl` and `columnar` (Parquet), which parse a stream into text columns; `mapping`, from the file's
columns to those of the lake; `read`, all of it in one call.
Not here: opening paths and starting processes (`steps.ingest`, `workspace.child_process`), parsing
and validating values (`ingest`).
To add one more format: a module with a parser that yields `Block`, and its suffix in `read`.
"""
