"""The parts of a page about the decision: rules, points, recipes, groups of people.

Guarantees: every rule is shown, those that stopped the run first; a figure is drawn beside the
table that holds its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from pipeline.evaluation.gate.decision import RuleResult
from pipeline.report import titles, wording
from pipeline.report.markup import cards, cell, folded, lines, section, table, verdict
from pipeline.report.night import NightPage, SliceRow
from pipeline.workspace.ledger import CalibrationEntry

_CHECK = "check."
_SLICE = ".slice."
_RULES = ("Verdict", "Rule", "About", "Figure|n", "Bound|n", "")


def rules(page: NightPage) -> str:
    """Write the decision table: what was asked of whom, what was found, and how it ended.

    What concerns recipes that stay as they were, or groups of people that took no harm, opens at a
    click. Checks of the data have a part of their own; one that did not pass stands here too.
    """
    kind, results = page.decision.kind, page.decision.rules
    rows = [row for row in results if not (row.name.startswith(_CHECK) and row.outcome == "pass")]
    rows.sort(key=lambda row: not wording.stops(kind, row))
    small = [row for row in rows if _SLICE in row.name and row.outcome != "fail"]
    others = [row for row in rows if row not in small and _aside(page, row)]
    first = [row for row in rows if row not in small and row not in others]
    about = "Every rule, with what was measured and what is allowed" + (
        "; what stopped the night stands first." if kind == "block" else "."
    )
    return section(
        "What the gate asked",
        about,
        _rules(kind, first),
        folded(f"On recipes that stay as they were: {_count(others)}", _rules(kind, others)),
        folded(f"On groups of people: {_count(small)}", _rules(kind, small)),
    )


def e_processes(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write where each candidate stands on its way to a switch, and what that can be trusted."""
    if not (page.decision.e_processes or page.calibration):
        return ""
    rows = sorted(page.decision.e_processes, key=lambda row: (-row.e_process.e_value, row.recipe))
    about = (
        "A candidate gathers points on each fresh block of days against the champion. One that is "
        "not better reaches the threshold with a chance below the gate's alpha, however often "
        "anybody looks."
    )
    return section(
        "Points on the way to a switch",
        about,
        cards(pictures, "accounts.svg", beside=lines(map(titles.e_process_line, rows))),
        f"<p>{escape(_trust(page.calibration, page.as_of))}</p>",
    )


def recipes(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write what each recipe reached tonight, and the champion night by night."""
    label = wording.metric_label(page.metric)
    winner, ranked = page.decision.recipe, page.ranked
    others = sorted({*page.evaluations, *page.failures} - set(ranked))
    body = [
        ("lead" if name == winner else "", _recipe_cells(page, name)) for name in ranked + others
    ]
    about = (
        "Each recipe learnt from the days before the holdout and was judged by the holdout. "
        f"{label} is 1 if everything a person went for stood at the top of their list."
    )
    selected = lines(f"{name}: {text}" for name, text in page.selected.items())
    return section(
        "How good the recipes are",
        about,
        cards(pictures, "recipes.svg", "lifts.svg", "metric.svg", "lift.svg"),
        table(("Recipe", "Role", f"{label}|n", "95 % interval|n"), body),
        f"<h3>What earlier weeks chose</h3>{selected}" if selected else "",
    )


def groups(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the challenger's lift in each group of people."""
    if not (page.slices and page.challenger and page.against):
        return ""
    head = (
        "Group", "People|n", f"{page.challenger}|n", f"{page.against}|n", "Lift|n",
        "95 % interval|n", "",
    )  # fmt: skip
    return section(
        "Groups of people",
        "A mean can hide a group that loses. Small groups are shown, not judged.",
        cards(pictures, "slices.svg"),
        folded("In numbers", table(head, [("", _slice_cells(row)) for row in page.slices])),
    )


def _trust(calibration: CalibrationEntry | None, as_of: datetime) -> str:
    """Say what the newest calibration found, and how old it was then."""
    if calibration is None:
        return (
            "How often this gate is wrong on these data was not measured yet: `nightjar gate "
            "calibrate` does that."
        )
    days = (as_of - calibration.as_of).days
    age = "today" if not days else "1 day before" if days == 1 else f"{days} days before"
    day = f"{calibration.as_of:%Y-%m-%d}"
    return f"The gate itself, measured on {day} ({age}): {calibration.sentence}."


def _rules(kind: str, rows: Sequence[RuleResult]) -> str:
    return table(_RULES, [("", _rule_cells(kind, row)) for row in rows])


def _aside(page: NightPage, row: RuleResult) -> bool:
    """Whether a rule is about a recipe that neither went live nor had any part in a block."""
    return row.subject not in ("", page.decision.recipe) and not wording.stops(
        page.decision.kind, row
    )


def _count(rows: Sequence[RuleResult]) -> str:
    """Count rules by how they ended."""
    passed = sum(row.outcome == "pass" for row in rows)
    failed = sum(row.outcome == "fail" for row in rows)
    parts = ((passed, "passed"), (failed, "not met"), (len(rows) - passed - failed, "not judged"))
    return ", ".join(f"{n} {word}" for n, word in parts if n)


def _rule_cells(kind: str, row: RuleResult) -> tuple[str, ...]:
    refused = row.outcome == "fail" and not wording.stops(kind, row)
    return (
        verdict("not met" if refused else row.outcome),
        cell(wording.plain(row.name)),
        cell(row.subject, "w"),
        cell(wording.number(row.figure), "n"),
        cell(wording.number(row.bound), "n"),
        cell(row.sentence, "wholly"),
    )


def _recipe_cells(page: NightPage, name: str) -> tuple[str, ...]:
    title = cell(name + (" (live now)" if name == page.decision.recipe else ""), "name")
    role = cell(page.role(name))
    evaluation = page.evaluations.get(name)
    mean, lo, hi = (None,) * 3 if evaluation is None else evaluation.interval(page.metric)
    if mean is None:
        failure = page.failures.get(name, "not judged")
        return (title, role, cell(failure).replace("<td", "<td colspan=2", 1))
    interval = "–" if lo is None or hi is None else f"{lo:.4f} to {hi:.4f}"
    return (title, role, cell(f"{mean:.4f}", "n"), cell(interval, "n"))


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
