"""Commands of operation: fault injection, and removal of old data."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import Console, Json, command, parse_past_instant

app = typer.Typer()


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="Number of killed processes.")] = 27,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    json: Json = False,
) -> None:
    """Kill ingest, nightly run and publication repeatedly in a sandbox, and count the damage."""
    from pipeline.testing.chaos.chaos import chaos

    console = Console(None, json)
    tally = chaos(kills, seed, progress=console.progress)
    console.show(tally, tally.text(), 0 if tally.sound else 1)


@command(app)
def gc(
    console: Console,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="Instant from which ages are measured; default: now, or with publish.live_from = "
            '"as_of" the last ingest.',
        ),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Allow an instant more than a year after the last ingest."),
    ] = False,
) -> None:
    """Merge small files of the lake, and remove data past their retention time."""
    from pipeline.steps.maintenance.gc import gc, instant_of_ages

    ws, given = console.workspace, parse_past_instant(at)
    ages_from = instant_of_ages(ws, given, by_hand=at is not None, far_ahead=yes)
    result = gc(ws, ages_from, progress=console.progress)
    console.show(result, result.text(), result.exit_code)
