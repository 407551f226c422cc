"""The parts of a page about the decision: rules, points, recipes, groups of people.

Guarantees: every rule is shown, those that stopped the run first; a figure is drawn beside the
table that holds its numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape

from pipeline.evaluation.gate.decision import RuleResult
from pipeline.report import titles, wording
from pipeline.report.markup import Markup, cards, folded, lines, section, table, verdict
from pipeline.report.night import NightPage, SliceRow
from pipeline.workspace.ledger import CalibrationEntry

_CHECK = "check."
_SLICE = ".slice."
_ENDED = {"pass": "passed", "fail": "not met"}
_RULES = ("Verdict", "Rule", "About|w", "Figure|n", "Bound|n", "|wholly")


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
    ranked = page.ranked
    others = sorted({*page.evaluations, *page.failures} - set(ranked))
    about = (
        "Each recipe learnt from the days before the holdout and was judged by the holdout. "
        f"{label} is 1 if everything a person went for stood at the top of their list."
    )
    selected = lines(f"{name}: {text}" for name, text in page.selected.items())
    return section(
        "How good the recipes are",
        about,
        cards(pictures, "recipes.svg", "lifts.svg", "metric.svg", "lift.svg"),
        table(
            ("Recipe|name", "Role", f"{label}|n", "95 % interval|n"),
            (_recipe_cells(page, name) for name in ranked + others),
            lead=_recipe_name(page, page.decision.recipe or ""),
        ),
        f"<h3>What earlier weeks chose</h3>{selected}" if selected else "",
    )


def groups(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the challenger's lift in each group of people."""
    if not (page.slices and page.challenger and page.against):
        return ""
    head = (
        "Group|name", "People|n", f"{page.challenger}|n", f"{page.against}|n", "Lift|n",
        "95 % interval|n", "|wholly",
    )  # fmt: skip
    return section(
        "Groups of people",
        "A mean can hide a group that loses. Small groups are shown, not judged.",
        cards(pictures, "slices.svg"),
        folded("In numbers", table(head, map(_slice_cells, page.slices))),
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
    return table(_RULES, (_rule_cells(kind, row) for row in rows))


def _aside(page: NightPage, row: RuleResult) -> bool:
    """Whether a rule is about a recipe that neither went live nor had any part in a block."""
    return row.subject not in ("", page.decision.recipe) and not wording.stops(
        page.decision.kind, row
    )


def _count(rows: Sequence[RuleResult]) -> str:
    """Count rules by how they ended."""
    ended = Counter(_ENDED.get(row.outcome, "not judged") for row in rows)
    order = ("passed", "not met", "not judged")
    return ", ".join(f"{ended[word]} {word}" for word in order if ended[word])


def _rule_cells(kind: str, row: RuleResult) -> tuple[str, ...]:
    refused = row.outcome == "fail" and not wording.stops(kind, row)
    return (
        verdict("not met" if refused else row.outcome),
        wording.plain(row.name),
        row.subject,
        wording.number(row.figure),
        wording.number(row.bound),
        row.sentence,
    )


def _recipe_name(page: NightPage, name: str) -> str:
    return name + (" (live now)" if name == page.decision.recipe else "")


def _recipe_cells(page: NightPage, name: str) -> tuple[str, ...]:
    first = (_recipe_name(page, name), page.role(name))
    mean, lo, hi = (None,) * 3
    if name in page.evaluations:
        mean, lo, hi = page.evaluations[name].interval(page.metric)
    if mean is None:
        failure = escape(page.failures.get(name, "not judged"))
        return (*first, Markup(f"<td colspan=2>{failure}</td>"))
    return (*first, f"{mean:.4f}", wording.span(lo, hi))


def _slice_cells(row: SliceRow) -> tuple[str, ...]:
    return (
        wording.plain(row.name),
        wording.number(row.users),
        f"{row.candidate:.4f}",
        f"{row.champion:.4f}",
        "n/a" if row.lift is None else wording.change(row.lift),
        wording.span(row.lo, row.hi, wording.change),
        f"○ {row.underpowered}" if row.underpowered else "",
    )
