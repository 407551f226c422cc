"""The parts of a page about the decision: rules, points, recipes, groups of people.

Promises: every rule is told, those that stopped the night first; a figure is drawn beside the table
that holds its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.report import titles, wording
from pipeline.report.markup import cards, cell, folded, lines, section, table, verdict
from pipeline.report.night import NightPage, RecipeRow, RuleRow, SliceRow

_CHECK = "check."
_SLICE = ".slice."
_RULES = ("Verdict", "Rule", "About", "Figure|n", "Bound|n", "")


def rules(night: NightPage) -> str:
    """Write the decision table: what was asked of whom, what was found, and how it ended.

    What concerns recipes that stay as they were, or groups of people that took no harm, opens at a
    click. Checks of the data have a part of their own; one that did not pass stands here too.
    """
    rows = [row for row in night.rules if not (row.name.startswith(_CHECK) and _passed(row))]
    rows.sort(key=lambda row: not wording.stops(night.kind, row))
    small = [row for row in rows if _SLICE in row.name and row.verdict != wording.FAILED]
    others = [row for row in rows if row not in small and _aside(night, row)]
    first = [row for row in rows if row not in small and row not in others]
    about = "Every rule, with what was measured and what is allowed" + (
        "; what stopped the night stands first." if night.kind == "block" else "."
    )
    return section(
        "What the gate asked",
        about,
        _rules(night.kind, first),
        folded(f"On recipes that stay as they were: {_count(others)}", _rules(night.kind, others)),
        folded(f"On groups of people: {_count(small)}", _rules(night.kind, small)),
    )


def accounts(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write where each candidate stands on its way to a switch, and what that can be trusted."""
    if not (night.accounts or night.trust):
        return ""
    rows = sorted(night.accounts, key=lambda row: (-row.points, row.recipe))
    about = (
        "A candidate gathers points on each fresh block of days against the champion. One that is "
        "not better reaches the threshold with a chance below the gate's alpha, however often "
        "anybody looks."
    )
    told = lines(titles.account_line(row) for row in rows)
    trust = night.trust or (
        "How often this gate is wrong on these data was not measured yet: `nightjar gate "
        "calibrate` does that."
    )
    return section(
        "Points on the way to a switch",
        about,
        cards(pictures, "accounts.svg", beside=told),
        f"<p>{escape(trust)}</p>",
    )


def recipes(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what each recipe reached tonight, and the champion night by night."""
    label = wording.metric_label(night.metric)
    rows = sorted(night.recipes, key=lambda row: (row.mean is None, -(row.mean or 0), row.name))
    body = [
        ("lead" if row.name == night.winner else "", _recipe_cells(row, night.winner))
        for row in rows
    ]
    about = (
        "Each recipe learnt from the days before the holdout and was judged by the holdout. "
        f"{label} is 1 if everything a person went for stood at the top of their list."
    )
    chosen = lines(f"{name}: {told}" for name, told in night.chosen)
    return section(
        "How good the recipes are",
        about,
        cards(pictures, "recipes.svg", "lifts.svg", "metric.svg", "lift.svg"),
        table(("Recipe", "Role", f"{label}|n", "95 % interval|n"), body),
        f"<h3>What earlier weeks chose</h3>{chosen}" if chosen else "",
    )


def groups(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the challenger's lift in each group of people."""
    if not (night.slices and night.challenger and night.against):
        return ""
    head = (
        "Group", "People|n", f"{night.challenger}|n", f"{night.against}|n", "Lift|n",
        "95 % interval|n", "",
    )  # fmt: skip
    return section(
        "Groups of people",
        "A mean can hide a group that loses. Small groups are shown, not judged.",
        cards(pictures, "slices.svg"),
        folded("In numbers", table(head, [("", _slice_cells(row)) for row in night.slices])),
    )


def _rules(kind: str, rows: Sequence[RuleRow]) -> str:
    return table(_RULES, [("", _rule_cells(kind, row)) for row in rows])


def _aside(night: NightPage, row: RuleRow) -> bool:
    """Whether a rule is about a recipe that neither went live nor had any part in a block."""
    return row.subject not in ("", night.winner) and not wording.stops(night.kind, row)


def _count(rows: Sequence[RuleRow]) -> str:
    """Count rules by how they ended."""
    passed = sum(_passed(row) for row in rows)
    failed = sum(row.verdict == wording.FAILED for row in rows)
    parts = ((passed, "passed"), (failed, "not met"), (len(rows) - passed - failed, "not judged"))
    return ", ".join(f"{n} {word}" for n, word in parts if n)


def _passed(row: RuleRow) -> bool:
    return row.verdict == wording.PASSED


def _rule_cells(kind: str, row: RuleRow) -> tuple[str, ...]:
    refused = row.verdict == wording.FAILED and not wording.stops(kind, row)
    return (
        verdict("not met" if refused else row.verdict),
        cell(wording.plain(row.name)),
        cell(row.subject, "w"),
        cell(wording.number(row.figure), "n"),
        cell(wording.number(row.bound), "n"),
        cell(row.sentence, "wholly"),
    )


def _recipe_cells(row: RecipeRow, winner: str | None) -> tuple[str, ...]:
    name = cell(row.name + (" (live now)" if row.name == winner else ""), "name")
    if row.mean is None:
        failed = cell(row.failure or "not judged").replace("<td", "<td colspan=2", 1)
        return (name, cell(row.role), failed)
    interval = "–" if row.lo is None or row.hi is None else f"{row.lo:.4f} to {row.hi:.4f}"
    return (name, cell(row.role), cell(f"{row.mean:.4f}", "n"), cell(interval, "n"))


def _slice_cells(row: SliceRow) -> tuple[str, ...]:
    interval = "–"
    if row.lo is not None and row.hi is not None:
        interval = f"{wording.change(row.lo)} to {wording.change(row.hi)}"
    return (
        cell(wording.plain(row.name), "name"),
        cell(wording.number(row.users), "n"),
        cell(f"{row.candidate:.4f}", "n"),
        cell(f"{row.champion:.4f}", "n"),
        cell("n/a" if row.lift is None else wording.change(row.lift), "n"),
        cell(interval, "n"),
        cell(f"○ {row.underpowered}" if row.underpowered else "", "wholly"),
    )
