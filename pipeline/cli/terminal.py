"""Options that all commands share, and how commands print.

Guarantees: with ``--json`` stdout holds one JSON object and nothing else; progress and the log
lines of tasks go to stderr: a readable line each at a terminal, else one JSON object a line. The
clock is read here, and in `steps` once for a publication or a pass that may make one (when it went
live); nowhere else.
"""

from __future__ import annotations

import inspect
import json as json_module
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, NoReturn

import typer

from pipeline.errors import ConfigError
from pipeline.stores.disk import storage_errors

if TYPE_CHECKING:
    from pipeline.base import AsOf, Progress
    from pipeline.workspace.workspace import Workspace

Home = Annotated[
    Path | None,
    typer.Option(help="The workspace; else the environment's NIGHTJAR_HOME, else ./var."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
_RUN = typer.Option("--run", help="The run, as `nightly` or `snapshot` named it.")
RunId = Annotated[str, _RUN]
RunIdIfAny = Annotated[str | None, _RUN]
AsOfText = Annotated[
    str, typer.Option("--as-of", help="The instant that decides everything: 2017-12-29T09:00:00Z.")
]
LastAsOf = Annotated[
    str | None, typer.Option("--as-of", help="As for `nightly`; default: the last night's.")
]
Recipes = Annotated[
    list[str] | None, typer.Option("--recipe", help="Only these recipes; again for each.")
]
Publish = Annotated[bool, typer.Option(help="Put a promotion before people.")]
At = Annotated[
    str | None, typer.Option("--at", help="The instant of arrival; default: now, by the clock.")
]
KnownAt = Annotated[
    str | None, typer.Option("--at", help="As what was known at this instant; default: now.")
]


def fail(sentence: str, code: int) -> NoReturn:
    """Say on stderr why it ends, and end."""
    print(f"nightjar: {sentence}", file=sys.stderr)
    sys.exit(code)


class Console:
    """The options that all commands share, and their output.

    Attributes
    ----------
    home
        The workspace's folder, if the option names one.
    json
        Whether stdout gets one JSON object.
    """

    def __init__(self, home: Path | None, json: bool) -> None:
        self.home = home
        self.json = json

    @property
    def folder(self) -> Path:
        """Where the workspace is, or would be."""
        return self.home or Path(os.environ.get("NIGHTJAR_HOME") or "var")

    @property
    def workspace(self) -> Workspace:
        """The workspace, opened."""
        from pipeline.workspace.workspace import Workspace

        return Workspace.open(self.folder)

    @cached_property
    def progress(self) -> Progress:
        """A progress that logs at most one text per 10 seconds, with the seconds since now."""
        import structlog

        from pipeline.workspace.task_log import PROGRESS_SECONDS, at_most_every

        elapsed, log = stopwatch(), structlog.get_logger("nightjar")

        def show_progress(text: str) -> None:
            log.info("progress", seconds=round(elapsed(), 1), text=text)

        return at_most_every(PROGRESS_SECONDS, show_progress)

    def show(self, result: object, text: str, exit_code: int = 0) -> None:
        """Print the result of a command, as JSON or as text; end with a code other than 0."""
        from pipeline.base import plain

        print(json_module.dumps(plain(result), ensure_ascii=False) if self.json else text)
        if exit_code:
            raise typer.Exit(exit_code)


def with_console(run: Callable[Concatenate[Console, ...], None]) -> Callable[..., None]:
    """Return a command whose options ``--home`` and ``--json`` become the first argument."""

    def adapted(*, home: Home = None, json: Json = False, **options: Any) -> None:
        run(Console(home, json), **options)

    own, shared = (
        list(inspect.signature(function, eval_str=True).parameters.values())
        for function in (run, adapted)
    )
    # Typer reads the options off the signature.
    adapted.__signature__ = inspect.Signature([*own[1:], *shared[:-1]])  # type: ignore[attr-defined]
    return update_wrapper(adapted, run)


def command(
    app: typer.Typer, name: str | None = None, **settings: Any
) -> Callable[[Callable[Concatenate[Console, ...], None]], Callable[..., None]]:
    """Return a decorator that adds a command, its shared options included, to an app."""
    return lambda run: app.command(name, **settings)(with_console(run))


def stopwatch() -> Callable[[], float]:
    """Return a function of the seconds since now."""
    start = time.monotonic()
    return lambda: time.monotonic() - start


def configure_logging() -> None:
    """Send the log of the process to stderr, readable at a terminal and else as JSON lines."""
    import structlog

    shown = (
        [_readable]
        if sys.stderr.isatty()
        else [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shown],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # the stream of the moment
        cache_logger_on_first_use=False,
    )


def _readable(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Return the line of an event: ``12.3s  text`` of progress, else of a task."""
    match event:
        case {"event": "progress", "seconds": seconds, "text": text}:
            return f"{seconds:7.1f}s  {text}"
        case {"event": "task_finished", "task": task, "seconds": seconds, "result": result}:
            return f"{task}: {result} ({seconds:.1f} s)"
        case {"event": "task_failed", "task": task, "error": error}:
            return f"{task}: failed: {error}"
        case {"event": "task_started", "task": task}:
            return f"{task}: started"
    fields = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
    return f"{event['event']} {fields}".rstrip()


def instant(text: str | None) -> AsOf:
    """Read an instant; without one it is now."""
    from pipeline.base import as_of

    return as_of(text or datetime.now(UTC))


def parse_past_instant(text: str | None) -> AsOf:
    """Read an instant that has come; without one it is now.

    A later one is refused, and so is one before `EARLIEST`.
    """
    from pipeline.base import format_instant
    from pipeline.data.validate.rules import EARLIEST

    at = instant(text)
    if at > datetime.now(UTC):
        raise ConfigError(
            "instant.future",
            f"{format_instant(at)} lies in the future: nobody has done anything then yet",
        )
    if at < EARLIEST:
        raise ConfigError(
            "instant.too_early",
            f"{format_instant(at)} lies before {EARLIEST:%Y}, from when on events are taken",
        )
    return at


def refuse_unwritable(out: Path | None) -> None:
    """Refuse a file that cannot be written, before minutes of work end there."""
    if out is None:
        return
    is_new = not out.exists()
    with storage_errors("storage.cannot_write", f"cannot write {out}"):
        out.open("ab").close()
    if is_new:
        out.unlink()


def write_out(out: Path | None, data: bytes) -> None:
    """Write a file that a command was asked for; raises `StorageError`."""
    if out is not None:
        with storage_errors("storage.cannot_write", f"cannot write {out}"):
            out.write_bytes(data)
