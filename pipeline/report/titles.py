"""Titles of figures: each states what is to be seen, and claims nothing that was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pipeline.evaluation.gate.e_process import EProcessStatus, e_value_text
from pipeline.evaluation.intervals import normal_interval
from pipeline.evaluation.prequential import LiveFigures
from pipeline.report.night import Dated, LiftRow, PastRun, SliceRow
from pipeline.report.wording import NO_CHANGE, change, day, metric_label, number, plain, share
from pipeline.workspace.artifacts import ChurnFile

EVERYBODY = "all"


def recipes_title(means: Mapping[str, float], metric: str) -> str:
    """Say which recipe is best and how far ahead of the next one it is."""
    if not means:
        return "No recipe could be judged"
    best, *others = sorted(means, key=lambda name: means[name], reverse=True)
    if not others:
        return f"{best} reaches {means[best]:.3f} {metric_label(metric)}"
    second = others[0]
    if means[second] <= 0:
        return f"{best} has the best {metric_label(metric)}"
    ahead = change(means[best] / means[second] - 1)
    if ahead == NO_CHANGE:
        return f"{best} and {second} are level at {means[best]:.3f} {metric_label(metric)}"
    return f"{best} has the best {metric_label(metric)}, {ahead} on {second}"


def lifts_title(lifts: Sequence[LiftRow], against: str) -> str:
    """Say which recipe is proved better than `against`, or that none is."""
    proved = [row for row in lifts if row.proved]
    if proved:
        best = max(proved, key=lambda row: row.lift)
        return f"{best.name} beats {against} by {change(best.lift).removeprefix('+')}"
    if all(row.underpowered is not None for row in lifts):
        return f"Nobody could be held against {against}: too little evidence"
    return f"No recipe is proved better than {against}"


def e_processes_title(accounts: Sequence[EProcessStatus]) -> str:
    """Say which candidate has the points for a switch, or is nearest to them."""
    first = max(accounts, key=lambda status: status.e_process.e_value)
    points = first.e_process.e_value
    text = f"{first.recipe} has {e_value_text(points)} of {first.threshold:,.0f} points"
    if points >= first.threshold:
        return f"{text}: enough for a switch"
    if points <= 1:
        return "No candidate has gathered evidence that it is better"
    return text if len(accounts) == 1 else f"{text}: the nearest to a switch"


def e_process_line(status: EProcessStatus) -> str:
    """Write an account: points, lift, what a block can show, how many more it may take."""
    account = status.e_process
    text = f"{status.recipe}: {e_value_text(account.e_value)} of {status.threshold:,.0f} points"
    if account.blocks:
        blocks = "1 block" if account.blocks == 1 else f"{account.blocks:,} blocks"
        lo, hi = normal_interval(account.lift, account.se)
        text += f"; {change(account.lift)} ({change(lo)} to {change(hi)}) over {blocks}"
    if status.smallest_effect is not None:
        text += f"; a block like tonight's can show {change(status.smallest_effect)}"
    if status.blocks_for_two_percent and account.e_value < status.threshold:
        text += f"; a true +2 % needs about {status.blocks_for_two_percent:,} more"
    return f"{text}; {status.waiting}." if status.waiting else f"{text}."


def metric_title(past: Sequence[PastRun], metric: str) -> str:
    """Say what the champion reaches tonight, beside the night before of an equally long block."""
    last = past[-1]
    if last.mean is None:
        return f"{metric_label(metric)} of the champion, night by night"
    text = f"{last.recipe} reaches {last.mean:.4f} {metric_label(metric)}"
    before = [row for row in past[:-1] if row.holdout_days == last.holdout_days and row.mean]
    if not before:
        return text
    return f"{text}, {change(last.mean / (before[-1].mean or 1) - 1)} on {day(before[-1].as_of)}"


def lift_title(past: Sequence[PastRun]) -> str:
    """Say how far the champion is ahead of the best baseline, tonight and before."""
    known = [row for row in past if row.lift is not None]
    last = known[-1]
    ahead = sum((row.lift or 0) > 0 for row in known)
    text = f"{last.recipe} is {change(last.lift or 0).lstrip('+−')} "
    text += "ahead of" if (last.lift or 0) >= 0 else "behind"
    text += " the best baseline"
    if last.lift == 0:
        text = f"{last.recipe} is the best baseline, or level with it"
    if len(known) == 1:
        return text
    nights = "all" if ahead == len(known) else f"{ahead} of"
    return f"{text}; ahead on {nights} {len(known)} nights"


def forest_title(slices: Sequence[SliceRow], challenger: str, against: str) -> str:
    """Say in which groups an interval lies on one side of zero."""
    judged = [row for row in slices if row.underpowered is None and row.lift is not None]
    if not judged:
        return f"No group is large enough to tell {challenger} from {against}"
    better = sum((row.lo or 0) > 0 for row in judged)
    worse = [row for row in judged if (row.hi or 0) < 0]
    of = f"of {len(judged)} groups"
    if not worse and better == len(judged):
        return f"{challenger} is better than {against} in every group"
    if not worse:
        return f"{challenger} is better than {against} in {better} {of}, worse in none"
    if len(worse) == len(judged):
        return f"{challenger} is worse than {against} in every group"
    named = f"in {plain(worse[0].name)}" if len(worse) == 1 else f"in {len(worse)} {of}"
    return f"{challenger} is worse than {against} {named}" + (
        f", better in {better}" if better else ""
    )


def reach_title(coverage: Mapping[str, float], winner: str | None) -> str:
    """Say how much of the catalogue is recommended, by the winner and at most."""
    most = max(coverage, key=lambda name: (coverage[name], name))
    own = winner if winner is not None and winner in coverage else most
    text = f"{own} recommends {share(coverage[own])} of the catalogue"
    if len(coverage) == 1:
        return text
    if share(coverage[own]) == share(coverage[most]):
        return f"{text}, as much as any"
    return f"{text}; {most} the most, {share(coverage[most])}"


def churn_title(churn: Sequence[Dated[ChurnFile]], tonight: datetime) -> str:
    """Say what part of the lists of people who did nothing changed, and for what.

    Another night's lists are named by its day.
    """
    known = [(as_of, file.first) for as_of, file in churn if file.first.overlap is not None]
    if not known:
        return "Nobody's lists could be compared with the ones before"
    as_of, last = known[-1]
    text = f"{share(last.overlap or 0)} of what idle people see stayed as it was"
    if as_of != tonight:
        text = f"When lists changed on {day(as_of)}, {text}"
    causes = [(part, name) for name, part in sorted(last.lost.items()) if part > 0]
    if not causes:
        return text
    most = max(causes, key=lambda cause: cause[0])
    return f"{text}; what changed did so most for {plain(most[1])}"


def live_title(live: Sequence[Dated[LiveFigures]], metric: str) -> str:
    """Say what the newest lists were worth to people who came back."""
    last = [row for _, row in live if row.slice == EVERYBODY and row.ndcg is not None][-1]
    return (
        f"Live, version {last.model_version} reached {last.ndcg:.4f} {metric_label(metric)} "
        f"with {number(last.users)} people"
    )


def reasons_title(reasons: Mapping[str, int], rows: int) -> str:
    """Say how many rows are in quarantine, and for what most of them."""
    most = max(reasons, key=lambda reason: (reasons[reason], reason))
    are = "row is" if rows == 1 else "rows are"
    text = f"{rows:,} {are} in quarantine"
    return f"{text}: {plain(most)}" if len(reasons) == 1 else f"{text}, most for {plain(most)}"
