"""Attribution by group: a table for a terminal, tables for a page.

Guarantees: nothing is computed here; a group below the minimum size shows only its number of users.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.base import to_the_second
from pipeline.monitoring.rates import (
    ALL_USERS,
    MIN_EFFECTIVE_USERS,
    Attribution,
    AttributionRow,
    ShownEffect,
)
from pipeline.monitoring.shown_effect import EDGE
from pipeline.report import wording
from pipeline.report.markup import Table
from pipeline.report.table import grid

_HEAD = ("By", "Group|name", "Users", "Exposures", "Response rate", "CTR", "Visitor hit rate",
         "Revenue", "Revenue per exposure", "Return rate")  # fmt: skip
# Publications, recipes and positions may be hundreds of rows: they are folded.
_FIRST = (ALL_USERS, "version", "slot", "segment")
ABOUT = (
    "Attribution joins each event to the newest list within the attribution window that holds its "
    "item, whatever the event claims. An exposure is one entry of a list that was live for an "
    "active user, counted once a day; rates are shares of exposures with a response on their "
    "day. A user without events is not counted. In brackets: 95 % intervals; a group whose "
    f"effective number of users is below {MIN_EFFECTIVE_USERS} has only counts. The visitor hit "
    "rate is not the effect of the lists: visitors buy listed items without them, too."
)


def attribution_table(attribution: Attribution) -> str:
    """Return a line for each group, then the notes."""
    head = [title.removesuffix("|name").lower() for title in _HEAD]
    body = [_cells(row) for row in attribution.rows]
    shown = grid(head, body) if body else "No list was live for a user with events"
    return "\n".join((shown, "", *attribution_notes(attribution)))


def attribution_tables(attribution: Attribution) -> tuple[Table, Table]:
    """Return the table of all users and the main groups, and that of the other groups."""
    first = [_cells(row) for row in attribution.rows if row.by in _FIRST]
    others = [_cells(row) for row in attribution.rows if row.by not in _FIRST]
    return Table(_HEAD, first, lead=ALL_USERS), Table(_HEAD, others)


def attribution_notes(attribution: Attribution) -> list[str]:
    """Return sentences about joined events and claimed lists."""
    start, end = to_the_second(attribution.span.start), to_the_second(attribution.span.end)
    notes = [
        f"{attribution.joined:,} of {attribution.events:,} events of {attribution.users:,} users "
        f"from {start} to {end} responded to a list that was live within "
        f"{attribution.window_days} days"
    ]
    if attribution.late:
        notes.append(
            f"{attribution.late:,} of these responded to a list that was replaced on an earlier "
            "day; they count in no rate"
        )
    if attribution.unshown:
        notes.append(f"{attribution.unshown:,} events are of users without a live list")
    # Without a list for any user no rate is shown either.
    if attribution.rows:
        notes += [_effect(effect) for effect in attribution.shown_effects] or [
            "No list has spare entries, so the effect of showing an item is not measured"
        ]
    # Claims are optional columns of events.
    claims = attribution.claims
    if claims.agree + claims.contradict + claims.unmatched:
        notes.append(
            f"Lists that events claim: {claims.agree:,} equal the joined list, "
            f"{claims.contradict:,} are other lists, {claims.unmatched:,} without a joined list"
        )
    return notes


def _effect(effect: ShownEffect) -> str:
    """Return a sentence about the effect of showing an item on a rate."""
    name = effect.rate.replace("_", " ")
    if effect.added is None:
        return (
            f"The effect of showing an item on the {name} needs {MIN_EFFECTIVE_USERS} effective "
            f"users; {effect.users:,} users saw a list with spare entries"
        )
    points = (
        None if value is None else 100 * value
        for value in (effect.added, effect.added_lo, effect.added_hi)
    )
    return (
        f"Showing an item adds {wording.estimate(*points, least=1)} percentage points to its "
        f"{name}: {wording.share(effect.shown)} in the last {EDGE} shown positions, "
        f"{wording.share(effect.spare)} in the first {EDGE} spare ones, {effect.users:,} users"
    )


def _cells(row: AttributionRow) -> tuple[str, ...]:
    return (
        row.by,
        row.name,
        f"{row.users:,}",
        wording.number(row.exposures),
        wording.share(row.response_rate),
        _rate(row, "ctr"),
        _rate(row, "visitor_hit_rate"),
        wording.figure(row.revenue, ",.2f"),
        wording.estimate(*_with_ends(row, "revenue_per_exposure"), least=2),
        _rate(row, "return_rate"),
    )


def _with_ends(row: AttributionRow, rate: str) -> Iterator[float | None]:
    return (getattr(row, f"{rate}{end}") for end in ("", "_lo", "_hi"))


def _rate(row: AttributionRow, rate: str) -> str:
    percent = (None if value is None else 100 * value for value in _with_ends(row, rate))
    return wording.estimate(*percent, least=1, unit=" %")
