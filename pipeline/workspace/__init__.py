"""One workspace: its config, its stores' clients, and typed views of its ledger and runs.

Here: paths, environment, the types of artefacts, and readers that several steps share.
Not here: decisions, and anything that trains, evaluates or publishes (`steps`). Something new
comes here when two folders of `steps` need it.
"""
