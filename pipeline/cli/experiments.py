"""What a person tries out: compare two versions, make one again, live through past days."""

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
_OUT = "The page's file; default: reports/ in the workspace."


@command(app)
def compare(
    console: Console,
    v1: Annotated[int, typer.Argument(help="A version's number, as MLflow and `history` say.")],
    v2: Annotated[int, typer.Argument(help="Another one.")],
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
) -> None:
    """Lay two versions side by side: one page, also shown at both versions in MLflow."""
    from pipeline.steps.experiments.comparison.compare import compare as step

    refuse_unwritable(out)
    result = step(console.workspace, v1, v2, out=out, progress=console.progress)
    console.show(result, result.text())
    if result.fault is not None:
        fail(f"the page is written, but not shown in MLflow: {result.fault}", result.exit_code)


@command(app)
def reproduce(
    console: Console,
    version: Annotated[int, typer.Argument(help="A version's number.")],
) -> None:
    """Make a version again from its snapshot: the same bytes, or what differs and why."""
    from pipeline.steps.experiments.reproduction.reproduce import reproduce as step

    result = step(console.workspace, version, progress=console.progress)
    console.show(result, result.text(), result.exit_code)


@command(app)
def backtest(
    console: Console,
    begin: Annotated[str, typer.Option("--from", help="The first as-of: 2011-09-01T00:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="The last as-of that may be.")],
    every: Annotated[
        str, typer.Option(help="From one as-of to the next: 12h, 1d, at most 28d.")
    ] = "1d",
    schedule: Annotated[
        str, typer.Option(help="When a nightly run is started: names separated by commas.")
    ] = "nightly,weekly,adaptive,never",
    plant_shift: Annotated[
        str | None, typer.Option(help="From here on half of all events are about other items.")
    ] = None,
) -> None:
    """Live through past days once for each policy: what is a retrain worth on these data?"""
    from pipeline.steps.experiments.backtest.backtest import backtest as step
    from pipeline.steps.experiments.backtest.backtest import parse_every, parse_schedules

    result = step(
        console.workspace,
        instant(begin),
        parse_past_instant(end),
        every=parse_every(every),
        schedules=parse_schedules(schedule),
        plant=instant(plant_shift) if plant_shift else None,
        progress=console.progress,
    )
    console.show(result, result.text())
