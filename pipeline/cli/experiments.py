"""Commands of experiments: compare two versions, reproduce one, replay past days.

Guarantees: a file for `--out` that cannot be written is refused before the work starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    Console,
    command,
    fail,
    instant,
    parse_past_instant,
    refuse_unwritable,
)

app = typer.Typer()
_OUT = "File of the page; default: in reports/ of the workspace."


_VERSION = "Version: its number, `champion` (the live one) or `previous` (the one before it)."


@command(
    app,
    examples="""
    nightjar compare previous champion
    nightjar compare 1 3 --out comparison.html
    """,
)
def compare(
    console: Console,
    v1: Annotated[str, typer.Argument(help=_VERSION)],
    v2: Annotated[str, typer.Argument(help="The other version; lifts are those of V2 over V1.")],
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
) -> None:
    """Compare two versions on one page, which is also attached to both versions in MLflow."""
    from pipeline.steps.experiments.comparison.compare import compare
    from pipeline.workspace.versions import number_of

    # Before the comparison, which takes minutes.
    refuse_unwritable(out)
    ws = console.workspace
    result = compare(ws, number_of(ws, v1), number_of(ws, v2), out=out, progress=console.progress)
    # The result is complete and printed, even if MLflow is not available.
    console.show(result, result.text())
    if result.fault is not None:
        fail(f"the page is written, but not attached in MLflow: {result.fault}", result.exit_code)


@command(app, examples="nightjar reproduce champion")
def reproduce(
    console: Console,
    version: Annotated[str, typer.Argument(help=_VERSION)],
) -> None:
    """Train a version again from its snapshot, and list differences with their causes."""
    from pipeline.steps.experiments.reproduction.reproduce import reproduce
    from pipeline.workspace.versions import number_of

    ws = console.workspace
    result = reproduce(ws, number_of(ws, version), progress=console.progress)
    console.show(result, result.text(), result.exit_code)


@command(app, examples="nightjar backtest --from 2026-01-01T03:00:00Z --to 2026-03-01T03:00:00Z")
def backtest(
    console: Console,
    begin: Annotated[str, typer.Option("--from", help="First as-of: 2011-09-01T00:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="Latest possible as-of.")],
    every: Annotated[
        str, typer.Option(help="Time between two as-ofs: 12h, 1d, at most 28d.")
    ] = "1d",
    schedule: Annotated[
        str, typer.Option(help="Retrain schedules, separated by commas.")
    ] = "nightly,weekly,adaptive,never",
    plant_shift: Annotated[
        str | None,
        typer.Option(
            help="Instant from which half of all events get other items, as synthetic drift."
        ),
    ] = None,
) -> None:
    """Replay past days per retrain schedule, to measure the benefit of retraining on these data."""
    from pipeline.steps.experiments.backtest.backtest import backtest, parse_every, parse_schedules

    result = backtest(
        console.workspace,
        instant(begin),
        parse_past_instant(end),
        every=parse_every(every),
        schedules=parse_schedules(schedule),
        plant=instant(plant_shift) if plant_shift else None,
        progress=console.progress,
    )
    console.show(result, result.text())
