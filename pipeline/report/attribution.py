"""Attribution by group: a table for a terminal, a section for a page.

Guarantees: nothing here is computed; a group of too few people is named with their number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.base import to_the_second
from pipeline.monitoring.rates import EVERYBODY, Attribution, AttributionRow
from pipeline.report import wording
from pipeline.report.markup import folded, lines, section, table
from pipeline.report.table import grid

_INTERVAL = "95 % interval"
_HEAD = ("By", "Group", "People", "Exposures", "Answered", "CTR", _INTERVAL, "Conversion",
         _INTERVAL, "Revenue", "An exposure", _INTERVAL, "Returned", _INTERVAL)  # fmt: skip
_ABOUT = (
    "Events joined to what we published, whatever they claim: each answers the last list, shown "
    "within the days before, that holds its item. An exposure is one entry of one list, shown to "
    "one person who was there, once a day; rates are shares of exposures that were answered on "
    "their day. Whoever looks and does nothing at all leaves no event and is in no figure. In "
    "brackets: 95 % intervals."
)


def attribution_table(attribution: Attribution) -> str:
    """Return a line for each group, then the notes."""
    body = [_texts(row) for row in attribution.rows]
    shown = grid([name.lower() for name in _HEAD], body) if body else "nothing was shown to anybody"
    return "\n".join((shown, "", *_notes(attribution)))


def attribution_section(attribution: Attribution | None) -> str:
    """Write the section of a page; nothing where a run attributed nothing."""
    if attribution is None or not attribution.rows:
        return ""
    rows = attribution.rows
    first = [row for row in rows if row.by in (EVERYBODY, "version", "slot", "segment")]
    others = [row for row in rows if row not in first]
    return section(
        "What people did with what they were shown",
        _ABOUT,
        lines(_notes(attribution)),
        _table(first),
        folded("By publication, recipe and position", _table(others)),
    )


def _notes(attribution: Attribution) -> list[str]:
    """Return sentences about what was joined and what events claim."""
    start, end = to_the_second(attribution.span.start), to_the_second(attribution.span.end)
    notes = [
        f"{attribution.joined:,} of {attribution.events:,} events of {attribution.people:,} people "
        f"from {start} to {end} answer a list shown within {attribution.window_days} days"
    ]
    if attribution.late:
        notes.append(
            f"{attribution.late:,} of these answer a list shown on an earlier day and replaced "
            "since; they are in no rate"
        )
    if attribution.unshown:
        notes.append(f"{attribution.unshown:,} events are of people to whom nothing was shown then")
    claims = attribution.claims
    if claims.agree + claims.contradict + claims.unmatched:
        notes.append(
            f"of the lists that events claim to answer, {claims.agree:,} are those we joined, "
            f"{claims.contradict:,} are others, {claims.unmatched:,} were not shown"
        )
    return notes


def _table(rows: Iterable[AttributionRow]) -> str:
    """An interval stands in brackets behind its figure: so many columns would fit no screen."""
    head = [name for name in _HEAD if name != _INTERVAL]
    head[1] += "|name"
    return table(head, map(_cells, rows), lead=EVERYBODY)


def _cells(row: AttributionRow) -> Sequence[str]:
    texts: list[str] = []
    for name, text in zip(_HEAD, _texts(row), strict=True):
        if name != _INTERVAL:
            texts.append(text)
        elif text != wording.NONE:
            texts[-1] += f" ({text})"
    return [text.replace(" %", "\xa0%") for text in texts]  # a line may end between figures alone


def _texts(row: AttributionRow) -> tuple[str, ...]:
    return (
        row.by,
        row.name,
        f"{row.people:,}",
        wording.number(row.exposures),
        _share(row.answer_rate),
        _share(row.ctr),
        wording.span(row.ctr_lo, row.ctr_hi, _share),
        _share(row.conversion),
        wording.span(row.conversion_lo, row.conversion_hi, _share),
        wording.figure(row.revenue, ",.2f"),
        wording.figure(row.revenue_per_exposure, ",.2f"),
        wording.span(row.revenue_per_exposure_lo, row.revenue_per_exposure_hi, "{:,.2f}".format),
        _share(row.return_rate),
        wording.span(row.return_rate_lo, row.return_rate_hi, _share),
    )


def _share(value: float | None) -> str:
    """Write a small share with two digits."""
    if value is not None and 0 < value < 0.01:
        return f"{100 * value:.2g} %"
    return wording.share(value)
