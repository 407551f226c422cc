"""Commands of monitoring: attribution, drift and the retrain policy."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from pipeline.cli.terminal import Console, KnownAt, command, parse_past_instant

app = typer.Typer()
_DAYS = 7


@command(app)
def attribution(
    console: Console,
    since: Annotated[
        str | None, typer.Option("--from", help=f"Start; default: {_DAYS} days before the end.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="End, exclusive; default: now.")] = None,
) -> None:
    """Show the responses of users to their lists, by version, slot and position."""
    from pipeline.report.attribution import attribution_table
    from pipeline.steps.feedback.attribution import run_attribution

    end = parse_past_instant(until)
    start = parse_past_instant(since) if since else end - timedelta(days=_DAYS)
    result = run_attribution(console.workspace, start, end, progress=console.progress)
    console.show(result, attribution_table(result))


@command(app)
def drift(console: Console, at: KnownAt = None) -> None:
    """Compare the last days with the reference period: data, shares of items, live quality."""
    from pipeline.report.drift import drift_table
    from pipeline.steps.feedback.drift import drift

    result = drift(console.workspace, parse_past_instant(at), progress=console.progress)
    console.show(result, f"{drift_table(result)}\n\n{result.sentence}")


@command(app)
def policy(console: Console, at: KnownAt = None) -> None:
    """Show whether new data require a retrain, and the reason; nothing is started."""
    from pipeline.steps.feedback.policy import policy

    result = policy(console.workspace, parse_past_instant(at), progress=console.progress)
    console.show(result, f"{result.action.value}: {result.reason}")
