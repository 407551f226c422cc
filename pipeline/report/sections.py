"""Sections of a page about the decision: rules, e-values, recipes, user groups.

Guarantees: every rule is shown, the causes of a block first; each figure stands beside the table
of its numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline.evaluation.gate.decision import RuleResult
from pipeline.number_text import change
from pipeline.report import wording
from pipeline.report.markup import Markup, cards, folded, html_of, lines, section, table, verdict
from pipeline.report.night import NightPage, SliceRow
from pipeline.workspace.ledger import CalibrationEntry

_CHECK = "check."
_SLICE = ".slices."
_ENDED = {"pass": "passed", "fail": "not met"}
_RULES = ("Outcome", "Rule", "Recipe|w", "Value|n", "Bound|n", "|wholly")


def rules(page: NightPage) -> str:
    """Return the table of rules.

    Rules about recipes that did not go live and about groups without a failed rule are folded.
    Checks of the data have a section of their own; those that did not pass are listed here too.
    """
    kind, results = page.decision.kind, page.decision.rules
    rows = [row for row in results if not (row.name.startswith(_CHECK) and row.outcome == "pass")]
    # The sort is stable: apart from the causes of a block the gate's order stays.
    rows.sort(key=lambda row: not wording.stops(kind, row))
    small = [row for row in rows if _SLICE in row.name and row.outcome != "fail"]
    shown = ("", page.decision.recipe)
    large = [row for row in rows if row not in small]
    first = [row for row in large if row.subject in shown or wording.stops(kind, row)]
    others = [row for row in large if row not in first]
    about = "Every rule with its measured value and its bound" + (
        "; the causes of the block come first." if kind == "block" else "."
    )
    return section(
        "Rules of the gate",
        about,
        _rules(page, first),
        folded(f"Other recipes: {_count(others)}", _rules(page, others)),
        folded(f"User groups: {_count(small)}", _rules(page, small)),
    )


def e_processes(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the e-value of each candidate, and the measured error rate of the gate.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    if not (page.decision.e_processes or page.calibration):
        return ""
    rows = sorted(page.decision.e_processes, key=lambda row: (-row.log_e, row.recipe))
    about = (
        "The e-value measures the evidence that a candidate is better than the champion, over "
        "disjoint blocks of days. The probability that a candidate that is not better reaches the "
        "threshold at any time is at most the gate's alpha."
    )
    return section(
        "Evidence for a switch",
        about,
        cards(pictures, "e_processes.svg", beside=lines(f"{row.sentence}." for row in rows)),
        f"<p>{html_of(_calibration_text(page.calibration, page.as_of))}</p>",
    )


def recipes(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the metrics of each recipe in this run, and the champion's by nightly run.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    label = wording.metric_label(page.metric)
    ranked = page.ranked
    others = sorted({*page.evaluations, *page.failures} - set(ranked))
    about = (
        "Each recipe was trained on the days before the holdout and evaluated on the holdout. "
        f"{label} is 1 if all target items of a user are at the top of the list."
    )
    selected = lines(f"{name}: {text}" for name, text in page.selected.items())
    return section(
        "Quality of the recipes",
        about,
        cards(pictures, "recipes.svg", "lifts.svg", "metric.svg", "lift.svg"),
        table(
            ("Recipe|name", "Role", f"{label}|n", "95 % interval|n"),
            (_recipe_cells(page, name) for name in ranked + others),
            lead=page.decision.recipe,
        ),
        f"<h3>Hyperparameters selected on earlier windows</h3>{selected}" if selected else "",
    )


def without_answers(page: NightPage) -> str:
    """Return the lifts without events that answer a shown list; empty without a champion."""
    answers, title = page.answers, "Lifts without events that answer a shown list"
    if answers is None:
        return ""
    if not answers.answered:
        none = "No target item of the holdout answers a list that its user was shown before."
        return section(title, "", f"<p>{none}</p>")
    about = (
        f"{answers.answered:,} of {answers.targets:,} target items answer a list that their user "
        "was shown before. They favour the champion, whose lists these were. Without them the "
        "other recipe is favoured, because items that the user would have taken anyway are "
        "missing, too. Both lifts are shares of the champion's mean on all targets, and the true "
        "lift lies between them. No rule of the gate reads them."
    )
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
    return section(title, about, table(head, body))


def groups(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the challenger's lift in each user group.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    if not (page.slices and page.challenger and page.against):
        return ""
    head = (
        "Group|name", "Users|n", f"{page.challenger}|n", f"{page.against}|n", "Lift|n",
        "95 % interval|n", "|wholly",
    )  # fmt: skip
    return section(
        "Quality by user group",
        "A small group is shown, but no rule applies to it.",
        cards(pictures, "slices.svg"),
        folded("In numbers", table(head, map(_slice_cells, page.slices))),
    )


def _calibration_text(calibration: CalibrationEntry | None, as_of: datetime) -> str:
    """Return the finding and the age of the newest calibration."""
    if calibration is None:
        return (
            "The error rate of the gate on these data has not been measured; run `nightjar gate "
            "calibrate`."
        )
    days = (as_of - calibration.as_of).days
    age = "today" if not days else "1 day before" if days == 1 else f"{days} days before"
    day = f"{calibration.as_of:%Y-%m-%d}"
    return f"Calibration of the gate on {day} ({age}): {calibration.sentence}."


def _rules(page: NightPage, rows: Sequence[RuleResult]) -> str:
    return table(_RULES, (_rule_cells(page, row) for row in rows))


def _count(rows: Sequence[RuleResult]) -> str:
    """Count rules by outcome."""
    ended = Counter(_ENDED.get(row.outcome, "not evaluated") for row in rows)
    order = ("passed", "not met", "not evaluated")
    return ", ".join(f"{ended[word]} {word}" for word in order if ended[word])


def _rule_cells(page: NightPage, row: RuleResult) -> tuple[str, ...]:
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


def _recipe_cells(page: NightPage, name: str) -> tuple[str, ...]:
    first = (name, _role(page, name))
    mean, lo, hi = (None,) * 3
    if name in page.evaluations:
        mean, lo, hi = page.evaluations[name].interval(page.metric)
    if mean is None:
        # The reason takes the columns of the metric and of its interval.
        failure = html_of(wording.sentence(page.failures.get(name, "not evaluated")))
        return (*first, Markup(f"<td colspan=2>{failure}</td>"))
    return (*first, f"{mean:.4f}", wording.span(lo, hi))


def _role(page: NightPage, name: str) -> str:
    """Return the role of a recipe before the run, and the change that the run made."""
    role, live = page.role(name), page.decision.recipe
    if name == live:
        return f"{role}, {'stays live' if role == 'champion' else 'goes live'}"
    return f"{role} until this run" if role == "champion" else role


def _slice_cells(row: SliceRow) -> tuple[str, ...]:
    return (
        wording.plain(row.name),
        wording.number(row.users),
        f"{row.candidate:.4f}",
        f"{row.champion:.4f}",
        "n/a" if row.lift is None else change(row.lift),
        wording.span(row.lo, row.hi, change),
        f"○ {wording.sentence(row.underpowered)}" if row.underpowered else "",
    )
