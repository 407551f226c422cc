"""All folders of Nightjar, stages first, in the order in which they process the data.

data        raw rows -> one training window
models      matrix -> scorer
evaluation  scorer and holdout -> decision
serving     champion -> what users see
monitoring  responses -> retrain decision
stores      one library each: lake, runs, ledger, registry, vault, batches, studies
report      frozen results -> figures, page, tables
workspace   one workspace: its config, its stores' clients, typed views of its ledger and runs
steps       tasks and commands: read artefacts, call one stage, write once
testing     fault injection and the checks that follow it
cli         one command a step; an error is one sentence and an exit code

Shared by all: `columns` (names and dtypes of tables), `errors`, `base` (config base, instants) and
`failpoints`.
"""
