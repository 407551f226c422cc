"""Nightjar's map: the folders stand in the order in which the data travels.

data        raw rows -> one training window
models      matrix -> scorer
evaluation  scorer and holdout -> decision
serving     champion -> what people see
monitoring  what came back -> retrain or not
stores      the doors: lake, runs, registry, vault, ledger
report      frozen results -> figures, page, JSON
steps       the only code that opens doors: read, call one stage, write once
cli         one command a step; an error is one sentence and an exit code
"""
