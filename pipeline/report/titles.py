"""Titles of figures.

Guarantees: a title states a finding that its figure shows, or that there is no data for one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from pipeline.evaluation.gate.e_process_status import EProcessStatus, e_value_text
from pipeline.evaluation.lift import verdict
from pipeline.evaluation.prequential import LiveFigures
from pipeline.number_text import NO_CHANGE, change
from pipeline.report.night import Dated, LiftRow, PastRun, SliceRow
from pipeline.report.wording import counted, day, metric_label, number, plain, share
from pipeline.workspace.release_artifacts import ChurnFile

LiftName = Literal["over_baseline", "over_before"]
"""Name of a reference, that of a lift of `VersionFiguresFile`."""
REFERENCES: Final[Mapping[LiftName, str]] = {
    "over_before": "the version before",
    "over_baseline": "the best baseline",
}


def recipes_title(means: Mapping[str, float], metric: str) -> str:
    """State which recipe is best, and its lead over the next one.

    Parameters
    ----------
    means
        The metric by recipe.
    metric
        Name of the metric, such as ``ndcg_at_20``.
    """
    if not means:
        return "No recipe was evaluated"
    best, *others = sorted(means, key=lambda name: means[name], reverse=True)
    text = f"{best} reaches {means[best]:.4f} {metric_label(metric)}"
    if not others or means[others[0]] <= 0:
        return text
    lead = change(means[best] / means[others[0]] - 1)
    return f"{text}, {'level with' if lead == NO_CHANGE else f'{lead} over'} {others[0]}"


def lifts_title(lifts: Sequence[LiftRow], against: str, margin: float) -> str:
    """State which recipe the gate takes as better than `against`, else count the verdicts.

    Parameters
    ----------
    lifts
        At least one row.
    against
        Recipe that the lifts are over.
    margin
        As for `verdict`.
    """
    proved = [row for row in lifts if row.proved]
    if proved:
        best = max(proved, key=lambda row: row.lift)
        return f"{best.name} is better than {against} ({change(best.lift)})"
    judged = (verdict(row.lo, row.hi, margin) for row in lifts)
    return f"No recipe replaces {against}; on this holdout: {counted(judged)}"


def e_processes_title(statuses: Sequence[EProcessStatus]) -> str:
    """State which candidate has the highest e-value."""
    first = max(statuses, key=lambda status: status.log_e)
    value = e_value_text(first.e_value)
    if not first.reached:
        return (
            "No candidate has enough evidence for a switch; the highest e-value is "
            f"{value} ({first.threshold:,.0f} needed)"
        )
    return f"{first.recipe} has the highest e-value: {value} ({first.threshold:,.0f} needed)"


def metric_title(past: Sequence[PastRun], metric: str) -> str:
    """State the champion's metric in this run, and its change since the last comparable run.

    Runs are comparable if their holdouts are equally long.

    Parameters
    ----------
    past
        Runs, this one last.
    metric
        Name of the primary metric.
    """
    last, label = past[-1], metric_label(metric)
    if last.mean is None:
        return f"{label} of the champion by nightly run"
    text = f"{last.recipe} reaches {last.mean:.4f} {label}"
    comparable = [row for row in past[:-1] if row.holdout_days == last.holdout_days]
    before = [(row.as_of, row.mean) for row in comparable if row.mean]
    if not before:
        return text
    as_of, mean = before[-1]
    return f"{text}, {change(last.mean / mean - 1)} since {day(as_of)}"


def lift_title(past: Sequence[PastRun], over: LiftName, margin: float) -> str:
    """State a lift of the champion, and count the verdicts of all runs.

    Parameters
    ----------
    past
        At least one run with a lift.
    over
        Reference of all lifts.
    margin
        As for `verdict`.
    """
    rows = [row for row in past if row.lift is not None]
    verdicts = (verdict(row.lift_lo or 0.0, row.lift_hi or 0.0, margin) for row in rows)
    last = f"{rows[-1].recipe}: {change(rows[-1].lift or 0.0)} over {REFERENCES[over]}"
    return f"{last}; nights: {counted(verdicts)}"


def forest_title(slices: Sequence[SliceRow], challenger: str, against: str, margin: float) -> str:
    """Count the verdicts of the groups.

    Parameters
    ----------
    challenger, against
        The two recipes that `slices` compares.
    margin
        As for `verdict`.
    """
    judged = {
        plain(row.name): verdict(row.lo or 0.0, row.hi or 0.0, margin)
        for row in slices
        if row.lift is not None
    }
    if not judged:
        return f"{challenger} cannot be compared with {against} in any group"
    worse = [name for name, word in judged.items() if word == "worse"]
    named = f" ({worse[0]})" if len(worse) == 1 else ""
    return f"{challenger} against {against}, groups: {counted(judged.values())}{named}"


def reach_title(coverage: Mapping[str, float], winner: str | None) -> str:
    """State which share of the catalogue is recommended.

    Parameters
    ----------
    coverage
        Shares by recipe.
    winner
        The champion's recipe after the run.
    """
    widest = max(coverage, key=lambda name: (coverage[name], name))
    own = winner if winner is not None and winner in coverage else widest
    text = f"{own} recommends {share(coverage[own])} of the catalogue"
    # Compared as text: shares that look equal are not ranked.
    if share(coverage[own]) == share(coverage[widest]):
        return text
    return f"{text}; the most: {widest}, {share(coverage[widest])}"


def churn_title(churn: Sequence[Dated[ChurnFile]], tonight: datetime) -> str:
    """State which share of the entries stayed in the newest lists, and why most others changed.

    Parameters
    ----------
    churn
        Promotions, oldest first.
    tonight
        As-of of this run; the day of an earlier promotion is named.
    """
    measured = [(as_of, file.first) for as_of, file in churn if file.first.overlap is not None]
    if not measured:
        return "No list could be compared with the one before"
    as_of, last = measured[-1]
    # Before the cold check the newest churn is that of an earlier run.
    text = "" if as_of == tonight else f"{day(as_of)}: "
    text += f"{share(last.overlap)} of the entries stayed for users without new events"
    causes = sorted(name for name, part in last.lost.items() if part > 0)
    if not causes:
        return text
    return f"{text}; main cause of the changes: {plain(max(causes, key=last.lost.__getitem__))}"


def live_title(newest: LiveFigures, metric: str) -> str:
    """State the prequential score of the newest version over all users.

    Parameters
    ----------
    newest
        Scores of all users.
    metric
        Name of the primary metric.
    """
    return (
        f"Version {newest.model_version} reached {newest.ndcg:.4f} {metric_label(metric)} live "
        f"with {number(newest.users)} users"
    )


def reasons_title(reasons: Mapping[str, int], rows: int) -> str:
    """State how many rows are in quarantine, and the most frequent reason.

    Parameters
    ----------
    reasons
        Rows by reason; a row may have several.
    rows
        Rows in quarantine.
    """
    most = max(reasons, key=lambda reason: (reasons[reason], reason))
    return f"Rows in quarantine: {rows:,}; most frequent reason: {plain(most)}"
