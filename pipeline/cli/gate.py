"""The gate: its step of a night, how far it can be trusted, and a person's word to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    Console,
    LastAsOf,
    RunIdIfAny,
    command,
    instant,
    refuse_unwritable,
    stopwatch,
    with_console,
    write_out,
)
from pipeline.errors import ConfigError

app = typer.Typer(invoke_without_command=True)
By = Annotated[str, typer.Option(help="Who says so; the ledger keeps it.")]
Reason = Annotated[str, typer.Option(help="Why; the ledger keeps it.")]


@app.callback()
@with_console
def gate(
    console: Console,
    context: typer.Context,
    run: RunIdIfAny = None,
) -> None:
    """Decide: first, switch, refresh, keep or block; the exit code says which."""
    if context.invoked_subcommand is not None:
        if run is not None or console.home is not None or console.json:
            raise ConfigError(
                "usage.option_order",
                f"options stand behind the command {context.invoked_subcommand}",
            )
        return
    if run is None:
        raise ConfigError(
            "usage.run_missing", "name the run to decide on: `nightjar gate --run ID`"
        )
    from pipeline.steps.nightly.gate import gate as step

    decided = step(console.workspace, run, progress=console.progress)
    console.show(
        decided, f"{decided.kind}: {decided.sentence}", {"keep": 4, "block": 5}.get(decided.kind, 0)
    )


@command(app)
def calibrate(
    console: Console,
    as_of: LastAsOf = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figure to this file, as SVG.")
    ] = None,
) -> None:
    """Measure how often the gate is wrong on these data, and what it finds; takes 32 trainings."""
    from pipeline.steps.experiments.calibration.calibrate import gate_calibrate
    from pipeline.steps.experiments.tuning.tune import default_as_of

    refuse_unwritable(out)
    elapsed, ws = stopwatch(), console.workspace
    result = gate_calibrate(
        ws,
        instant(as_of) if as_of else default_as_of(ws, instant(None)),
        elapsed=elapsed,
        progress=console.progress,
    )
    write_out(out, result.svg)
    console.show(result, result.text() + (f"\nfigure:    {out}" if out else ""))


@command(app)
def accept(
    console: Console,
    run: Annotated[
        str, typer.Argument(help="The run to accept, as `history` and its page name it.")
    ],
    by: By,
    reason: Reason,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Who goes live: the candidate in the grey zone (default, if there is one) or the "
            "champion's recipe."
        ),
    ] = None,
) -> None:
    """Accept what a night kept back, blocked, or left in the grey zone; then start it again."""
    from pipeline.base import format_instant
    from pipeline.steps.nightly.accept import accept_run

    entry = accept_run(console.workspace, run, by=by, reason=reason, recipe=recipe)
    again = f"nightjar nightly --as-of {format_instant(entry.as_of)}"
    console.show(entry, f"{entry.sentence}\nnext: `{again}` puts it before people")


@command(app)
def anchor(console: Console, by: By, reason: Reason) -> None:
    """Set the champion's anchor to what it is worth now; later nights are held against that."""
    from pipeline.steps.nightly.accept import set_anchor

    entry = set_anchor(console.workspace, by=by, reason=reason)
    console.show(entry, entry.sentence)
