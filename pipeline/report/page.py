"""One night as one HTML page: the sentence first, then the evidence; no script, no other file.

Promises: every text is escaped; what stopped the night stands above what passed; equal rows give
equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from pipeline.base import format_instant
from pipeline.report import figures, trends, wording
from pipeline.report.attribution import answers_section
from pipeline.report.drift import drift_section
from pipeline.report.markup import document, facts, lines
from pipeline.report.night import NightPage
from pipeline.report.sections import accounts, groups, recipes, rules
from pipeline.report.sections_data import churn, cost, data, folds, live, reach
from pipeline.report.titles import EVERYBODY

_TONE = {"first": "#0072B2", "switch": "#0072B2", "refresh": "#0b6b43", "block": "#a3260b"}


def night_figures(night: NightPage) -> dict[str, bytes]:
    """Draw the figures that the night has rows for: file name → SVG."""
    drawn: dict[str, bytes] = {}
    if night.accounts:
        drawn["accounts.svg"] = trends.accounts_figure(night.accounts)
    if any(row.mean is not None for row in night.recipes):
        drawn["recipes.svg"] = figures.recipes_figure(night.recipes, night.metric, night.winner)
    if night.lifts and night.against:
        drawn["lifts.svg"] = figures.lifts_figure(night.lifts, night.against, night.needed_lift)
    if any(row.mean is not None for row in night.past):
        drawn["metric.svg"] = trends.metric_figure(night.past, night.metric)
    if any(row.lift is not None for row in night.past):
        drawn["lift.svg"] = trends.lift_figure(night.past)
    if night.slices and night.challenger and night.against:
        drawn["slices.svg"] = figures.slices_figure(night.slices, night.challenger, night.against)
    if any(row.mean is not None and row.coverage is not None for row in night.recipes):
        drawn["reach.svg"] = figures.reach_figure(night.recipes, night.winner)
    if any(row.overlap is not None for row in night.churn):
        drawn["churn.svg"] = trends.churn_figure(night.churn, night.as_of)
    if any(row.slice == EVERYBODY and row.ndcg is not None for row in night.live):
        drawn["live.svg"] = trends.live_figure(night.live, night.metric)
    if night.reasons and night.quarantined:
        drawn["reasons.svg"] = figures.reasons_figure(night.reasons, night.quarantined)
    return drawn


def night_page(night: NightPage, pictures: Mapping[str, bytes]) -> str:
    """Write the page; `pictures` are those of `night_figures`, laid into it."""
    day = f"{night.as_of:%A}, {night.as_of.day} {night.as_of:%B %Y}"
    headline = wording.HEADLINE.get(night.kind, wording.plain(night.kind))
    parts = [
        f"<header><p class=eyebrow>Nightjar · night of {escape(day)} · as-of "
        f"{escape(format_instant(night.as_of))}</p><h1>{escape(headline)}</h1>"
        f"<p class=sentence>{escape(night.sentence)}</p></header>",
        _advice(night.advice or wording.advice(night.kind, night.rules)),
        rules(night),
        accounts(night, pictures),
        recipes(night, pictures),
        groups(night, pictures),
        reach(night, pictures),
        churn(night, pictures),
        folds(night),
        live(night, pictures),
        answers_section(night.answers),
        drift_section(night.drift, night.policy),
        data(night, pictures),
        cost(night),
        f"<footer>{facts((('run', night.run_id), *night.origin))}</footer>",
    ]
    title = f"Nightjar {format_instant(night.as_of)}: {headline}"
    return document(title, _TONE.get(night.kind, "#59626c"), parts)


def _advice(advice: Sequence[str]) -> str:
    if not advice:
        return ""
    return f"<section class=todo><h2>What you can do</h2>{lines(advice)}</section>"
