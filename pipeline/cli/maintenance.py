"""Commands of operation: fault injection, removal of old data, and repairs."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.gate import By, Reason
from pipeline.cli.terminal import (
    Console,
    Json,
    Quiet,
    Verbose,
    command,
    instant,
    parse_past_instant,
)

app = typer.Typer()
repair_app = typer.Typer(help="Restore damaged stores; docs/RECOVERY.md has the cases.")
app.add_typer(repair_app, name="repair")


@app.command()
def chaos(
    kills: Annotated[int, typer.Option(min=1, help="Number of killed processes.")] = 27,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Kill ingest, nightly run and publication repeatedly in a sandbox, and count the damage.

    Processes are killed at named places of the code, while the system goes on. Not covered: power
    cuts (`make test-root` has them), bytes that change on the disk, stores of different ages, full
    disks, deaths of child processes, clocks that are set back.
    """
    from pipeline.testing.chaos.chaos import chaos

    console = Console(None, json, quiet=quiet, verbose=verbose)
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


@command(repair_app)
def checkpoints(console: Console) -> None:
    """Make damaged and lost checkpoints of the lake again from its log; no data change."""
    from pipeline.steps.maintenance.repair_lake import repair_checkpoints

    result = repair_checkpoints(console.workspace, progress=console.progress)
    console.show(result, result.text())


@command(repair_app)
def batch(
    console: Console,
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids of batches (sha256 of their files); default: all that have lost events."
        ),
    ] = None,
) -> None:
    """Restore events that the lake has lost from the files in `archive/`."""
    from pipeline.steps.maintenance.repair_batches import repair_batches

    result = repair_batches(console.workspace, ids or (), progress=console.progress)
    console.show(result, result.text())


@command(repair_app)
def sums(console: Console, by: By, reason: Reason) -> None:
    """Accept the files of the lake whose checksums are lost, as they are now."""
    from pipeline.steps.maintenance.repair_lake import repair_sums

    result = repair_sums(
        console.workspace, instant(None), by=by, reason=reason, progress=console.progress
    )
    console.show(result, result.text())


@command(repair_app)
def ledger(console: Console, by: By, reason: Reason) -> None:
    """Write a damaged, cut or lost ledger again from the runs and the lake; keep the old file."""
    from pipeline.steps.maintenance.repair_ledger import repair_ledger

    result = repair_ledger(
        console.workspace, instant(None), by=by, reason=reason, progress=console.progress
    )
    console.show(result, result.text())
