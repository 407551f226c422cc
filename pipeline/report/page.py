"""HTML page of a nightly run: the headline first, then the comparison, then all evidence.

Guarantees: a reader sees on one screen whether there is anything to do, how much better the live
model is, and how sure that is; everything else opens on a click; equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from pipeline.base import format_instant
from pipeline.data.validate.checks import DataCheck
from pipeline.evaluation.beyond_accuracy import COVERAGE
from pipeline.evaluation.evaluate import NDCG
from pipeline.evaluation.prequential import ALL
from pipeline.monitoring.verdicts import DriftStatus
from pipeline.number_text import change
from pipeline.report import figures, sections, sections_data, titles, trends, wording
from pipeline.report.attribution import ABOUT, attribution_notes, attribution_tables
from pipeline.report.drift import signal_tables
from pipeline.report.headline import LIGHTS, Lift, NightFacts, headline
from pipeline.report.markup import Cell, Table, render
from pipeline.report.night import NightPage

_LOOPBACK: Final = {"127.0.0.1", "localhost"}
"""Hosts of the servers of `make ui`."""


class KeyFigure(NamedTuple):
    """A figure at the top of a page, with its name above and a note below it."""

    name: str
    value: str
    note: str


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
        drawn["lifts.svg"] = figures.lifts_figure(
            page.lifts, page.against, page.needed_lift, page.margin
        )
    if any(row.mean is not None for row in page.past):
        drawn["metric.svg"] = trends.metric_figure(page.past, page.metric)
    if any(row.lift is not None for row in page.past):
        drawn["lift.svg"] = trends.lift_figure(page.past, "over_baseline", page.margin)
    if page.slices and page.challenger and page.against:
        drawn["slices.svg"] = figures.slices_figure(
            page.slices, page.challenger, page.against, page.margin
        )
    if any(name in coverage for name in page.ranked):
        drawn["reach.svg"] = figures.reach_figure(page)
    if any(file.first.overlap is not None for _, file in page.churn):
        drawn["churn.svg"] = trends.churn_figure(page.churn, page.as_of)
    if any(row.slice == ALL and row.ndcg is not None for _, row in page.live):
        drawn["live.svg"] = trends.live_figure(page.live, page.metric)
    if page.quarantine_reasons and page.quarantined:
        drawn["reasons.svg"] = figures.reasons_figure(page.quarantine_reasons, page.quarantined)
    return drawn


def night_page(
    page: NightPage,
    pictures: Mapping[str, bytes],
    facts: NightFacts,
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    pictures
        SVG files of `night_figures`.
    facts
        Facts of the headline, and the lifts.
    links
        Names and addresses of other pages about the run.
    """
    decision, head = page.decision, _head(facts, links)
    return render(
        "night.html",
        **head | {"todo": "" if page.advice else head["todo"]},
        page=page,
        pictures=pictures,
        label=wording.metric_label(page.metric),
        # The light states the kind already.
        decided=wording.sentence(
            decision.sentence.removeprefix(f"{decision.kind}: "), *page.recipe_names
        ),
        key_figures=_key_figures(page),
        comparison=_comparison(facts),
        measured=_measured(page, facts),
        findings=_findings(page),
        rules=sections.rule_tables(page),
        measures=wording.MEASURES,
        evidence=sections.evidence_lines(page),
        calibration=sections.calibration_text(page.calibration, page.as_of),
        recipes=sections.recipe_table(page),
        without_answers=sections.without_answers_table(page),
        groups=sections.group_table(page),
        reach=sections_data.reach_table(page),
        churn=sections_data.churn_table(page),
        parity=sections_data.parity_table(page),
        live=sections_data.live_table(page),
        attribution_about=ABOUT,
        attribution=None if page.attribution is None else attribution_tables(page.attribution),
        attribution_notes=None if page.attribution is None else attribution_notes(page.attribution),
        signals=signal_tables(page.drift),
        data_facts=sections_data.data_facts(page),
        lake=sections_data.lake_table(page),
        quarantine=sections_data.quarantine_table(page),
        cleaning=sections_data.cleaning_table(page),
        checks=sections_data.check_tables(page),
        cost=sections_data.cost_table(page),
        origin=(("run", page.run_id), ("code", page.commit[:12]), ("settings", page.settings[:12])),
    )


def refused_page(
    checks: Sequence[DataCheck],
    facts: NightFacts,
    links: Sequence[tuple[str, str]],
    origin: Sequence[tuple[str, str]],
) -> str:
    """Return the page of a run that failed checks of its data stopped.

    Parameters
    ----------
    checks
        All checks of the run.
    facts, links
        As for `night_page`.
    origin
        Names and values of the facts at the end of the page.
    """
    passed, head = [check for check in checks if check.passed], _head(facts, links)
    return render(
        "refused.html",
        **head | {"todo": f"{head['todo']} {wording.sentence(wording.TRIGGER)}."},
        failed=sections_data.check_table(check for check in checks if not check.passed),
        passed=sections_data.check_table(passed),
        origin=origin,
    )


def _head(facts: NightFacts, links: Sequence[tuple[str, str]]) -> dict[str, Any]:
    result, as_of = headline(facts), facts.as_of
    local = [name for name, address in links if urlsplit(address).hostname in _LOOPBACK]
    return {
        "result": result,
        "todo": result.todo,
        "stays": facts.live if result.status == "act" else "",
        "light": LIGHTS[result.status],
        "title": f"Nightjar {as_of:%Y-%m-%d}: {LIGHTS[result.status]}",
        "day": f"{as_of:%A}, {as_of.day} {as_of:%B %Y}",
        "as_of": format_instant(as_of),
        "links": links,
        "local": ", ".join(local),
    }


def _comparison(facts: NightFacts) -> Table:
    """Return the lifts of the live model in figures and in words."""
    lifts = (facts.over_blocks, facts.over_before, facts.over_month, facts.over_baseline)
    head = ("Compared with|name", "Lift|n", "95 % interval|n", "Users|n", "In words|wholly")
    return Table(head, (_lift_cells(lift) for lift in lifts if lift is not None))


def _measured(page: NightPage, facts: NightFacts) -> list[str]:
    """Return sentences on the measure and the words of the lifts."""
    metric = wording.metric_label(page.metric)
    month = (
        "The model of a month ago is compared directly, on the users of this night. The lift over "
        "version 1 in MLflow multiplies the lifts of all nights, so the two differ."
    )
    return [
        f"Lift: mean difference of {metric} on the same users and days, as a share of the other "
        "mean.",
        wording.verdict_words(page.margin),
        *([month] if facts.over_month is not None else []),
    ]


def _lift_cells(lift: Lift) -> tuple[str | Cell, ...]:
    return (
        wording.sentence(lift.over) + (f", of {lift.day}" if lift.day else ""),
        change(lift.lift),
        wording.span(lift.lo, lift.hi, change),
        wording.NONE if lift.users is None else f"{lift.users:,}",
        Cell(*lift.words),
    )


def _key_figures(page: NightPage) -> list[KeyFigure]:
    """Return what a reader asks about the night, as plain numbers."""
    passed = sum(check.passed for check in page.checks)
    rows = [KeyFigure("Users compared", f"{page.users:,}", f"{page.split.holdout_days} days")]
    newest = max((as_of for as_of, _ in page.live), default=None)
    for as_of, row in page.live:
        if as_of == newest and row.slice == ALL and row.hit_rate is not None:
            note = f"of {row.events:,} new events"
            rows.append(KeyFigure("Live hit rate", wording.share(row.hit_rate), note))
    if page.checks:
        quarantined = f"{page.quarantined or 0:,} rows in quarantine"
        rows.append(KeyFigure("Data checks", f"{passed} of {len(page.checks)}", quarantined))
    if page.drift is not None:
        scored = [row.status for row in page.drift.signals if row.figure is not None]
        count = f"{scored.count(DriftStatus.DRIFT)} of {len(scored)}"
        rows.append(KeyFigure("Signals that drift", count, "in data, taste and quality"))
    if page.costs:
        seconds = sum(cost.fit_seconds for cost in page.costs.values())
        rows.append(KeyFigure("Training", f"{seconds:,.0f} s", wording.TRAINING))
    return rows


def _findings(page: NightPage) -> dict[str, str]:
    """Return the finding of each section that has one, for its closed state."""
    findings: dict[str, str] = {}
    if page.decision.e_processes:
        findings["evidence"] = titles.e_processes_title(page.decision.e_processes)
    if page.ranked:
        findings["recipes"] = titles.recipes_title(page.values(NDCG), page.metric)
    if page.slices and page.challenger and page.against:
        findings["groups"] = titles.forest_title(
            page.slices, page.challenger, page.against, page.margin
        )
    coverage = page.values(COVERAGE)
    if coverage:
        findings["reach"] = titles.reach_title(coverage, page.decision.recipe)
    if page.churn:
        findings["churn"] = titles.churn_title(page.churn, page.as_of)
    scores = [row for _, row in page.live if row.slice == ALL and row.ndcg is not None]
    if scores:
        findings["live"] = titles.live_title(scores[-1], page.metric)
    if page.drift is not None:
        findings["drift"] = page.drift.sentence
    if page.checks:
        passed = sum(check.passed for check in page.checks)
        findings["data"] = f"{passed} of {len(page.checks)} checks passed"
    return findings
