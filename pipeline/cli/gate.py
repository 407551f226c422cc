"""The gate: its step of a night, how far it can be trusted, and a person's word to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import override
from pipeline.cli.terminal import (
    Home,
    Json,
    LastAsOf,
    instant,
    open_workspace,
    progress_printer,
    refuse_unwritable,
    show,
    write_out,
)

app = typer.Typer(invoke_without_command=True)


@app.callback()
def gate(
    context: typer.Context,
    run: Annotated[
        str | None, typer.Option("--run", help="The run, as `nightly` or `snapshot` named it.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Decide: first, switch, refresh, keep or block; the exit code says which."""
    from pipeline.errors import ConfigError

    if context.invoked_subcommand is not None:
        if run is not None or home is not None or json:
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

    decided = step(open_workspace(home), run, progress=progress_printer())
    show(decided, json, f"{decided.kind}: {decided.sentence}")
    raise typer.Exit({"keep": 4, "block": 5}.get(decided.kind, 0))


@app.command()
def calibrate(
    as_of: LastAsOf = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figure to this file, as SVG.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Measure how often the gate is wrong on these data, and what it finds; takes 32 trainings."""
    from pipeline.steps.experiments.calibration.calibrate import gate_calibrate
    from pipeline.steps.experiments.tuning.tune import default_as_of

    refuse_unwritable(out)
    start = time.monotonic()
    ws = open_workspace(home)
    result = gate_calibrate(
        ws,
        instant(as_of) if as_of else default_as_of(ws, instant(None)),
        elapsed=lambda: time.monotonic() - start,
        progress=progress_printer(),
    )
    write_out(out, result.svg)
    show(result, json, result.text() + (f"\nfigure:    {out}" if out else ""))


app.command()(override.accept)
app.command()(override.anchor)
