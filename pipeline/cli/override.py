"""A person's word to the gate, kept in the ledger with name and reason."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import Home, Json, open_workspace, show

By = Annotated[str, typer.Option(help="Who says so; the ledger keeps it.")]
Reason = Annotated[str, typer.Option(help="Why; the ledger keeps it.")]


def accept(
    run: Annotated[
        str, typer.Argument(help="The run to accept, as `history` and its page name it.")
    ],
    by: By,
    reason: Reason,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Who goes live: the candidate in the grey zone (default, if there is one) or the "
            "champion's recipe."
        ),
    ] = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Accept what a night kept back, blocked, or left in the grey zone; then start it again."""
    from pipeline.base import format_instant
    from pipeline.steps.nightly.accept import accept_run

    entry = accept_run(open_workspace(home), run, by=by, reason=reason, recipe=recipe)
    again = f"nightjar nightly --as-of {format_instant(entry.as_of)}"
    show(entry, json, f"{entry.sentence}\nnext: `{again}` puts it before people")


def anchor(by: By, reason: Reason, home: Home = None, json: Json = False) -> None:
    """Set the champion's anchor to what it is worth now; later nights are held against that."""
    from pipeline.steps.nightly.accept import set_anchor

    entry = set_anchor(open_workspace(home), by=by, reason=reason)
    show(entry, json, entry.sentence)
