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
    RunIdIfAny,
    command,
    parse_past_instant,
)
from pipeline.errors import ConfigError

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


@command(app)
def register(
    console: Console,
    run: RunIdIfAny = None,
    all_runs: Annotated[
        bool, typer.Option("--all", help="Copy all registered runs and all studies again.")
    ] = False,
) -> None:
    """Mirror the run into MLflow, or fill an MLflow that has lost data again."""
    if (run is None) != all_runs:
        raise ConfigError("usage.run_or_all", "give either --run ID or --all")
    if run is not None:
        from pipeline.steps.nightly.register import register as register_run

        done = register_run(console.workspace, run, progress=console.progress)
        version = "no version" if done.version is None else f"version {done.version}"
        console.show(done, f"{version}, run {done.mlflow_run} of MLflow")
        return
    from pipeline.steps.maintenance.register_all import register_all

    result = register_all(console.workspace, progress=console.progress)
    console.show(result, result.text())


def _run_step(console: Console, name: str, run: str) -> None:
    step = getattr(import_module(f"pipeline.steps.nightly.{name}"), name)
    ref = step(console.workspace, run, progress=console.progress)
    console.show(ref, f"{ref.step}: {ref.rows:,} rows, sha256 {ref.sha256[:12]}")


def _add(name: str, help_text: str) -> None:
    """Add the command of a step whose only argument is a run."""

    @command(app, name.replace("_", "-"), help=help_text)
    def run_step(console: Console, run: RunId) -> None:
        _run_step(console, name, run)


for _name, _help in (
    ("validate", "Check the run's data; a failed check stops the run."),
    ("features", "Build the run's training window, holdout and full window."),
    ("evaluate", "Evaluate every recipe of the run on its holdout."),
    ("refit", "Train the promoted recipe on all events up to the as-of."),
    ("cold_check", "Load the refit in a new process and compare its lists."),
    ("recommend", "Compute the lists of all users."),
    ("publish", "Make all lists live at once."),
):
    _add(_name, _help)
