"""What people did with lists, as rows: a table for a terminal, a section for a page.

Promises: nothing here is computed; a group of too few people is named with their number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.report import titles, wording
from pipeline.report.markup import cell, folded, lines, section, table
from pipeline.report.table import grid
from pipeline.report.watched import AnswerRow, AnswersTold

EVERYBODY = "all"
_INTERVAL = "95 % interval"
_HEAD = ("By", "Group", "People", "Exposures", "Answered", "CTR", _INTERVAL, "Conversion",
         _INTERVAL, "Revenue", "An exposure", _INTERVAL, "Returned", _INTERVAL)  # fmt: skip
_NONE = "–"
_ABOUT = (
    "Events joined to what we published, whatever they claim: each answers the last list, shown "
    "within the days before, that holds its item. An exposure is one entry of one list, shown to "
    "one person who was there, once a day; rates are shares of exposures that were answered on "
    "their day. Whoever looks and does nothing at all leaves no event and is in no figure. In "
    "brackets: 95 % intervals."
)


def answers_table(told: AnswersTold) -> str:
    """Return a line a group, then the notes."""
    body = [_texts(row) for row in told.rows]
    shown = grid([name.lower() for name in _HEAD], body) if body else "nothing was shown to anybody"
    return "\n".join((shown, "", *told.notes))


def answers_section(told: AnswersTold | None) -> str:
    """Write the part of a page; nothing where a night counted nothing."""
    if told is None or not told.rows:
        return ""
    first = [row for row in told.rows if row.by in (EVERYBODY, "version", "slot", "segment")]
    others = [row for row in told.rows if row not in first]
    return section(
        "What people did with what they were shown",
        _ABOUT,
        lines(told.notes),
        _table(first),
        folded("By publication, recipe and position", _table(others)),
    )


def _table(rows: Iterable[AnswerRow]) -> str:
    """An interval stands in brackets behind its figure: so many columns would fit no screen."""
    head = [name for name in _HEAD if name != _INTERVAL]
    return table(head, [("lead" if row.by == EVERYBODY else "", _cells(row)) for row in rows])


def _cells(row: AnswerRow) -> Sequence[str]:
    told: list[str] = []
    for name, text in zip(_HEAD, _texts(row), strict=True):
        if name != _INTERVAL:
            told.append(text)
        elif text != _NONE:
            told[-1] += f" ({text})"
    whole = [text.replace(" %", "\xa0%") for text in told]  # a line may end between figures alone
    return [cell(text, "name" if at == 1 else "") for at, text in enumerate(whole)]


def _texts(row: AnswerRow) -> tuple[str, ...]:
    return (
        row.by,
        row.name,
        f"{row.people:,}",
        wording.number(row.exposures),
        _share(row.answer_rate),
        _share(row.ctr),
        _interval(row.ctr_lo, row.ctr_hi),
        _share(row.conversion),
        _interval(row.conversion_lo, row.conversion_hi),
        _money(row.revenue),
        _money(row.revenue_per_exposure),
        _interval(row.revenue_per_exposure_lo, row.revenue_per_exposure_hi, _money),
        _share(row.return_rate),
        _interval(row.return_rate_lo, row.return_rate_hi),
    )


def _share(value: float | None) -> str:
    if value is None:
        return _NONE
    return titles.share(value) if value >= 0.01 or not value else f"{100 * value:.2g} %"


def _money(value: float | None) -> str:
    return _NONE if value is None else f"{value:,.2f}"


def _interval(
    lo: float | None, hi: float | None, form: Callable[[float | None], str] = _share
) -> str:
    return _NONE if lo is None or hi is None else f"{form(lo)} to {form(hi)}"
