"""The console script: all commands, and the output of errors.

Guarantees: an expected failure prints one sentence and sets an exit code, without a traceback, and
without the output of a library that panicked. So does a stdout that cannot be written.
Commands import their steps when they run, so ``--help`` does not wait for them.
"""

from __future__ import annotations

import os
import sys

import typer

from pipeline.cli import commands, experiments, gate, maintenance, monitoring, tasks
from pipeline.cli.terminal import configure_logging, fail, flush_stdout

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
    from pipeline.stores.disk import expected_failure
    from pipeline.workspace.child_process import keep_private
    from pipeline.workspace.library_output import HiddenOutput, open_closed_descriptors

    open_closed_descriptors()
    keep_private()
    # Until the process ends: threads of a library may panic even after the failure is printed.
    output = HiddenOutput()
    # Before a library loads OpenMP: by default its threads spin while they wait, on cores that
    # other processes could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped; run the same command again to continue", 130)
    except SystemExit:
        raise
    except BaseException as error:  # a panic of a Rust library is not an `Exception`
        flush_stdout()
        if (failure := expected_failure(error)) is not None:
            fail(failure.sentence, failure.exit_code)
        # A usage error: Typer raises a class of its own that it does not export.
        if hasattr(error, "format_message"):
            fail(error.format_message(), 2)
        output.show()
        raise
    flush_stdout()
    sys.exit(code if isinstance(code, int) else 0)
