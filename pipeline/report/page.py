"""One night as one HTML page: the sentence first, then the evidence; no script, no other file.

Promises: every text is escaped; what stopped the night stands above what passed; equal rows give
equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.base import format_instant
from pipeline.report import figures, words
from pipeline.report.markup import cell, document, facts, picture, table, verdict
from pipeline.report.night import CheckRow, CostRow, NightPage, RecipeRow, RuleRow

PAGE = "night.html"
RECIPES = "recipes.png"
LIFTS = "lifts.png"
SLICES = "slices.png"
_CHECK = "check."

_TONE = {"first": "#0072B2", "switch": "#0072B2", "refresh": "#0b6b43", "block": "#a3260b"}


def night_figures(night: NightPage) -> dict[str, bytes]:
    """Draw the figures that the night has rows for: file name → PNG."""
    drawn: dict[str, bytes] = {}
    if any(row.mean is not None for row in night.recipes):
        drawn[RECIPES] = figures.recipes_figure(night.recipes, night.metric, night.winner)
    if night.lifts and night.against:
        drawn[LIFTS] = figures.lifts_figure(night.lifts, night.against, night.needed_lift)
    if night.slices and night.challenger and night.against:
        drawn[SLICES] = figures.slices_figure(
            night.slices, night.metric, night.challenger, night.against
        )
    return drawn


def night_page(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the page; `pictures` are those of `night_figures`, laid into it."""
    advice = night.advice or words.advice(night.kind, night.rules)
    day = f"{night.as_of:%A}, {night.as_of.day} {night.as_of:%B %Y}"
    headline = words.HEADLINE.get(night.kind, words.plain(night.kind))
    parts = [
        f"<header><p class=eyebrow>Nightjar · night of {escape(day)} · as-of "
        f"{escape(format_instant(night.as_of))}</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{escape(night.sentence)}</p></header>",
        _advice(advice),
        _recipes(night, pictures),
        _rules(night),
        _slices(night, pictures),
        _data(night),
        f"<footer>{facts((('run', night.run_id), *night.origin))}</footer>",
    ]
    title = f"Nightjar {format_instant(night.as_of)}: {headline}"
    return document(title, _TONE.get(night.kind, "#59626c"), parts)


def _advice(advice: Sequence[str]) -> str:
    if not advice:
        return ""
    told = "".join(f"<li>{escape(line)}</li>" for line in advice)
    return f"<section class=todo><h2>What you can do</h2><ul>{told}</ul></section>"


def _recipes(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    label = words.metric_label(night.metric)
    rows = sorted(night.recipes, key=lambda row: (row.mean is None, -(row.mean or 0), row.name))
    body = [
        (
            "lead" if row.name == night.winner else "",
            (
                cell(row.name + (" (live now)" if row.name == night.winner else "")),
                cell(row.role),
                *_recipe_cells(row),
            ),
        )
        for row in rows
    ]
    head = ("Recipe", "Role", f"{label}|n", "95 % interval|n", "Coverage|n")
    about = (
        "Each recipe learnt from the days before the holdout and was judged by the holdout. "
        f"{label} is 1 if everything a person went for stood at the top of their list; coverage is "
        "the share of the catalogue that is recommended to anybody."
    )
    title = words.recipes_title(night.recipes, night.metric)
    lifts = ""
    if night.against:
        lifts = picture(pictures, LIFTS, words.lifts_title(night.lifts, night.against))
    return (
        f"<section><h2>Recipes</h2><p class=about>{escape(about)}</p>"
        f"{picture(pictures, RECIPES, title)}{table(head, body)}{_chosen(night)}{lifts}"
        f"{_costs(night.costs)}</section>"
    )


def _chosen(night: NightPage) -> str:
    told = "".join(f"<li>{escape(name)}: {escape(words)}</li>" for name, words in night.chosen)
    return f"<p class=about>What earlier weeks chose:</p><ul>{told}</ul>" if told else ""


def _costs(costs: Sequence[CostRow]) -> str:
    if not costs:
        return ""
    head = (
        "What training took", "Seconds|n", "CPU seconds|n", "Memory, MB|n", "Parameters|n",
        "Events a second|n", "On",
    )  # fmt: skip
    body = [("", _cost_cells(row)) for row in sorted(costs, key=lambda row: -row.seconds)]
    return table(head, body)


def _cost_cells(row: CostRow) -> tuple[str, ...]:
    return (
        cell(row.name),
        cell(f"{row.seconds:,.2f}", "n"),
        cell(f"{row.cpu_seconds:,.2f}", "n"),
        cell(f"{row.peak_mb:,.1f}", "n"),
        cell(words.number(row.parameters), "n"),
        cell(f"{row.events_per_second:,.0f}", "n"),
        cell(row.trained_on),
    )


def _recipe_cells(row: RecipeRow) -> tuple[str, ...]:
    if row.mean is None:
        return (f"<td colspan=3>{escape(row.failure or 'not judged')}</td>",)
    interval = "–" if row.lo is None or row.hi is None else f"{row.lo:.4f} to {row.hi:.4f}"
    covered = "–" if row.coverage is None else f"{100 * row.coverage:.1f} %"
    return (cell(f"{row.mean:.4f}", "n"), cell(interval, "n"), cell(covered, "n"))


def _rules(night: NightPage) -> str:
    # Checks of the data have a section of their own; one that stops the night stands here too.
    rows = [row for row in night.rules if not (row.name.startswith(_CHECK) and _passed(row))]
    if not rows:
        return ""
    rows.sort(key=lambda row: not words.stops(night.kind, row))
    head = ("Verdict", "Rule", "About", "Figure|n", "Bound|n", "In words")
    about = "Every rule, with what was measured and what is allowed" + (
        "; what stopped the night stands first." if night.kind == "block" else "."
    )
    told = table(head, [("", _rule_cells(night.kind, row)) for row in rows])
    return f"<section><h2>What the gate asked</h2><p class=about>{about}</p>{told}</section>"


def _passed(row: RuleRow) -> bool:
    return row.verdict == words.PASSED


def _rule_cells(kind: str, row: RuleRow) -> tuple[str, ...]:
    refused = row.verdict == words.FAILED and not words.stops(kind, row)
    return (
        verdict("not met" if refused else row.verdict),
        cell(words.plain(row.name)),
        cell(row.subject, "w"),
        cell(words.number(row.figure), "n"),
        cell(words.number(row.bound), "n"),
        cell(row.sentence),
    )


def _slices(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    if not (night.slices and night.challenger and night.against):
        return ""
    body = [
        (
            "",
            (
                cell(words.plain(row.name)),
                cell(words.number(row.users), "n"),
                cell(f"{row.candidate[0]:.4f}", "n"),
                cell(f"{row.champion[0]:.4f}", "n"),
                cell(
                    words.change(row.candidate[0] / row.champion[0] - 1)
                    if row.champion[0] > 0
                    else "n/a",
                    "n",
                ),
            ),
        )
        for row in night.slices
    ]
    head = ("Group", "People|n", f"{night.challenger}|n", f"{night.against}|n", "Difference|n")
    title = words.slices_title(night.slices, night.challenger, night.against)
    return (
        "<section><h2>Groups of people</h2><p class=about>A mean can hide a group that loses. "
        "Small groups are shown, not judged.</p>"
        f"{picture(pictures, SLICES, title)}{table(head, body)}</section>"
    )


def _data(night: NightPage) -> str:
    tables = [
        (
            "",
            (
                cell(row.name),
                cell(words.number(row.version), "n"),
                cell(words.number(row.rows), "n"),
            ),
        )
        for row in night.tables
    ]
    told = table(("Table", "Lake version|n", "Rows read|n"), tables) if tables else ""
    return f"<section><h2>Data</h2>{facts(night.facts)}{told}{_checks(night.checks)}</section>"


def _checks(checks: Sequence[CheckRow]) -> str:
    head = ("Result", "Check", "Figure|n", "Bound|n", "In words")
    passed = [row for row in checks if row.status == words.PASSED]
    others = [row for row in checks if row.status != words.PASSED]
    parts = []
    if others:
        parts.append(f"<h2>Checks to look at</h2>{table(head, map(_check_cells, others))}")
    if passed:
        parts.append(
            f"<details><summary>{len(passed)} of {len(checks)} checks of the data passed</summary>"
            f"{table(head, map(_check_cells, passed))}</details>"
        )
    return "".join(parts)


def _check_cells(row: CheckRow) -> tuple[str, tuple[str, ...]]:
    return "", (
        verdict(row.status),
        cell(words.plain(row.name)),
        cell(words.number(row.figure), "n"),
        cell(words.number(row.bound), "n"),
        cell(row.sentence),
    )
