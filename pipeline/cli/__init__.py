"""`nightjar COMMAND ... [--home DIR] [--json]`: one command a step, one sentence an error.

Here: what can be typed (`commands`, and `tasks` for the steps of a night one by one), how it talks
to a person or a program (`terminal`), and the console script (`app`).
Not here: doing any of it (`steps`), how a table or a page looks (`report`).
"""

from pipeline.cli.app import main

__all__ = ["main"]
