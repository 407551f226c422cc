"""What all commands share: their options, and how they talk.

Promises: with ``--json`` stdout holds one JSON object and nothing else; progress goes to stderr.
The clock is read here, and in `steps` once a publication or a pass that may make one (when it went
live); nowhere else.
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
    from pipeline.workspace.workspace import Workspace

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


def fail(sentence: str, code: int) -> NoReturn:
    """Say on stderr why it ends, and end."""
    print(f"nightjar: {sentence}", file=sys.stderr)
    sys.exit(code)


def home_of(home: Path | None) -> Path:
    """Return where the workspace is, or would be."""
    return home or Path(os.environ.get("NIGHTJAR_HOME") or "var")


def open_workspace(home: Path | None) -> Workspace:
    """Open the workspace."""
    from pipeline.workspace.workspace import Workspace

    return Workspace.open(home_of(home))


def teller() -> Callable[[str], None]:
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


def instant(text: str | None) -> datetime:
    """Read an instant; without one it is now."""
    from pipeline.base import parse_instant

    return parse_instant(text) if text else datetime.now(UTC)


def past(text: str | None) -> datetime:
    """Read an instant that has come; without one it is now.

    A later one is refused, and so is one before `EARLIEST`.
    """
    from pipeline.base import format_instant
    from pipeline.data.validate.rules import EARLIEST
    from pipeline.errors import ConfigError

    found, now = instant(text), datetime.now(UTC)
    if found > now:
        raise ConfigError(
            f"{format_instant(found)} lies in the future: nobody has done anything then yet"
        )
    if found < EARLIEST:
        raise ConfigError(
            f"{format_instant(found)} lies before {EARLIEST:%Y}, from when on events are taken"
        )
    return found


def refuse_unwritable(out: Path | None) -> None:
    """Refuse a file that cannot be written, before minutes of work end there."""
    from pipeline.errors import StorageError

    if out is None:
        return
    there = out.exists()
    try:
        out.open("ab").close()
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from error
    if not there:
        out.unlink()


def show(value: dict[str, Any], as_json: bool, text: str) -> None:
    """Print what a command found, as JSON or as text."""
    print(json_module.dumps(value, ensure_ascii=False, default=str) if as_json else text)
