"""Commands that look after the pipeline itself."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import Home, Json, instant, open_workspace, progress_printer, show

app = typer.Typer()


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="How many processes are killed.")] = 27,
    seed: Annotated[int, typer.Option(min=0, help="What everything drawn follows from.")] = 0,
    json: Json = False,
) -> None:
    """Kill ingest, night and publish over and over, in a sandbox, and count what that cost."""
    from pipeline.testing.chaos.chaos import chaos as step

    tally = step(kills, seed, progress=progress_printer())
    show(tally, json, tally.text())
    raise typer.Exit(0 if tally.sound else 1)


@app.command()
def gc(
    at: Annotated[
        str | None,
        typer.Option("--at", help="The instant that ages are measured from; default: now."),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Put small files of the lake together, and take away what nobody needs any more."""
    from pipeline.steps.maintenance.gc import gc as step

    result = step(open_workspace(home), instant(at), progress=progress_printer())
    show(result, json, result.text())
    raise typer.Exit(result.exit_code)
