"""Commands that look after the pipeline itself."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import Console, Json, command, instant

app = typer.Typer()


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="How many processes are killed.")] = 27,
    seed: Annotated[int, typer.Option(min=0, help="What everything drawn follows from.")] = 0,
    json: Json = False,
) -> None:
    """Kill ingest, night and publish over and over, in a sandbox, and count what that cost."""
    from pipeline.testing.chaos.chaos import chaos as step

    console = Console(None, json)
    tally = step(kills, seed, progress=console.progress)
    console.show(tally, tally.text(), 0 if tally.sound else 1)


@command(app)
def gc(
    console: Console,
    at: Annotated[
        str | None,
        typer.Option("--at", help="The instant that ages are measured from; default: now."),
    ] = None,
) -> None:
    """Put small files of the lake together, and take away what nobody needs any more."""
    from pipeline.steps.maintenance.gc import gc as step

    result = step(console.workspace, instant(at), progress=console.progress)
    console.show(result, result.text(), result.exit_code)
