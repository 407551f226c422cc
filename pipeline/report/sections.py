"""Tables of a page about the decision: rules, e-values, recipes, user groups.

Guarantees: every rule is in a table, the causes of a block first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from pipeline.evaluation.gate.decision import RuleResult
from pipeline.number_text import change
from pipeline.report import wording
from pipeline.report.markup import Cell, Row, Table, verdict
from pipeline.report.night import NightPage, SliceRow
from pipeline.workspace.ledger import CalibrationEntry

_CHECK = "check."
_SLICE = ".slices."
_ENDED = {"pass": "passed", "fail": "not met"}
_RULES = ("Outcome", "Rule", "Recipe|w", "Value|n", "Bound|n", "|wholly")


class RuleTables(NamedTuple):
    """Rules about the recipe that went live, about other recipes, and about user groups.

    Attributes
    ----------
    counts
        Number of rules by outcome, of each table.
    """

    first: Table
    others: Table
    groups: Table
    counts: tuple[str, str, str]


def rule_tables(page: NightPage) -> RuleTables:
    """Return the tables of rules.

    Checks of the data have a section of their own; those that did not pass are listed here too.
    """
    kind, results = page.decision.kind, page.decision.rules
    rows = [row for row in results if not (row.name.startswith(_CHECK) and row.outcome == "pass")]
    # The sort is stable: apart from the causes of a block the gate's order stays.
    rows.sort(key=lambda row: not wording.stops(kind, row))
    groups = [row for row in rows if _SLICE in row.name and row.outcome != "fail"]
    shown = ("", page.decision.recipe)
    large = [row for row in rows if row not in groups]
    first = [row for row in large if row.subject in shown or wording.stops(kind, row)]
    others = [row for row in large if row not in first]
    counts = _count(first), _count(others), _count(groups)
    return RuleTables(_rules(page, first), _rules(page, others), _rules(page, groups), counts)


def evidence_lines(page: NightPage) -> list[str]:
    """Return a sentence about each candidate, the highest e-value first."""
    rows = sorted(page.decision.e_processes, key=lambda row: (-row.log_e, row.recipe))
    return [f"{row.sentence}." for row in rows]


def recipe_table(page: NightPage) -> Table:
    """Return the primary metric of each recipe in this run."""
    ranked = page.ranked
    others = sorted({*page.evaluations, *page.failures} - set(ranked))
    label = wording.metric_label(page.metric)
    return Table(
        ("Recipe|name", "Role", f"{label}|n", "95 % interval|n"),
        (_recipe_cells(page, name) for name in ranked + others),
        lead=page.decision.recipe,
    )


def without_answers_table(page: NightPage) -> Table:
    """Return the lifts without events that answer a shown list."""
    head = (
        "Recipe|name", "Against", "Users|n", "Lift|n", "95 % interval|n", "Users without|n",
        "Lift without|n", "95 % interval|n",
    )  # fmt: skip
    body = [
        (
            row.recipe,
            row.against,
            f"{row.users:,}",
            wording.NONE if row.lift is None else change(row.lift),
            wording.span(row.lo, row.hi, change),
            f"{row.users_without:,}",
            wording.NONE if row.lift_without is None else change(row.lift_without),
            wording.span(row.lo_without, row.hi_without, change),
        )
        for row in page.decision.without_answers
    ]
    return Table(head, body)


def group_table(page: NightPage) -> Table:
    """Return the challenger's lift in each user group; no rows without a challenger."""
    head = (
        "Group|name", "Users|n", f"{page.challenger}|n", f"{page.against}|n", "Lift|n",
        "95 % interval|n", "|wholly",
    )  # fmt: skip
    return Table(head, map(_slice_cells, page.slices if page.challenger else ()))


def calibration_text(calibration: CalibrationEntry | None, as_of: datetime) -> str:
    """Return the finding and the age of the newest calibration.

    Parameters
    ----------
    calibration
        None if the gate was never calibrated.
    as_of
        Instant of the run.
    """
    if calibration is None:
        return (
            "The error rate of the gate on these data has not been measured; run `nightjar gate "
            "calibrate`."
        )
    days = (as_of - calibration.as_of).days
    age = "today" if not days else "1 day before" if days == 1 else f"{days} days before"
    day = f"{calibration.as_of:%Y-%m-%d}"
    return f"Calibration of the gate on {day} ({age}): {calibration.sentence}."


def _rules(page: NightPage, rows: Sequence[RuleResult]) -> Table:
    return Table(_RULES, (_rule_cells(page, row) for row in rows))


def _count(rows: Sequence[RuleResult]) -> str:
    """Count rules by outcome."""
    ended = Counter(_ENDED.get(row.outcome, "not evaluated") for row in rows)
    order = ("passed", "not met", "not evaluated")
    return ", ".join(f"{ended[word]} {word}" for word in order if ended[word])


def _rule_cells(page: NightPage, row: RuleResult) -> Row:
    # A candidate that loses is the normal case, not a failure.
    refused = row.outcome == "fail" and not wording.stops(page.decision.kind, row)
    return (
        verdict("not met" if refused else row.outcome),
        wording.rule_title(row.name),
        row.subject,
        wording.rule_value(row, row.figure),
        wording.rule_value(row, row.bound),
        wording.sentence(wording.without_id(row.sentence, row.name), *page.recipe_names),
    )


def _recipe_cells(page: NightPage, name: str) -> Row:
    first = (name, _role(page, name))
    mean, lo, hi = (None,) * 3
    if name in page.evaluations:
        mean, lo, hi = page.evaluations[name].interval(page.metric)
    if mean is None:
        # The reason takes the columns of the metric and of its interval.
        return (*first, Cell(wording.sentence(page.failures.get(name, "not evaluated")), span=2))
    return (*first, f"{mean:.4f}", wording.span(lo, hi))


def _role(page: NightPage, name: str) -> str:
    """Return the role of a recipe before the run, and the change that the run made."""
    role, live = page.role(name), page.decision.recipe
    if name == live:
        return f"{role}, {'stays live' if role == 'champion' else 'goes live'}"
    return f"{role} until this run" if role == "champion" else role


def _slice_cells(row: SliceRow) -> Row:
    return (
        wording.plain(row.name),
        wording.number(row.users),
        f"{row.candidate:.4f}",
        f"{row.champion:.4f}",
        "n/a" if row.lift is None else change(row.lift),
        wording.span(row.lo, row.hi, change),
        f"○ {wording.sentence(row.underpowered)}" if row.underpowered else "",
    )
