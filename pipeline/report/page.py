"""HTML page of a nightly run: the decision first, then the evidence.

Guarantees: causes of a block stand above passed rules; equal content gives equal bytes; otherwise
as `markup`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.base import format_instant
from pipeline.evaluation.beyond_accuracy import COVERAGE
from pipeline.evaluation.prequential import ALL
from pipeline.report import figures, trends, wording
from pipeline.report.attribution import attribution_section
from pipeline.report.drift import drift_section
from pipeline.report.markup import document, facts, html_of, lines
from pipeline.report.night import NightPage
from pipeline.report.sections import e_processes, groups, recipes, rules, without_answers
from pipeline.report.sections_data import churn, cost, data, folds, live, reach

_TONE = {"first": "#0072B2", "switch": "#0072B2", "refresh": "#0b6b43", "block": "#a3260b"}


def night_figures(page: NightPage) -> dict[str, bytes]:
    """Draw the figures for which the page has data; SVG files by name."""
    drawn: dict[str, bytes] = {}
    # A figure without data is left out, and so is its part of the page.
    coverage = page.values(COVERAGE)
    if page.decision.e_processes:
        drawn["e_processes.svg"] = trends.e_processes_figure(
            page.decision.e_processes, page.e_process_paths
        )
    if page.ranked:
        drawn["recipes.svg"] = figures.recipes_figure(page)
    if page.lifts and page.against:
        drawn["lifts.svg"] = figures.lifts_figure(page.lifts, page.against, page.needed_lift)
    if any(row.mean is not None for row in page.past):
        drawn["metric.svg"] = trends.metric_figure(page.past, page.metric)
    if any(row.lift is not None for row in page.past):
        drawn["lift.svg"] = trends.lift_figure(page.past)
    if page.slices and page.challenger and page.against:
        drawn["slices.svg"] = figures.slices_figure(page.slices, page.challenger, page.against)
    if any(name in coverage for name in page.ranked):
        drawn["reach.svg"] = figures.reach_figure(page)
    if any(file.first.overlap is not None for _, file in page.churn):
        drawn["churn.svg"] = trends.churn_figure(page.churn, page.as_of)
    if any(row.slice == ALL and row.ndcg is not None for _, row in page.live):
        drawn["live.svg"] = trends.live_figure(page.live, page.metric)
    if page.quarantine_reasons and page.quarantined:
        drawn["reasons.svg"] = figures.reasons_figure(page.quarantine_reasons, page.quarantined)
    return drawn


def night_page(page: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Return the page.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    """
    day = f"{page.as_of:%A}, {page.as_of.day} {page.as_of:%B %Y}"
    as_of, decision = format_instant(page.as_of), page.decision
    headline = wording.HEADLINE[decision.kind]
    # The headline states the kind already.
    reasons = decision.sentence.removeprefix(f"{decision.kind}: ")
    sentence = wording.sentence(reasons, *page.recipe_names)
    origin = (("run", page.run_id), ("code", page.commit), ("settings", page.settings[:12]))
    parts = [
        f"<header><p class=eyebrow>Nightjar · nightly run of {escape(day)} · as-of "
        f"{escape(as_of)}</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{html_of(sentence)}</p></header>",
        _advice(page.advice),
        rules(page),
        e_processes(page, pictures),
        recipes(page, pictures),
        without_answers(page),
        groups(page, pictures),
        reach(page, pictures),
        churn(page, pictures),
        folds(page),
        live(page, pictures),
        attribution_section(page.attribution),
        drift_section(page.drift, page.policy),
        data(page, pictures),
        cost(page),
        f"<footer>{facts(origin)}</footer>",
    ]
    title = f"Nightjar {as_of}: {headline}"
    return document(title, _TONE.get(decision.kind, "#59626c"), parts)


def _advice(advice: Sequence[str]) -> str:
    if not advice:
        return ""
    return f"<section class=todo><h2>Next steps</h2>{lines(advice)}</section>"
