"""The steps of a night, one by one, as a scheduler asks for them: `snapshot`, then those that take
its run.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    AsOfText,
    Home,
    Json,
    Publish,
    Recipes,
    RunId,
    open_workspace,
    parse_past_instant,
    progress_printer,
    show,
)

app = typer.Typer()


@app.command()
def snapshot(
    as_of: AsOfText,
    recipe: Recipes = None,
    publish: Publish = True,
    home: Home = None,
    json: Json = False,
) -> None:
    """Step 1 of a night: pin what it sees; prints the run id that the other steps take."""
    from pipeline.steps.nightly.snapshot import snapshot as step

    started = step(
        open_workspace(home),
        parse_past_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=progress_printer(),
    )
    show(started, json, f"{started.sentence}\n{started.run_id}".rstrip())


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="Name of the recipe.")],
    run: RunId,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train one recipe on the run's training window."""
    from pipeline.steps.nightly.train import Failure
    from pipeline.steps.nightly.train import train as step

    result = step(open_workspace(home), run, recipe, progress=progress_printer())
    if isinstance(result, Failure):
        show(result, json, result.text())
        raise typer.Exit(result.exit_code)
    show(result, json, f"{result.step}: {result.rows:,} users")


def _add(name: str, help_text: str) -> None:
    """Add the command of a step that takes a run and nothing else."""

    def command(run: RunId, home: Home = None, json: Json = False) -> None:
        step = getattr(import_module(f"pipeline.steps.nightly.{name}"), name)
        ref = step(open_workspace(home), run, progress=progress_printer())
        show(ref, json, f"{ref.step}: {ref.rows:,} rows, sha256 {ref.sha256[:12]}")

    app.command(name.replace("_", "-"), help=help_text)(command)


for _name, _help in (
    ("validate", "Judge the run's data; a failed check stops the night."),
    ("features", "Build the run's training window, holdout and full window."),
    ("evaluate", "Judge every recipe of the run on its holdout."),
    ("refit", "Train the promoted recipe on everything up to the as-of."),
    ("cold_check", "Load the refit in a fresh process and compare its lists."),
    ("register", "Mirror the night into MLflow."),
    ("recommend", "Build everybody's lists."),
    ("publish", "Put the lists before people, all at once."),
):
    _add(_name, _help)
