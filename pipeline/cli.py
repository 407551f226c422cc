"""`nightjar COMMAND ... [--home DIR] [--json]`: one command a step, one sentence an error.

Promises: with ``--json`` stdout holds one JSON object and nothing else; progress goes to stderr;
an expected failure is one sentence and an exit code, never a traceback. The clock is read here, and
in `steps` once a publication (when it went live); nowhere else. Heavy imports wait until a command
runs, so ``--help`` answers at once.
"""

from __future__ import annotations

import json as json_module
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pipeline.steps.run import Workspace

app = typer.Typer(
    name="nightjar",
    help="Retrain a recommender every night, prove that it is better, publish its lists.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="The settings of a workspace.", no_args_is_help=True)
app.add_typer(config_app, name="config")

Home = Annotated[
    Path | None,
    typer.Option(help="The workspace; else the environment's NIGHTJAR_HOME, else ./var."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RunId = Annotated[str, typer.Option("--run", help="The run, as `nightly` or `snapshot` named it.")]
AsOf = Annotated[
    str, typer.Option("--as-of", help="The instant that decides everything: 2017-12-29T09:00:00Z.")
]
Recipes = Annotated[
    list[str] | None, typer.Option("--recipe", help="Only these recipes; again for each.")
]
Publish = Annotated[bool, typer.Option(help="Put a promotion before people.")]
At = Annotated[
    str | None, typer.Option("--at", help="The instant of arrival; default: now, by the clock.")
]


def main() -> None:
    """Run the command line; the console script."""
    from pipeline.errors import NightjarError

    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except NightjarError as error:
        _fail(error.sentence, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped; run the same command again to go on", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message(), 2)  # a usage error, whose class typer keeps to itself
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str, code: int) -> NoReturn:
    print(f"nightjar: {sentence}", file=sys.stderr)
    sys.exit(code)


def _home(home: Path | None) -> Path:
    return home or Path(os.environ.get("NIGHTJAR_HOME") or "var")


def _open(home: Path | None) -> Workspace:
    from pipeline.steps.run import Workspace

    return Workspace.open(_home(home))


def _progress() -> Callable[[str], None]:
    """Return a teller of progress that stamps each line with the seconds since its start.

    What follows within two seconds on the same subject (the words before a colon) is left out.
    """
    start = time.monotonic()
    last = ("", -10.0)

    def tell(text: str) -> None:
        nonlocal last
        now, subject = time.monotonic() - start, text.partition(":")[0]
        if subject == last[0] and now - last[1] < 2.0:
            return
        last = (subject, now)
        print(f"{now:7.1f}s  {text}", file=sys.stderr, flush=True)

    return tell


def _instant(text: str | None) -> datetime:
    from pipeline.base import parse_instant

    return parse_instant(text) if text else datetime.now(UTC)


def _show(value: dict[str, Any], as_json: bool, text: str) -> None:
    print(json_module.dumps(value, ensure_ascii=False, default=str) if as_json else text)


@app.command()
def init(
    directory: Annotated[Path | None, typer.Argument(help="Where; default ./var.")] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a workspace with a short, valid nightjar.toml."""
    from pipeline.steps.run import CONFIG_FILE, Workspace

    folder = _home(directory or home)
    there = (folder / CONFIG_FILE).exists()
    ws = Workspace.init(folder)
    word = "is a workspace already; nothing was changed" if there else "is a workspace now"
    _show(
        {"home": str(ws.home), "created": not there},
        json,
        f"{ws.home} {word}\nsettings: {ws.home / CONFIG_FILE}\n"
        f"next: put files into {ws.home / 'landing'}/events/ and run `nightjar feedback`",
    )


@app.command()
def doctor(home: Home = None, json: Json = False) -> None:
    """Say what works here: Python, GPU, Airflow, MLflow, the workspace's stores."""
    from pipeline.steps.doctor import examine

    checks = examine(_home(home))
    lines = [f"{'ok  ' if x.ok else 'FAIL'}  {x.name:<12} {x.sentence}" for x in checks]
    _show({"checks": [x.to_dict() for x in checks]}, json, "\n".join(lines))
    if not all(check.ok for check in checks):
        raise typer.Exit(2)


@config_app.command("show")
def config_show(
    origin: Annotated[bool, typer.Option(help="Say where each value came from.")] = False,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print every setting: its value, what it means, and with --origin where it comes from."""
    from pipeline.steps.config import settings

    found = list(settings(_open(home).composed))
    lines = []
    for setting in found:
        value = json_module.dumps(setting.value, ensure_ascii=False, default=str)
        where = f"  [{setting.origin}]" if origin else ""
        lines.append(f"{setting.path} = {value}{where}\n    {setting.description}")
    _show({"settings": [vars(setting) for setting in found]}, json, "\n".join(lines))


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
    from pipeline.steps.ingest import ingest as step

    result = step(
        _open(home),
        paths,
        table=table,
        source=source,
        replace=replace,
        at=_instant(at),
        progress=_progress(),
    )
    _show(result.to_dict(), json, result.text())
    if result.failed:
        raise typer.Exit(3)


@app.command()
def feedback(at: At = None, home: Home = None, json: Json = False) -> None:
    """One pass over landing/: read what has arrived, and say whether a retrain is wanted."""
    from pipeline.steps.ingest import feedback as step

    result = step(_open(home), _instant(at), progress=_progress())
    _show(result.to_dict(), json, result.text())
    if result.failed:
        raise typer.Exit(3)


@app.command()
def nightly(
    as_of: AsOf,
    recipe: Recipes = None,
    publish: Publish = True,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run a whole night: snapshot, validate, features, train ... publish."""
    from pipeline.base import parse_instant
    from pipeline.steps.retrain import nightly as step

    result = step(
        _open(home),
        parse_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=_progress(),
    )
    _show(result.to_dict(), json, result.text())
    raise typer.Exit(result.exit_code)


@app.command()
def tune(
    budget: Annotated[str, typer.Option(help="How long to search: 90s, 20m, 1h.")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="As for `nightly`; default: the last night's.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe to begin with; default: the champion's.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Search for better hyper-parameters; a later night's gate decides on what is found."""
    from pipeline.steps import tune as steps
    from pipeline.steps.study_files import mirror

    start = time.monotonic()
    seconds = steps.parse_budget(budget)
    ws, progress = _open(home), _progress()
    found = steps.tune(
        ws,
        _instant(as_of) if as_of else steps.default_as_of(ws, _instant(None)),
        budget=seconds,
        elapsed=lambda: time.monotonic() - start,
        recipe=recipe,
        progress=progress,
    )
    if found.start is not None:
        mirror(ws, found.study, progress=progress)
    _show(found.to_dict(), json, found.text())


@app.command()
def demo(
    nights: Annotated[int, typer.Option(min=1, max=3, help="How many of the nights.")] = 3,
    home: Home = None,
    json: Json = False,
) -> None:
    """Run the loop on real purchases, night after night."""
    from pipeline.report.table import nights_table
    from pipeline.steps import demo as story
    from pipeline.steps.ingest import feedback as read
    from pipeline.steps.retrain import nightly as step

    progress = _progress()
    ws = story.prepare(_home(home))
    blocked = 0
    for night in story.NIGHTS[:nights]:
        story.land_until(ws, night, progress=progress)
        read(ws, night, progress=progress)
        ended = step(ws, night, progress=progress)
        blocked = ended.exit_code if ended.decision == "block" else blocked
    told = story.summary(ws)
    _show(told, json, nights_table(told))
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
    from pipeline.steps.show import lists as step
    from pipeline.steps.show import titles

    if bool(users) == everybody:
        raise ConfigError("name users or say --all, one of the two")
    ws = _open(home)
    rows = step(ws, None if everybody else users)
    if out is not None:
        try:
            rows.write_parquet(out)
        except OSError as error:
            raise StorageError(f"cannot write {out}: {error}") from error
        _show({"out": str(out), "rows": rows.height}, json, f"{rows.height:,} rows in {out}")
        return
    plain = plain_rows(rows)
    _show({"rows": plain}, json, "" if json else lists_table(plain, titles(ws)))


@app.command()
def history(home: Home = None, json: Json = False) -> None:
    """Show what was decided and published, oldest first."""
    from pipeline.report.table import history_table
    from pipeline.steps.show import history as step

    entries = step(_open(home))
    _show({"entries": list(entries)}, json, history_table(entries))


@app.command()
def snapshot(
    as_of: AsOf,
    recipe: Recipes = None,
    publish: Publish = True,
    home: Home = None,
    json: Json = False,
) -> None:
    """Step 1 of a night: pin what it sees; prints the run id that the other steps take."""
    from pipeline.base import parse_instant
    from pipeline.steps.retrain import snapshot as step

    started = step(
        _open(home),
        parse_instant(as_of),
        recipes=recipe or None,
        publish=publish,
        progress=_progress(),
    )
    _show(vars(started), json, f"{started.sentence}\n{started.run_id}".rstrip())


@app.command()
def train(
    recipe: Annotated[str, typer.Option(help="Name of the recipe.")],
    run: RunId,
    home: Home = None,
    json: Json = False,
) -> None:
    """Train one recipe on the run's training window."""
    from pipeline.steps.learn import Failure
    from pipeline.steps.retrain import train as step

    result = step(_open(home), run, recipe, progress=_progress())
    if isinstance(result, Failure):
        _show(result.to_dict(), json, result.text())
        raise typer.Exit(result.exit_code)
    _show(result.to_dict(), json, f"{result.step}: {result.rows:,} users")


@app.command()
def gate(run: RunId, home: Home = None, json: Json = False) -> None:
    """Decide: first, switch, refresh, keep or block; the exit code says which."""
    from pipeline.steps.retrain import gate as step

    decided = step(_open(home), run, progress=_progress())
    _show(decided.to_dict(), json, f"{decided.kind}: {decided.sentence}")
    raise typer.Exit({"keep": 4, "block": 5}.get(decided.kind, 0))


def _add_step(name: str, help_text: str) -> None:
    """Add the command of a step that takes a run and nothing else."""

    def command(run: RunId, home: Home = None, json: Json = False) -> None:
        from pipeline.steps import retrain

        ref = getattr(retrain, name)(_open(home), run, progress=_progress())
        _show(ref.to_dict(), json, f"{ref.step}: {ref.rows:,} rows, sha256 {ref.sha256[:12]}")

    app.command(name, help=help_text)(command)


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
    _add_step(_name, _help)


if __name__ == "__main__":
    main()
