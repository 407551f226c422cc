"""A person's word in the ledger: a decision that somebody changed, an anchor that somebody set.

Promises: a line says who and why; the same word twice is one line, and another word after it is
refused; a night can be accepted while nothing of it is live and its champion still reigns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base import format_instant, parse_instant
from pipeline.errors import ConfigError, GateError
from pipeline.evaluation.gate import Decision, accept, offers
from pipeline.evaluation.gate.accept import anchor_from
from pipeline.steps.nightly.gate import past_of
from pipeline.workspace.history import ACCEPTANCE, ANCHOR, DECISION, published
from pipeline.workspace.night import ACCEPT, Night, open_night
from pipeline.workspace.workspace import Workspace


def accept_run(
    ws: Workspace, run_id: str, *, by: str, because: str, recipe: str | None = None
) -> dict[str, Any]:
    """Accept what a night kept back, blocked, or left in the grey zone; returns the ledger's line.

    The night then goes on where it stopped: start it again.

    Raises
    ------
    ConfigError
        The run has not decided, is a replay, has gone on, another champion reigns, somebody has
        said something else already; or nobody is named.
    GateError
        There is nothing to accept, or it was never judged.
    """
    _named(by, because)
    night = open_night(ws, run_id)
    run = night.run
    if run.committed(ACCEPT) is None:
        refuse_gone_on(ws, night)
        found = Decision.from_dict(run.json("gate", "decision"))
        changed = accept(found, past_of(ws, night), by=by, because=because, recipe=recipe)
        with run.draft(ACCEPT) as draft:
            draft.json("decision", changed.to_dict())
            draft.json("word", {"by": by, "because": because})
            draft.rows = len(changed.rules)
    decision, word = run.json(ACCEPT, "decision"), run.json(ACCEPT, "word")
    _same(word, by, because)
    return ws.ledger.append(
        f"{ACCEPTANCE}:{run_id}",
        ACCEPTANCE,
        {
            "run_id": run_id,
            "as_of": format_instant(night.as_of),
            "kind": decision["kind"],
            "recipe": decision["recipe"],
            "sentence": decision["sentence"],
            "decision": decision,
            **word,
        },
    )


def offered(ws: Workspace, night: Night) -> tuple[str, ...]:
    """Return the recipes that `accept_run` would put live if it were called now."""
    try:
        refuse_gone_on(ws, night)
    except ConfigError:
        return ()
    said = night.run.committed(ACCEPT) is not None
    return () if said else offers(Decision.from_dict(night.run.json("gate", "decision")))


def anchor_now(ws: Workspace, *, by: str, because: str) -> dict[str, Any]:
    """Set the champion's anchor to the baseline ratio of its last blocks; returns the line.

    Raises `ConfigError` where there is no champion, and `GateError` where no block judged it.
    """
    _named(by, because)
    entries = ws.ledger.entries()
    nights = [entry for entry in entries if entry["type"] == DECISION]
    if not nights:
        raise ConfigError("no night has decided anything yet: there is no champion to anchor")
    newest = max(nights, key=lambda entry: parse_instant(entry["as_of"]))
    night = open_night(ws, newest["run_id"])
    live = published(entries)
    if not live:
        raise ConfigError("nothing is live yet: there is no champion to anchor")
    recipe_hash = live[-1].recipe.hash
    decision = Decision.from_dict(newest["decision"])
    found = anchor_from(decision, past_of(ws, night), recipe_hash)
    if found is None:
        raise GateError(f"no block has judged {live[-1].name} against a baseline")
    line = ws.ledger.append(
        f"{ANCHOR}:{night.run.run_id}:{recipe_hash}",
        ANCHOR,
        {
            "as_of": format_instant(night.as_of),
            "task": newest["task"],
            "recipe": live[-1].name,
            "anchor": vars(found),
            "by": by,
            "because": because,
            "sentence": f"anchor of {live[-1].name} set to {found.ratio:.3f} "
            f"({found.blocks} blocks) by {by}: {because}",
        },
    )
    _same(line, by, because)
    return line


def _same(word: Mapping[str, Any], by: str, because: str) -> None:
    if (word["by"], word["because"]) != (by, because):
        raise ConfigError(f"{word['by']} has said so already: {word['because']}")


def _named(by: str, because: str) -> None:
    for name, text in (("--by", by), ("--because", because)):
        if not text.strip():
            raise ConfigError(f"{name} is empty: the ledger keeps who decided, and why")
        if not text.isprintable():  # nothing may pose as a line of its own
            raise ConfigError(f"{name} holds what cannot be printed; write one line of text")


def refuse_gone_on(ws: Workspace, night: Night) -> None:
    """Raise `ConfigError` where nobody can change what a night decided any more, and why."""
    run = night.run
    if run.committed("gate") is None:
        raise ConfigError(f"run {run.run_id} has decided nothing yet")
    if night.replay:
        raise ConfigError(f"run {run.run_id} is a replay, which moves nothing")
    if run.committed("refit") is not None:
        raise ConfigError(f"run {run.run_id} has gone on: what it decided is trained already")
    live = published(ws.ledger.entries())[-1:]
    before = night.champion.run_id if night.champion is not None else None
    if live and live[-1].run_id != before:
        raise ConfigError(
            f"the night of {format_instant(live[-1].as_of)} is live by now: run {run.run_id} was "
            "judged against the champion before it"
        )
