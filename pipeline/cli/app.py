"""The console script: every command in one place, and what becomes of an error.

Promises: an expected failure is one sentence and an exit code, never a traceback. Heavy imports
wait until a command runs, so ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys

import typer

from pipeline.cli import commands, experiments, gate, maintenance, monitoring, tasks
from pipeline.cli.terminal import configure_logging, fail

app = typer.Typer(
    name="nightjar",
    help="Retrain a recommender every night, prove that it is better, publish its lists.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(commands.app)
app.add_typer(experiments.app)
app.add_typer(tasks.app)
app.add_typer(monitoring.app)
app.add_typer(gate.app, name="gate")
app.add_typer(maintenance.app)
app.add_typer(commands.config_app, name="config")


app.callback()(configure_logging)


def main() -> None:
    """Run the command line; the console script."""
    from pipeline.errors import NightjarError

    # Before any library brings OpenMP in: its threads spin while they wait, on cores that others
    # on the machine could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except NightjarError as error:
        fail(error.sentence, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped; run the same command again to go on", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        fail(error.format_message(), 2)  # a usage error, whose class typer keeps to itself
    sys.exit(code if isinstance(code, int) else 0)
