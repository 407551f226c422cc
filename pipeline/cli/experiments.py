"""What a person tries out on versions that are there: compare two, make one again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.terminal import Home, Json, fail, open_workspace, show, teller

app = typer.Typer()
_OUT = "The page's file; default: reports/ in the workspace."


@app.command()
def compare(
    v1: Annotated[int, typer.Argument(help="A version's number, as MLflow and `history` say.")],
    v2: Annotated[int, typer.Argument(help="Another one.")],
    out: Annotated[Path | None, typer.Option(help=_OUT)] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Lay two versions side by side: one page, also shown at both versions in MLflow."""
    from pipeline.steps.compare import compare as step

    found = step(open_workspace(home), v1, v2, out=out, progress=teller())
    show(found.to_dict(), json, found.text())
    if found.fault is not None:
        fail(f"the page is written, but not shown in MLflow: {found.fault}", found.exit_code)


@app.command()
def reproduce(
    version: Annotated[int, typer.Argument(help="A version's number.")],
    home: Home = None,
    json: Json = False,
) -> None:
    """Make a version again from its snapshot: the same bytes, or what differs and why."""
    from pipeline.steps.reproduce import reproduce as step

    found = step(open_workspace(home), version, progress=teller())
    show(found.to_dict(), json, found.text())
    raise typer.Exit(found.exit_code)
