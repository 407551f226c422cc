"""All folders of Nightjar, stages first, in the order in which they process the data.

data        raw rows -> training window
models      matrix -> scorer
evaluation  scorer and holdout -> decision
serving     champion -> recommendation lists
monitoring  responses -> retrain decision
stores      one library each: lake, runs, ledger, registry, vault, batches, studies
report      artefacts -> figures, page, tables
workspace   one workspace: config, store clients, typed views of the ledger and the runs
steps       tasks and commands: read artefacts, call one stage, write once
testing     fault injection and its checks
cli         one command per step; an error is one sentence and an exit code

Shared by all: `columns` (names and dtypes of tables), `errors`, `base` (config base, instants) and
`failpoints`.
"""
