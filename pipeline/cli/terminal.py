"""Shared options of commands, and their output.

Guarantees:

* With ``--json`` stdout contains one JSON object and nothing else.
* What is printed has no control or format characters except line feeds, so that no name or value
  of a file can steer a terminal.
* Progress and log lines go to stderr: text at a terminal, otherwise one JSON object per line.
* The clock is read here and, for the instant of a publication, in `steps`; nowhere else.
"""

from __future__ import annotations

import inspect
import json as json_module
import logging
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import chdir
from datetime import UTC, datetime
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, NoReturn

import typer

from pipeline.errors import ConfigError, printable

if TYPE_CHECKING:
    from pipeline.base import AsOf, Progress
    from pipeline.workspace.workspace import Workspace

Home = Annotated[
    Path | None,
    typer.Option(help="Workspace; default: the environment variable NIGHTJAR_HOME, then ./var."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors, no progress.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Print every progress text, instead of one per 10 seconds."
    ),
]
_SHARED: Final = {
    name: inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
    for name, default, annotation in (
        ("home", None, Home),
        ("json", False, Json),
        ("quiet", False, Quiet),
        ("verbose", False, Verbose),
    )
}
"""Options that all commands share."""
_RUN = typer.Option("--run", help="Run id, as printed by `nightly` or `snapshot`.")
RunId = Annotated[str, _RUN]
RunIdIfAny = Annotated[str | None, _RUN]
AsOfText = Annotated[
    str, typer.Option("--as-of", help="Instant that bounds all data: 2017-12-29T09:00:00Z.")
]
LastAsOf = Annotated[
    str | None, typer.Option("--as-of", help="As for `nightly`; default: that of the last run.")
]
Recipes = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="Train only this recipe; repeat the option for several."),
]
Publish = Annotated[bool, typer.Option(help="Publish the lists of a promoted recipe.")]
At = Annotated[
    str | None, typer.Option("--at", help="Instant at which the data arrived; default: now.")
]
KnownAt = Annotated[
    str | None, typer.Option("--at", help="Instant that bounds the data; default: now.")
]


def fail(sentence: str, code: int) -> NoReturn:
    """Print an error and exit.

    Parameters
    ----------
    sentence
        Message for stderr.
    code
        Exit code.
    """
    print(f"nightjar: {sentence}", file=sys.stderr)
    sys.exit(code)


def flush_stdout() -> None:
    """Write what is left of the output; exit with code 6 if stdout cannot be written.

    A reader that has ended, such as `head`, does not count as an error.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _drop_after(error)


def _print(text: str) -> None:
    """Print a result, as `flush_stdout`."""
    try:
        print(text)
    except OSError as error:
        _drop_after(error)


def drop_stdout() -> None:
    """Send further output nowhere."""
    # The interpreter would try again when it ends, and print a traceback.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _drop_after(error: OSError) -> None:
    """Send further output nowhere, and exit unless only the reader has ended."""
    from pipeline.stores.disk import fault_text

    drop_stdout()
    if not isinstance(error, BrokenPipeError):
        fail(f"cannot write the result to stdout: {fault_text(error)}", 6)


class Console:
    """Shared options of a command, and its output.

    Attributes
    ----------
    home
        Value of ``--home``.
    folder
        Absolute path of the workspace, which may not exist yet.
    json
        Value of ``--json``.
    has_options
        Whether the command was given an option that all commands share.
    """

    def __init__(
        self, home: Path | None, json: bool, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.home = home
        self.folder = (home or Path(os.environ.get("NIGHTJAR_HOME") or "var")).absolute()
        self.json = json
        self.has_options = home is not None or json or quiet or verbose
        configure_logging(quiet=quiet, verbose=verbose)

    @property
    def workspace(self) -> Workspace:
        """The workspace, opened."""
        from pipeline.workspace.workspace import Workspace

        return Workspace.open(self.folder)

    @cached_property
    def progress(self) -> Progress:
        """Progress that logs at most one text per 10 seconds, with the seconds since first use."""
        import structlog

        from pipeline.workspace.task_log import PROGRESS_SECONDS, at_most_every

        elapsed, log = stopwatch(), structlog.get_logger("nightjar")

        def show_progress(text: str) -> None:
            log.info("progress", seconds=round(elapsed(), 1), text=text)

        return at_most_every(PROGRESS_SECONDS, show_progress)

    def show(self, result: object, text: str, exit_code: int = 0) -> None:
        """Print the result of a command, and exit unless the code is 0.

        Parameters
        ----------
        result
            Printed as JSON with ``--json``.
        text
            Printed without ``--json``.
        exit_code
            Code of the process.
        """
        from pipeline.base import plain

        if self.json:
            _print(_escaped(json_module.dumps(plain(result), ensure_ascii=False)))
        else:
            _print("\n".join(map(printable, text.split("\n"))))
        if exit_code:
            raise typer.Exit(exit_code)


def _escaped(text: str) -> str:
    """Escape unprintable characters of JSON; `json` itself leaves U+009B and U+202E as they are."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json_module.dumps(char)[1:-1] for char in text)


def with_console(run: Callable[Concatenate[Console, ...], None]) -> Callable[..., None]:
    """Turn a function of a `Console` into a command with the options that all commands share.

    The command makes the console from ``--home`` and ``--json``, and passes its own options on. It
    runs in the folder of child processes: libraries read code and settings from the current folder,
    into which other users may write.
    """

    def adapted(**options: Any) -> None:
        from pipeline.workspace.child_process import CHILD_FOLDER

        console = Console(**{name: options.pop(name) for name in _SHARED})
        options = {name: _absolute(value) for name, value in options.items()}
        with chdir(CHILD_FOLDER):
            run(console, **options)

    own = list(inspect.signature(run, eval_str=True).parameters.values())
    update_wrapper(adapted, run)
    # Typer reads options from the signature, so this one has those of both. It also evaluates
    # annotations, which are text and take a third of the time of `--help`: here are none.
    adapted.__signature__ = inspect.Signature([*own[1:], *_SHARED.values()])  # type: ignore[attr-defined]
    adapted.__annotations__ = {}
    return adapted


def _absolute(value: Any) -> Any:
    """Return the value of an option, with absolute paths."""
    if isinstance(value, list):
        return [_absolute(one) for one in value]
    # Not resolved: a link on the command line stays a link, which `ingest` refuses.
    return value.absolute() if isinstance(value, Path) else value


def command(
    app: typer.Typer, name: str | None = None, *, examples: str = "", **settings: Any
) -> Callable[[Callable[Concatenate[Console, ...], None]], Callable[..., None]]:
    """Return a decorator that adds a command with the shared options to an app.

    Parameters
    ----------
    app
        App of the command.
    name
        Name of the command; default: that of the function.
    examples
        Lines at the end of its help.
    settings
        Further arguments of Typer's `command`.
    """
    return lambda run: app.command(name, epilog=epilog(examples), **settings)(with_console(run))


def epilog(examples: str) -> str | None:
    """Return the end of a help text with examples, one a line; none for an empty text."""
    # The sign \b keeps the lines as they are.
    lines = "".join(f"\n  {line.strip()}" for line in examples.strip().splitlines())
    return f"\b\nExamples:{lines}" if lines else None


def stopwatch() -> Callable[[], float]:
    """Return a function that returns the seconds since this call."""
    start = time.monotonic()
    return lambda: time.monotonic() - start


def configure_logging(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send log lines to stderr, as text at a terminal and otherwise as JSON.

    Parameters
    ----------
    quiet
        Only warnings and errors.
    verbose
        Also progress texts that follow another one within 10 seconds.

    Raises
    ------
    ConfigError
        ``usage.quiet_and_verbose``
    """
    import structlog

    if quiet and verbose:
        raise ConfigError(
            "usage.quiet_and_verbose", "--quiet and --verbose exclude each other; remove one"
        )
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO

    shown = (
        [_readable]
        if sys.stderr.isatty()
        else [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_json_line),
        ]
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shown],
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # stderr may be replaced later
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _json_line(event: dict[str, Any], **options: Any) -> str:
    return _escaped(json_module.dumps(event, ensure_ascii=False, **options))


def _readable(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Return the text of an event: ``12.3s  text`` for progress."""
    match event:
        case {"event": "progress", "seconds": seconds, "text": text}:
            return f"{seconds:7.1f}s  {text}"
        case {"event": "progress", "text": text}:
            return f"{'':10}{text}"
        case {"event": "task_finished", "task": task, "seconds": seconds, "result": result}:
            return f"{task}: {result} ({seconds:.1f} s)"
        case {"event": "task_failed", "task": task, "error": error}:
            return f"{task}: failed: {error}"
        case {"event": "waiting_for_lock", "lock": lock, "holder": holder}:
            return f"waiting for {lock}, which process {holder} holds"
        case {"event": "task_started", "task": task}:
            return f"{task}: started"
    fields = " ".join(f"{name}={value}" for name, value in event.items() if name != "event")
    return f"{event['event']} {fields}".rstrip()


def instant(text: str | None) -> AsOf:
    """Parse an instant; the default is now."""
    from pipeline.base import as_of

    return as_of(text or datetime.now(UTC))


def parse_past_instant(text: str | None) -> AsOf:
    """Parse an instant between `EARLIEST` and now; the default is now.

    Raises
    ------
    ConfigError
        ``instant.future``, ``instant.too_early``
    """
    from pipeline.base import format_instant
    from pipeline.data.validate.rules import EARLIEST

    at = instant(text)
    # A run of the future would lack events that are still to come, and no run of an earlier as-of
    # could publish after it.
    if at > datetime.now(UTC):
        raise ConfigError(
            "instant.future",
            f"the instant must not be in the future: {format_instant(at)}; use an earlier one",
        )
    if at < EARLIEST:
        raise ConfigError(
            "instant.too_early",
            f"the instant must not be before {EARLIEST:%Y}: {format_instant(at)}; use a later one",
        )
    return at


def refuse_unwritable(out: Path | None) -> None:
    """Raise ``storage.cannot_write`` for an unusable file, before minutes of work."""
    from pipeline.workspace.permissions import require_writable

    if out is not None:
        require_writable(out)


def write_out(out: Path | None, data: bytes) -> None:
    """Write the file of an option, readable by its owner only.

    Parameters
    ----------
    out
        File; nothing happens for None.
    data
        Its content.

    Raises
    ------
    StorageError
        ``storage.cannot_write``
    """
    from pipeline.workspace.permissions import open_export

    if out is not None:
        with open_export(out) as file:
            file.write(data)
