"""Commands of the gate: its step of a nightly run, its calibration, and overrides by the operator.

Guarantees: a file for `--out` that cannot be written is refused before the work starts.
"""

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
By = Annotated[str, typer.Option(help="Name of the operator who decides, for the ledger.")]
Reason = Annotated[str, typer.Option(help="Reason of the decision, for the ledger.")]


@app.callback()
@with_console
def gate(
    console: Console,
    context: typer.Context,
    run: RunIdIfAny = None,
) -> None:
    """Decide: first, switch, refresh (exit code 0), keep (4) or block (5)."""
    # Typer runs this callback before every subcommand, too.
    if context.invoked_subcommand is not None:
        if run is not None or console.has_options:
            raise ConfigError(
                "usage.option_order",
                f"write options after the command {context.invoked_subcommand}",
            )
        return
    if run is None:
        raise ConfigError("usage.run_missing", "--run is missing; write `nightjar gate --run ID`")
    from pipeline.steps.nightly.gate import gate

    decided = gate(console.workspace, run, progress=console.progress)
    console.show(
        decided, f"{decided.kind}: {decided.sentence}", {"keep": 4, "block": 5}.get(decided.kind, 0)
    )


@command(app)
def calibrate(
    console: Console,
    as_of: LastAsOf = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figure to this SVG file.")
    ] = None,
) -> None:
    """Measure the error rates of the gate on these data; 32 trainings, 4 of each other recipe."""
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


@command(
    app,
    examples="""
    nightjar history        # has the run ids
    nightjar gate accept 20260301T030000Z-1f0c2a9b --by Anna --reason "prices were wrong last week"
    """,
)
def accept(
    console: Console,
    run: Annotated[str, typer.Argument(help="Run to accept, as in `history` and on its page.")],
    by: By,
    reason: Reason,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe that goes live: the inconclusive candidate (default, if there is "
            "one) or the champion's recipe."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Stronger kind of event that the run proposes: it becomes the target of later "
            "runs, and no recipe goes live."
        ),
    ] = None,
) -> None:
    """Accept a run that kept or blocked the champion, its inconclusive candidate, or a target."""
    from pipeline.base import format_instant
    from pipeline.steps.nightly.accept import accept_run, accept_target

    if target is not None:
        if recipe is not None:
            raise ConfigError(
                "usage.recipe_and_target",
                "--recipe and --target are two decisions; write one of them in each command",
            )
        accepted = accept_target(console.workspace, run, target, by=by, reason=reason)
        console.show(accepted, accepted.sentence)
        return
    entry = accept_run(console.workspace, run, by=by, reason=reason, recipe=recipe)
    again = f"nightjar nightly --as-of {format_instant(entry.as_of)}"
    console.show(entry, f"{entry.sentence}\nnext: `{again}` publishes it")


@command(app)
def anchor(console: Console, by: By, reason: Reason) -> None:
    """Set the champion's anchor to its current baseline ratio, for later nightly runs."""
    from pipeline.steps.nightly.accept import set_anchor

    entry = set_anchor(console.workspace, by=by, reason=reason)
    console.show(entry, entry.sentence)
