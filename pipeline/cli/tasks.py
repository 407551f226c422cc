"""The steps of a nightly run as single commands: `snapshot`, then those that take its run id."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    AsOfText,
    Console,
    Publish,
    Recipes,
    RunId,
    command,
    parse_past_instant,
)

app = typer.Typer()


@command(app)
def snapshot(
    console: Console, as_of: AsOfText, recipe: Recipes = None, publish: Publish = True
) -> None:
    """Pin the data of a nightly run, and print the run id for its other steps."""
    from pipeline.steps.nightly.snapshot import snapshot

    started = snapshot(
        console.workspace,
        parse_past_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=console.progress,
    )
    console.show(started, f"{started.sentence}\n{started.run_id}".rstrip())


@command(app)
def train(
    console: Console,
    recipe: Annotated[str, typer.Option(help="Name of the recipe.")],
    run: RunId,
) -> None:
    """Train one recipe on the run's training window."""
    from pipeline.steps.nightly.train import Failure, train

    result = train(console.workspace, run, recipe, progress=console.progress)
    if isinstance(result, Failure):
        console.show(result, result.text(), result.exit_code)
    else:
        console.show(result, f"{result.step}: {result.rows:,} users")


def _add(name: str, help_text: str) -> None:
    """Add the command of a step whose only argument is a run."""

    @command(app, name.replace("_", "-"), help=help_text)
    def run_step(console: Console, run: RunId) -> None:
        step = getattr(import_module(f"pipeline.steps.nightly.{name}"), name)
        ref = step(console.workspace, run, progress=console.progress)
        console.show(ref, f"{ref.step}: {ref.rows:,} rows, sha256 {ref.sha256[:12]}")


for _name, _help in (
    ("validate", "Check the run's data; a failed check stops the run."),
    ("features", "Build the run's training window, holdout and full window."),
    ("evaluate", "Evaluate every recipe of the run on its holdout."),
    ("refit", "Train the promoted recipe on all events up to the as-of."),
    ("cold_check", "Load the refit in a new process and compare its lists."),
    ("register", "Mirror the run into MLflow."),
    ("recommend", "Compute the lists of all users."),
    ("publish", "Make all lists live at once."),
):
    _add(_name, _help)
