"""One workspace: its config, the clients of its stores, and typed views of its ledger and runs.

Here: paths, environment, the types of artefacts, and readers that several steps share.
Not here: decisions, and code that trains, evaluates or publishes (`steps`). New code comes here
when two folders of `steps` need it.
"""
