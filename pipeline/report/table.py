"""Nights and ledger lines as plain text for a terminal: what was decided, on which figures, why."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline import columns as c

_WIDTH: Final = 100
_TIED: Final = "\N{NO-BREAK SPACE}"


def nights_table(told: Mapping[str, Any]) -> str:
    """Return the demo's nights: decision, metrics of who competed, the sentence, where to look."""
    metric = told["metric"]
    header = ("as-of", "decision", "champion's recipe", "recipe", metric, "95 % interval", "lift")
    rows: list[Sequence[str]] = []
    for night in told["nights"]:
        for number, row in enumerate(night["recipes"]):
            first = number == 0
            rows.append(
                (
                    night["as_of"][:10] if first else "",
                    night["decision"] if first else "",
                    night["recipe"] if first else "",
                    row["name"],
                    f"{row['mean']:.4f}",
                    f"{row['lo']:.4f} to {row['hi']:.4f}",
                    "reference" if row["lift"] is None else f"{row['lift']:+.1%}",
                )
            )
    lines = [grid(header, rows), ""]
    for night in told["nights"]:
        reasons = night["reasons"] or [night["sentence"]]
        lines.append(f"{night['as_of'][:10]}  {night['decision']}: {reasons[0]}")
        lines += [f"{'':10}  {reason}" for reason in reasons[1:]]
    lines += ["", *(f"{name:<9} {where}" for name, where in told["look"].items())]
    return "\n".join(lines)


def lists_table(rows: Iterable[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Return lists, a line an entry; the title where the catalogue has one."""
    header = ("user", "", "item", "title", "score", "slot", "reason")
    return grid(
        header,
        [
            (
                row[c.USER_ID],
                str(row[c.POSITION]),
                row[c.ITEM_ID],
                titles.get(row[c.ITEM_ID], ""),
                f"{row[c.SCORE]:.4g}",
                row[c.SLOT],
                row[c.REASON],
            )
            for row in rows
        ],
    )


def history_table(entries: Iterable[Mapping[str, Any]]) -> str:
    """Return the ledger, an entry below the other, its words beside its instant and type.

    A publication names its night's run; a night without one names it in a line of its own, as
    `nightjar gate accept` wants it.
    """
    lines, entries = [], list(entries)
    shown = {entry["run_id"] for entry in entries if entry["type"] == "publication"}
    for entry in entries:
        if entry["type"] == "publication":
            told = (
                f"generation {entry['generation']}: {entry['name']}, version "
                f"{entry['model_version']}, publication {entry['publication_id']}"
            )
        elif entry["type"] == "patch":
            told = (
                f"generation {entry['generation']}: lists folded into {entry['base']}, publication "
                f"{entry['publication_id']}"
            )
        else:
            told = str(entry["sentence"])
        head = f"{entry['as_of']}  {entry['type']:<11}  "
        lines.append(_beside(head, told))
        if entry["type"] == "decision" and entry["run_id"] not in shown:
            lines.append(f"{'':{len(head)}}run {entry['run_id']}")
    return "\n".join(lines) or "nothing has been decided yet"


def _beside(head: str, text: str) -> str:
    """Write a text beside its head, line below line; no figure is parted from its percent."""
    told = textwrap.fill(
        text.replace(" %", f"{_TIED}%"),
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return told.replace(_TIED, " ")


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows below their header, columns as wide as they need be."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))

    rule = "  ".join("-" * width for width in widths)
    return "\n".join(text.rstrip() for text in (line(header), rule, *map(line, rows)))
