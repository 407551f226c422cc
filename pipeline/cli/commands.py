"""What a person asks for: a workspace, its data, whole nights, a search, what is live."""

from __future__ import annotations

import json as json_module
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    AsOfText,
    At,
    Home,
    Json,
    LastAsOf,
    Publish,
    Recipes,
    home_of,
    instant,
    open_workspace,
    parse_past_instant,
    progress_printer,
    show,
    write_out,
)

app = typer.Typer()
config_app = typer.Typer(help="The settings of a workspace.", no_args_is_help=True)


@app.command()
def init(
    directory: Annotated[Path | None, typer.Argument(help="Where; default ./var.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a workspace with a short, valid nightjar.toml."""
    from pipeline.workspace.workspace import CONFIG_FILE, Workspace

    folder = home_of(directory or home)
    there = (folder / CONFIG_FILE).exists()
    ws = Workspace.init(folder)
    word = "is a workspace already; nothing was changed" if there else "is a workspace now"
    show(
        {"home": str(ws.home), "created": not there},
        json,
        f"{ws.home} {word}\nsettings: {ws.home / CONFIG_FILE}\n"
        f"next: put files into {ws.home / 'landing'}/events/ and run `nightjar feedback`",
    )


@app.command()
def doctor(home: Home = None, json: Json = False) -> None:
    """Say what works here: Python, GPU, Airflow, MLflow, the workspace's stores."""
    from pipeline.steps.doctor import examine

    checks = examine(home_of(home))
    lines = [f"{'ok  ' if x.ok else 'FAIL'}  {x.name:<12} {x.sentence}" for x in checks]
    show({"checks": checks}, json, "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(2)


@config_app.command("show")
def config_show(
    origin: Annotated[bool, typer.Option(help="Say where each value came from.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print every setting: its value, what it means, and with --origin where it comes from."""
    from pipeline.workspace.config import settings

    composed = list(settings(open_workspace(home).composed))
    lines = []
    for setting in composed:
        value = json_module.dumps(setting.value, ensure_ascii=False, default=str)
        where = f"  [{setting.origin}]" if origin else ""
        lines.append(f"{setting.path} = {value}{where}\n    {setting.description}")
    show({"settings": list(map(vars, composed))}, json, "\n".join(lines))


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders of files.")],
    table: Annotated[str, typer.Option(help="events, items or users.")] = "events",
    source: Annotated[
        str | None, typer.Option(help="Which configured source reads them; default: by name.")
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Items only: the full catalogue; what is missing is unavailable.")
    ] = False,
    at: At = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Read files of events (or items, users) into the lake, each exactly once."""
    from pipeline.steps.ingest.ingest import ingest as step

    result = step(
        open_workspace(home),
        paths,
        table=table,
        source=source,
        replace=replace,
        at=parse_past_instant(at),
        progress=progress_printer(),
    )
    show(result, json, result.text())
    if result.failed:
        raise typer.Exit(3)


@app.command()
def feedback(at: At = None, home: Home = None, json: Json = False) -> None:
    """One pass over landing/: read it, refresh lists by it, and say whether a retrain is wanted."""
    from pipeline.steps.feedback.feedback import feedback as step

    result = step(open_workspace(home), parse_past_instant(at), progress=progress_printer())
    show(result, json, result.text())
    if result.failed:
        raise typer.Exit(3)


@app.command("fold-in")
def foldin(at: At = None, home: Home = None, json: Json = False) -> None:
    """Step 2 of a feedback pass: refresh the lists of who did something since they were made."""
    from pipeline.steps.feedback.foldin import foldin as step

    result = step(open_workspace(home), parse_past_instant(at), progress=progress_printer())
    show(result, json, result.text())


@app.command()
def nightly(
    as_of: AsOfText,
    recipe: Recipes = None,
    publish: Publish = True,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run a whole night: snapshot, validate, features, train ... publish."""
    from pipeline.steps.nightly.nightly import nightly as step

    result = step(
        open_workspace(home),
        parse_past_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=progress_printer(),
    )
    show(result, json, result.text())
    raise typer.Exit(result.exit_code)


@app.command()
def tune(
    budget: Annotated[str, typer.Option(help="How long to search: 90s, 20m, 1h.")],
    as_of: LastAsOf = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe to begin with; default: the champion's.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Search for better hyper-parameters; a later night's gate decides on what is found."""
    from pipeline.steps.experiments.tuning import tune as steps
    from pipeline.steps.experiments.tuning.report import mirror

    start = time.monotonic()
    seconds = steps.parse_budget(budget)
    ws, progress = open_workspace(home), progress_printer()
    result = steps.tune(
        ws,
        instant(as_of) if as_of else steps.default_as_of(ws, instant(None)),
        budget=seconds,
        elapsed=lambda: time.monotonic() - start,
        recipe=recipe,
        progress=progress,
    )
    if result.start is not None:
        mirror(ws, result.study, progress=progress)
    show(result, json, result.text())


@app.command()
def demo(
    nights: Annotated[int, typer.Option(min=1, max=3, help="How many of the nights.")] = 3,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run the loop on real purchases, night after night."""
    from pipeline.report.table import nights_table
    from pipeline.steps import demo as story
    from pipeline.steps.feedback.feedback import feedback as read
    from pipeline.steps.nightly.nightly import nightly as step

    progress = progress_printer()
    ws = story.prepare(home_of(home))
    blocked = 0
    for night in story.NIGHTS[:nights]:
        story.land_until(ws, night, progress=progress)
        read(ws, night, progress=progress)
        ended = step(ws, night, progress=progress)
        blocked = ended.exit_code if ended.decision == "block" else blocked
    summary = story.summary(ws)
    show(summary, json, nights_table(summary))
    raise typer.Exit(blocked)


@app.command()
def lists(
    users: Annotated[list[str] | None, typer.Argument(help="Raw user ids.")] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's lists.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write Parquet to this file instead.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show the lists that are live."""
    from pipeline.errors import ConfigError, StorageError
    from pipeline.report.table import lists_table
    from pipeline.serving.publish import plain_rows
    from pipeline.steps.lists import lists as step
    from pipeline.steps.lists import titles

    if bool(users) == everybody:
        raise ConfigError("usage.users_or_all", "name users or say --all, one of the two")
    ws = open_workspace(home)
    rows = step(ws, None if everybody else users)
    if out is not None:
        try:
            rows.write_parquet(out)
        except OSError as error:
            raise StorageError("storage.cannot_write", f"cannot write {out}: {error}") from error
        show({"out": str(out), "rows": rows.height}, json, f"{rows.height:,} rows in {out}")
        return
    entries = plain_rows(rows)
    show({"rows": entries}, json, "" if json else lists_table(entries, titles(ws)))


@app.command()
def history(
    quality: Annotated[
        bool, typer.Option("--quality", help="What the live lists were worth, night by night.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --quality: draw it into this .png or .svg file.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Show what was decided and published, oldest first; or how good the live lists were."""
    from pipeline.errors import ConfigError
    from pipeline.report.table import history_table
    from pipeline.steps.lists import history as step

    if quality:
        _quality(home, out, json)
        return
    if out is not None:
        raise ConfigError("usage.out_without_quality", "--out draws what --quality tells; say both")
    entries = step(open_workspace(home))
    show({"entries": [entry.plain() for entry in entries]}, json, history_table(entries))


def _quality(home: Path | None, out: Path | None, json: bool) -> None:
    from pipeline.errors import ConfigError
    from pipeline.report.live import FORMATS, live_chart, live_table
    from pipeline.steps.diagnostics.live_quality import live_history

    kind = "" if out is None else out.suffix.removeprefix(".").lower()
    if out is not None and kind not in FORMATS:
        raise ConfigError("usage.picture_format", f"{out} is neither a .png nor a .svg file")
    runs = live_history(open_workspace(home))
    entries, table = {"entries": [run.plain() for run in runs]}, live_table(runs)
    if out is None:
        show(entries, json, table)
        return
    write_out(out, live_chart(runs, kind))
    show({**entries, "out": str(out)}, json, f"{table}\n\ndrawn in {out}")
