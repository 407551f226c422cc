"""The finding of each figure over time and of each figure about lists and data, as its title.

Promises: a title says what is to be seen; what was not measured is not claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.evaluation.gate.e_process import points_text
from pipeline.report.night import ReasonRow, RecipeRow, SliceRow
from pipeline.report.past import AccountRow, ChurnRow, LiveRow, PastRow
from pipeline.report.wording import change, metric_label, number, plain

EVERYBODY = "all"


def day(instant: datetime) -> str:
    """Write a day as ``1 Dec``."""
    return f"{instant.day} {instant:%b}"


def share(value: float) -> str:
    """Write a share of a whole: ``1.6 %``, ``93 %``, ``under 0.1 %``."""
    percent = 100 * value
    if 0 < percent < 0.05:
        return "under 0.1 %"
    if percent == 0 or percent == 100:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent < 9.95 or percent > 99 else f"{percent:.0f} %"


def accounts_title(accounts: Sequence[AccountRow]) -> str:
    """Say who has the points for a switch, or who is nearest to them."""
    first = max(accounts, key=lambda row: row.points)
    told = f"{first.recipe} has {points_text(first.points)} of {first.threshold:,.0f} points"
    if first.points >= first.threshold:
        return f"{told}: enough for a switch"
    if first.points <= 1:
        return "No candidate has gathered evidence that it is better"
    return told if len(accounts) == 1 else f"{told}: the nearest to a switch"


def account_line(row: AccountRow) -> str:
    """Write an account: points, lift, what a block can show, how many more it may take."""
    told = f"{row.recipe}: {points_text(row.points)} of {row.threshold:,.0f} points"
    if row.lift is not None and row.lo is not None and row.hi is not None:
        blocks = "1 block" if row.blocks == 1 else f"{row.blocks:,} blocks"
        told += f"; {change(row.lift)} ({change(row.lo)} to {change(row.hi)}) over {blocks}"
    if row.smallest_effect is not None:
        told += f"; a block like tonight's can show {change(row.smallest_effect)}"
    if row.more_blocks and row.points < row.threshold:
        told += f"; a true +2 % needs about {row.more_blocks:,} more"
    return f"{told}; {row.waiting}." if row.waiting else f"{told}."


def metric_title(past: Sequence[PastRow], metric: str) -> str:
    """Say what the champion reaches tonight, beside the night before of an equally long block."""
    last = past[-1]
    if last.mean is None:
        return f"{metric_label(metric)} of the champion, night by night"
    told = f"{last.recipe} reaches {last.mean:.4f} {metric_label(metric)}"
    before = [row for row in past[:-1] if row.block_days == last.block_days and row.mean]
    if not before:
        return told
    return f"{told}, {change(last.mean / (before[-1].mean or 1) - 1)} on {day(before[-1].as_of)}"


def lift_title(past: Sequence[PastRow]) -> str:
    """Say how far the champion is ahead of the best baseline, tonight and before."""
    known = [row for row in past if row.lift is not None]
    last = known[-1]
    ahead = sum((row.lift or 0) > 0 for row in known)
    told = f"{last.recipe} is {change(last.lift or 0).lstrip('+−')} "
    told += "ahead of" if (last.lift or 0) >= 0 else "behind"
    told += " the best baseline"
    if last.lift == 0:
        told = f"{last.recipe} is the best baseline, or level with it"
    if len(known) == 1:
        return told
    nights = "all" if ahead == len(known) else f"{ahead} of"
    return f"{told}; ahead on {nights} {len(known)} nights"


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


def reach_title(recipes: Sequence[RecipeRow], winner: str | None) -> str:
    """Say how much of the catalogue is recommended, by the winner and at most."""
    known = [row for row in recipes if row.coverage is not None]
    most = max(known, key=lambda row: (row.coverage or 0, row.name))
    own = next((row for row in known if row.name == winner), most)
    told = f"{own.name} recommends {share(own.coverage or 0)} of the catalogue"
    if len(known) == 1:
        return told
    if share(own.coverage or 0) == share(most.coverage or 0):
        return f"{told}, as much as any"
    return f"{told}; {most.name} the most, {share(most.coverage or 0)}"


def churn_title(churn: Sequence[ChurnRow], tonight: datetime) -> str:
    """Say what part of the lists of people who did nothing changed, and for what.

    Another night's lists are named by its day.
    """
    last = next((row for row in reversed(churn) if row.overlap is not None), None)
    if last is None:
        return "Nobody's lists could be compared with the ones before"
    told = f"{share(last.overlap or 0)} of what idle people see stayed as it was"
    if last.as_of != tonight:
        told = f"When lists changed on {day(last.as_of)}, {told}"
    causes = [cause for cause in last.causes if cause[1] > 0]
    if not causes:
        return told
    return f"{told}; what changed did so most for {plain(max(causes, key=lambda x: x[1])[0])}"


def live_title(live: Sequence[LiveRow], metric: str) -> str:
    """Say what the newest lists were worth to people who came back."""
    rows = [row for row in live if row.slice == EVERYBODY and row.ndcg is not None]
    last = rows[-1]
    label = metric_label(metric)
    return (
        f"Live, version {last.model_version} reached {last.ndcg:.4f} {label} "
        f"with {number(last.users)} people"
    )


def reasons_title(reasons: Sequence[ReasonRow], rows: int) -> str:
    """Say how many rows are in quarantine, and for what most of them."""
    most = max(reasons, key=lambda row: (row.rows, row.reason))
    are = "row is" if rows == 1 else "rows are"
    told = f"{rows:,} {are} in quarantine"
    if len(reasons) == 1:
        return f"{told}: {plain(most.reason)}"
    return f"{told}, most for {plain(most.reason)}"
