"""`nightjar COMMAND ... [--home DIR] [--json]`: one command a step, one sentence an error.

Here: the commands (`commands`; `tasks` for the steps of a nightly run one by one; `monitoring`,
`gate`, `override`, `experiments` and `maintenance` for theirs), the output for a user or a program
(`terminal`), and the console script (`app`).
Not here: doing any of it (`steps`), how a table or a page looks (`report`).
"""

from pipeline.cli.app import main

__all__ = ["main"]
