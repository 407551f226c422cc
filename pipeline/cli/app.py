"""The console script: all commands, and the output of errors.

Guarantees: an expected failure prints one sentence and sets an exit code, without a traceback.
Commands import their steps when they run, so ``--help`` does not wait for them.
"""

from __future__ import annotations

import os
import sys

import typer

from pipeline.cli import commands, experiments, gate, maintenance, monitoring, tasks
from pipeline.cli.terminal import configure_logging, fail

app = typer.Typer(
    name="nightjar",
    help="Retrain a recommender every night, test that it is better, and publish its lists.",
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
    """Run the command line and exit."""
    from pipeline.errors import NightjarError
    from pipeline.workspace.child_process import keep_private

    keep_private()
    # Before a library loads OpenMP: by default its threads spin while they wait, on cores that
    # other processes could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except NightjarError as error:
        fail(error.sentence, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped; run the same command again to continue", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        # A usage error: Typer raises a class of its own that it does not export.
        fail(error.format_message(), 2)
    sys.exit(code if isinstance(code, int) else 0)
