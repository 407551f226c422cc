"""`nightjar COMMAND ... [--home DIR] [--json]`: one command per step, one sentence per error.

Here: the commands of daily use (`commands`), the single steps of a nightly run (`tasks`), and those
of the gate (`gate`), `monitoring`, `experiments` and `maintenance`; shared options and output
(`terminal`); the console script (`app`).
Not here: the work itself (`steps`); tables and pages (`report`).
One more command is a function with `@command(app)` that imports its step when it runs.
"""

from pipeline.cli.app import main

__all__ = ["main"]
