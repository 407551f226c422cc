"""Tables for a terminal: nightly runs of the demo, recommendation lists, the ledger.

Guarantees: control and escape characters of the data are shown as text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline import columns as c
from pipeline.base import Instant, Interval, format_instant
from pipeline.errors import printable
from pipeline.evaluation.gate.decision import Kind
from pipeline.number_text import change
from pipeline.report.headline import Headline
from pipeline.workspace.ledger import DecisionEntry, Entry, PatchEntry, PublicationEntry, StepEntry

_WIDTH: Final = 100
# textwrap breaks lines at ASCII whitespace only.
_TIED: Final = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class NightRecipe:
    """A recipe of a nightly run: its mean with the 95 % interval, and its lift."""

    name: str
    mean: float
    lo: float
    hi: float
    lift: float | None


@dataclass(frozen=True)
class NightSummary:
    """A nightly run of the demo.

    Attributes
    ----------
    recipe
        The champion's recipe after the run.
    days
        Evaluated days: the holdout.
    against
        Recipe that the lifts are over.
    users
        Number of evaluated users.
    headline
        Result of the run in two plain sentences.
    recipes
        Best first.
    gpu_causes
        Reasons for which recipes were trained on the CPU of a machine with a GPU.
    """

    as_of: Instant
    run_id: str
    decision: Kind
    recipe: str | None
    days: Interval
    against: str
    headline: Headline
    sentence: str
    reasons: tuple[str, ...]
    users: int
    recipes: tuple[NightRecipe, ...]
    gpu_causes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoSummary:
    """The nightly runs of the demo, and commands that show more."""

    metric: str
    nights: tuple[NightSummary, ...]
    look: Mapping[str, str]


def nights_table(summary: DemoSummary) -> str:
    """Return metrics, headline and reasons of each run, and the commands that show more."""
    header = ["as-of", "decision", "days evaluated", "recipe", summary.metric]
    header += ["95 % interval", "lift", "over"]
    rows: list[Sequence[str]] = []
    for night in summary.nights:
        # Shown in the first line of a run only.
        head: tuple[str, ...] = (
            f"{night.as_of:%Y-%m-%d}",
            night.decision,
            f"{night.days.length.days} from {night.days.start:%m-%d}",
        )
        for row in night.recipes:
            lift = ("", "") if row.lift is None else (change(row.lift), night.against)
            interval = f"{row.lo:.4f} to {row.hi:.4f}"
            rows.append((*head, row.name, f"{row.mean:.4f}", interval, *lift))
            head = ("", "", "")
    lines = [grid(header, rows)]
    for night in summary.nights:
        lines += ["", _beside(f"{night.as_of:%Y-%m-%d}  ", night.headline.text)]
        lines += [_beside(f"{'':12}- ", reason) for reason in night.reasons or (night.sentence,)]
        lines += [_beside(f"{'':12}- ", f"GPU not used: {cause}") for cause in night.gpu_causes]
    lines += ["", *(f"{name:<9} {where}" for name, where in summary.look.items())]
    return "\n".join(lines)


def lists_table(rows: Iterable[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Return recommendation lists, one entry per line.

    Parameters
    ----------
    rows
        Rows of `columns.RECOMMENDATIONS`.
    titles
        Titles by item id; an item without one gets "".
    """
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


def history_table(entries: Sequence[Entry]) -> str:
    """Return the ledger, one entry below the other, with as-of and type; no entries of steps.

    A line with the run id follows a decision that published nothing: `nightjar gate accept` needs
    it.
    """
    lines = []
    published = {entry.run_id for entry in entries if isinstance(entry, PublicationEntry)}
    for entry in entries:
        text = _text(entry)
        if text is None:
            continue
        head = f"{format_instant(entry.as_of)}  {entry.type:<11}  "
        lines.append(_beside(head, text))
        if isinstance(entry, DecisionEntry) and entry.run_id not in published:
            lines.append(f"{'':{len(head)}}run {entry.run_id}")
    return "\n".join(lines) or "the ledger has no entries yet"


def _text(entry: Entry) -> str | None:
    match entry:
        case StepEntry():
            return None  # a checksum that `publish` compares
        case PublicationEntry():
            return (
                f"generation {entry.generation}: {entry.name}, version {entry.model_version}, "
                f"publication {entry.publication_id}"
            )
        case PatchEntry():
            return (
                f"generation {entry.generation}: lists folded into {entry.base}, publication "
                f"{entry.publication_id}"
            )
        case _:
            return entry.sentence


def _beside(head: str, text: str) -> str:
    """Wrap a text beside its head; a line never breaks between a number and its percent sign."""
    filled = textwrap.fill(
        text.replace(" %", f"{_TIED}%"),
        _WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace(_TIED, " ")


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns; characters that are not printable are escaped.

    Parameters
    ----------
    header, rows
        Cells; all rows are as long as the header.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))

    rule = "  ".join("-" * width for width in widths)
    return "\n".join(text.rstrip() for text in (line(header), rule, *map(line, rows)))
