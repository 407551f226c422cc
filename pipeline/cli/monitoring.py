"""What came back from people, and what that asks for: answers, drift, the policy."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    Home,
    Json,
    KnownAt,
    open_workspace,
    parse_past_instant,
    progress_printer,
    show,
)

app = typer.Typer()
_DAYS = 7


@app.command()
def attribution(
    since: Annotated[
        str | None, typer.Option("--from", help=f"Default: {_DAYS} days before the end.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Exclusive end; default: now.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what people did with the lists that they were shown, by version, slot and position."""
    from pipeline.report.attribution import attribution_table
    from pipeline.steps.feedback.attribution import run_attribution as step

    end = parse_past_instant(until)
    start = parse_past_instant(since) if since else end - timedelta(days=_DAYS)
    result = step(open_workspace(home), start, end, progress=progress_printer())
    show(result, json, attribution_table(result))


@app.command()
def drift(at: KnownAt = None, home: Home = None, json: Json = False) -> None:
    """Hold the last days against those before them: data, taste, live quality."""
    from pipeline.report.drift import drift_table
    from pipeline.steps.feedback.drift import drift as step

    result = step(open_workspace(home), parse_past_instant(at), progress=progress_printer())
    show(result, json, f"{drift_table(result)}\n\n{result.sentence}")


@app.command()
def policy(at: KnownAt = None, home: Home = None, json: Json = False) -> None:
    """Say whether new data ask for a retrain, and why; nothing is started."""
    from pipeline.steps.feedback.policy import policy as step

    result = step(open_workspace(home), parse_past_instant(at), progress=progress_printer())
    show(result, json, f"{result.action.value}: {result.reason}")
