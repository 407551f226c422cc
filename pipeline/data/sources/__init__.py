"""Files of any declared shape -> rows as text, with the line that each came from.

Here: `config`, what a source and its limits are; `streams`, bounded and whole bytes; `delimited`
(CSV), `jsonl` and `columnar` (Parquet), each turning blocks of a stream into text columns;
`mapping`, from a file's column names to ours; `read`, all of it in one call.
Not here: opening paths and processes (`steps.ingest`, `workspace.child_process`), giving
text a type or judging it (`ingest`).
"""
