"""The console script: all commands by groups, and the output of errors.

Guarantees: an expected failure prints one sentence and sets an exit code, without a traceback, and
without the output of a library that panicked. So does a stdout that cannot be written.
A reader of stdout that has ended, such as `head`, does not count as an error. Commands import their
steps when they run, and modules that this one needs import libraries for one function there, so
``--help`` does not wait for them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from pipeline.cli import commands, experiments, gate, maintenance, monitoring, tasks
from pipeline.cli.terminal import configure_logging, drop_stdout, epilog, fail, flush_stdout

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Start": ("init", "doctor", "config", "demo"),
    "Daily use": ("ingest", "quarantine", "feedback", "nightly", "lists", "id", "history"),
    "Compare and improve": ("compare", "reproduce", "tune", "backtest"),
    "Steps of a feedback pass, after ingest": ("fold-in", "attribution", "drift", "policy"),
    "Steps of a nightly run, in their order": (
        *("snapshot", "validate", "features", "train", "evaluate", "gate", "refit"),
        *("cold-check", "register", "recommend", "publish"),
    ),
    "Operation": ("gc", "repair", "chaos"),
}
"""Commands of the help by group, in its order."""
EXAMPLES: Final = """
    nightjar init shop
    nightjar ingest events.csv.gz --home shop
    nightjar nightly --as-of 2026-03-01T09:00:00Z --home shop
    nightjar lists u1 u2 --home shop
    nightjar compare previous champion --home shop
"""


class _GroupedHelp(TyperGroup):
    """Root command whose help lists the commands by `GROUPS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _first_line(self.commands[name])) for name in names])


def _first_line(command: Any) -> str:
    """Return the first line of a command's help, which fits below its group without a cut."""
    return str(command.help).partition("\n")[0]


app = typer.Typer(
    name="nightjar",
    help="Retrain a recommender every night, test that it is better, and publish its lists.",
    epilog=epilog(EXAMPLES),
    cls=_GroupedHelp,
    no_args_is_help=True,
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


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed_version

        typer.echo(f"nightjar {installed_version('nightjar')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    configure_logging()


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
    except SystemExit as ended:
        # Typer exits with 1 if the reader of its help has ended.
        if isinstance(ended.__context__, BrokenPipeError):
            drop_stdout()
            sys.exit(0)
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
