"""Commands of daily use: workspace, data, nightly runs, tuning, lists and history."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import (
    AsOfText,
    At,
    Console,
    LastAsOf,
    Publish,
    Recipes,
    command,
    instant,
    parse_past_instant,
    stopwatch,
    write_out,
)
from pipeline.errors import ConfigError

app = typer.Typer()
config_app = typer.Typer(help="Settings of a workspace.", no_args_is_help=True)


@command(app, examples="nightjar init shop")
def init(
    console: Console,
    directory: Annotated[Path | None, typer.Argument(help="Its folder; default: ./var.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Group whose members may read the workspace and deliver files; default: only you."
        ),
    ] = None,
) -> None:
    """Create a workspace with a short, valid nightjar.toml."""
    from pipeline.workspace.workspace import CONFIG_FILE, Workspace

    folder = directory or console.folder
    is_new = not (folder / CONFIG_FILE).exists()
    ws = Workspace.init(folder, group=group)
    word = "is a new workspace" if is_new else "is a workspace already; nothing was changed"
    console.show(
        {"home": str(ws.home), "created": is_new},
        f"{ws.home} {word}\nsettings: {ws.home / CONFIG_FILE}\n"
        f"next: put files into {ws.home / 'landing'}/events/ and run `nightjar feedback`",
    )


@command(app, examples="nightjar doctor --home shop")
def doctor(console: Console) -> None:
    """Check Python, GPU, Airflow, MLflow and the stores of the workspace."""
    from pipeline.steps.doctor import examine

    checks = examine(console.folder)
    lines = [f"{'ok  ' if x.ok else 'FAIL'}  {x.name:<12} {x.sentence}" for x in checks]
    console.show({"checks": checks}, "\n".join(lines), 0 if all(x.ok for x in checks) else 2)


@command(config_app, "show", examples="nightjar config show --origin")
def config_show(
    console: Console,
    origin: Annotated[bool, typer.Option(help="Also print the source of each value.")] = False,
) -> None:
    """Print all settings with their values and meanings."""
    from pipeline.workspace.config import settings

    composed = list(settings(console.workspace.composed))
    lines = []
    for setting in composed:
        value = json_module.dumps(setting.value, ensure_ascii=False, default=str)
        where = f"  [{setting.origin}]" if origin else ""
        lines.append(f"{setting.path} = {value}{where}\n    {setting.description}")
    console.show({"settings": list(map(vars, composed))}, "\n".join(lines))


@command(
    app,
    examples="""
    nightjar ingest events.csv.gz
    nightjar ingest events.csv.gz --dry-run
    nightjar ingest products.csv --table items --replace
    """,
)
def ingest(
    console: Console,
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders of files.")],
    table: Annotated[str, typer.Option(help="Table: events, items or users.")] = "events",
    source: Annotated[
        str | None,
        typer.Option(
            help="Configured source that reads the files; default: chosen by their names."
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            help="Only for items: the files are the full catalogue, and missing items become "
            "unavailable."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Only validate the files: count rows, show the first bad ones, store nothing.",
        ),
    ] = False,
    at: At = None,
) -> None:
    """Read files of events, items or users into the lake, each exactly once."""
    from pipeline.steps.ingest.ingest import ingest

    result = ingest(
        console.workspace,
        paths,
        table=table,
        source=source,
        replace=replace,
        at=parse_past_instant(at),
        by_hand=at is not None,
        dry_run=dry_run,
        progress=console.progress,
    )
    console.show(result, result.text(), result.exit_code)


@command(
    app,
    examples="""
    nightjar quarantine
    nightjar quarantine events.csv.gz
    """,
)
def quarantine(
    console: Console,
    file: Annotated[
        str | None, typer.Argument(help="Name or sha256 of a file; default: all files.")
    ] = None,
) -> None:
    """Show the rows in quarantine by file and reason, with masked examples."""
    from pipeline.steps.ingest.quarantine import quarantined

    rows = quarantined(console.workspace, file)
    text = "\n".join(entry.text() for entry in rows) or "no row is in quarantine"
    console.show({"rows": rows}, text)


@command(app, examples="nightjar feedback")
def feedback(console: Console, at: At = None) -> None:
    """Run one feedback pass: ingest landing/, refresh lists, and check whether to retrain."""
    from pipeline.steps.feedback.feedback import feedback

    at_instant, by_hand = parse_past_instant(at), at is not None
    result = feedback(console.workspace, at_instant, by_hand=by_hand, progress=console.progress)
    console.show(result, result.text(), result.exit_code)


@command(app, "fold-in")
def foldin(console: Console, at: At = None) -> None:
    """Refresh the lists of users with new events (step 2 of a feedback pass)."""
    from pipeline.steps.feedback.foldin import foldin

    result = foldin(console.workspace, parse_past_instant(at), progress=console.progress)
    console.show(result, result.text())


@command(
    app,
    examples="""
    nightjar nightly --as-of 2026-03-01T09:00:00Z
    nightjar nightly --as-of 2026-03-01T09:00:00Z --recipe als --no-publish
    """,
)
def nightly(
    console: Console, as_of: AsOfText, recipe: Recipes = None, publish: Publish = True
) -> None:
    """Run all steps of a nightly run: snapshot, validate, features, train ... publish."""
    from pipeline.steps.nightly.nightly import nightly

    result = nightly(
        console.workspace,
        parse_past_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=console.progress,
    )
    console.show(result, result.text(), result.exit_code)


@command(app, examples="nightjar tune --budget 20m --recipe als")
def tune(
    console: Console,
    budget: Annotated[str, typer.Option(help="Duration of the search: 90s, 20m, 1h.")],
    as_of: LastAsOf = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe to start from; default: the champion's.")
    ] = None,
) -> None:
    """Search for better hyperparameters; the gate of a later nightly run decides on the result."""
    from pipeline.steps.experiments.tuning.report import mirror
    from pipeline.steps.experiments.tuning.tune import default_as_of, parse_budget, tune

    elapsed, seconds = stopwatch(), parse_budget(budget)
    ws = console.workspace
    result = tune(
        ws,
        instant(as_of) if as_of else default_as_of(ws, instant(None)),
        budget=seconds,
        elapsed=elapsed,
        recipe=recipe,
        progress=console.progress,
    )
    # Without a trial of the start there is nothing to compare, and nothing to record.
    if result.start is not None:
        mirror(ws, result.study, progress=console.progress)
    console.show(result, result.text())


@command(app)
def demo(
    console: Console,
    nights: Annotated[int, typer.Option(min=1, max=3, help="Number of nightly runs.")] = 3,
) -> None:
    """Run the nightly loop on real purchases."""
    from pipeline.report.table import nights_table
    from pipeline.steps.demo import NIGHTS, land_until, prepare, summary
    from pipeline.steps.feedback.feedback import feedback
    from pipeline.steps.nightly.nightly import nightly

    progress, blocked = console.progress, 0
    ws = prepare(console.folder)
    for night in NIGHTS[:nights]:
        land_until(ws, night, progress=progress)
        feedback(ws, night, progress=progress)
        ended = nightly(ws, night, progress=progress)
        # As in Airflow, a kept champion is a success and a block is a failure.
        blocked = ended.exit_code if ended.decision == "block" else blocked
    result = summary(ws)
    console.show(result, nights_table(result), blocked)


@command(
    app,
    examples="""
    nightjar lists u1 u2
    nightjar lists --all --out lists.parquet
    """,
)
def lists(
    console: Console,
    users: Annotated[list[str] | None, typer.Argument(help="Raw user ids.")] = None,
    all_users: Annotated[bool, typer.Option("--all", help="Show the lists of all users.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the lists to this Parquet file.")] = None,
) -> None:
    """Show the live recommendation lists. An unknown user is an error; `*` is the fallback list."""
    from pipeline.report.table import lists_table
    from pipeline.serving.publish import plain_rows
    from pipeline.steps.lists import lists, titles
    from pipeline.workspace.permissions import open_export

    if bool(users) == all_users:
        raise ConfigError("usage.users_or_all", "give either user ids or --all")
    ws = console.workspace
    rows = lists(ws, None if all_users else users)
    if out is not None:
        with open_export(out) as file:
            rows.write_parquet(file)
        result = {"out": str(out), "rows": rows.height}
        return console.show(result, f"{rows.height:,} rows in {out}")
    # JSON has no titles, so the items are read only for the table.
    entries = plain_rows(rows)
    console.show({"rows": entries}, "" if console.json else lists_table(entries, titles(ws)))


@command(
    app,
    "id",
    examples="""
    nightjar id anna@example.org
    """,
)
def id_(
    console: Console,
    users: Annotated[list[str], typer.Argument(help="Raw user ids, or pseudonyms.")],
) -> None:
    """Translate user ids into the pseudonyms of MLflow's models, and back."""
    from pipeline.steps.lists import translate

    other = translate(console.workspace, users)
    console.show({"ids": other}, "\n".join(f"{user}  {name}" for user, name in other.items()))


@command(
    app,
    examples="""
    nightjar history
    nightjar history --quality --out quality.png
    """,
)
def history(
    console: Console,
    quality: Annotated[
        bool, typer.Option("--quality", help="Show the quality of the live lists per nightly run.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --quality: draw a chart into this .png or .svg file.")
    ] = None,
) -> None:
    """Show decisions and publications, oldest first, or the quality of the live lists."""
    from pipeline.report.table import history_table
    from pipeline.steps.lists import history

    if quality:
        return _quality(console, out)
    if out is not None:
        raise ConfigError(
            "usage.out_without_quality", "--out needs --quality; add it, or remove --out"
        )
    entries = history(console.workspace)
    console.show({"entries": [entry.plain() for entry in entries]}, history_table(entries))


def _quality(console: Console, out: Path | None) -> None:
    from pipeline.report.live import FORMATS, live_chart, live_table
    from pipeline.steps.diagnostics.live_quality import live_history

    kind = "" if out is None else out.suffix.removeprefix(".").lower()
    if out is not None and kind not in FORMATS:
        raise ConfigError(
            "usage.picture_format", f"--out must be a .png or .svg file, not {out}; rename it"
        )
    runs = live_history(console.workspace)
    entries, table = {"entries": [run.plain() for run in runs]}, live_table(runs)
    if out is None:
        return console.show(entries, table)
    write_out(out, live_chart(runs, kind))
    console.show({**entries, "out": str(out)}, f"{table}\n\nchart: {out}")
