"""What earlier nights left for a night's page: the champion's level and lift, accounts, lists.

Promises: a page reads the ledger as it stood before its night, so it says the same whenever it is
written; an earlier run whose files are gone leaves a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from pipeline.base import parse_instant
from pipeline.errors import StorageError
from pipeline.report.past import AccountRow, ChurnRow, FoldRow, LiveRow, PastRow, StandRow
from pipeline.steps.diagnostics.churn import FIRST, read_churn
from pipeline.steps.diagnostics.foldin_parity import (
    FOLDED,
    FOLLOWED,
    MEASURED,
    RETRAINED,
    read_parity,
)
from pipeline.steps.diagnostics.live_quality import read_live
from pipeline.stores.runs import Run
from pipeline.workspace.history import CALIBRATION
from pipeline.workspace.night import Night
from pipeline.workspace.workspace import Workspace

_95 = 1.96
_T = TypeVar("_T")


@dataclass(frozen=True)
class Made:
    """What is known of a promotion's own lists, once they are made.

    Attributes
    ----------
    churned
        What they change for people who did nothing, see `churn.measure`.
    folded
        How near the champion's fold-in came to them, see `parity.measure_parity`.
    """

    churned: Mapping[str, Any] | None = None
    folded: Mapping[str, Any] | None = None


NOTHING_MADE: Final = Made()


def trust(ws: Workspace, night: Night) -> str:
    """Say what the newest calibration up to a night found, and how old it was then."""
    known = [
        entry
        for entry in ws.ledger.entries()
        if entry["type"] == CALIBRATION and parse_instant(entry["as_of"]) <= night.as_of
    ]
    if not known:
        return ""
    newest = max(known, key=lambda entry: parse_instant(entry["as_of"]))
    measured = parse_instant(newest["as_of"])
    days = (night.as_of - measured).days
    age = "today" if not days else "1 day before" if days == 1 else f"{days} days before"
    return f"The gate itself, measured on {measured:%Y-%m-%d} ({age}): {newest['sentence']}."


def past_rows(
    ws: Workspace, before: Iterable[Mapping[str, Any]], tonight: Mapping[str, Any], metric: str
) -> tuple[PastRow, ...]:
    """Tell what the champion of each night reached on that night's holdout.

    Parameters
    ----------
    before
        Lines of `decisions_before`; those of another task are left out.
    tonight
        ``run_id``, ``as_of``, ``recipe``, ``kind``, ``block_days``, ``task`` and ``decision``, as
        tonight's line will have them.
    """
    told = [entry for entry in before if entry["task"] == tonight["task"]]
    rows = (_past_row(ws, entry, metric) for entry in (*told, tonight))
    return tuple(row for row in rows if row is not None)


def account_rows(
    before: Iterable[Mapping[str, Any]], as_of: datetime, accounts: Iterable[Mapping[str, Any]]
) -> tuple[AccountRow, ...]:
    """Follow tonight's accounts back to where they were opened.

    Parameters
    ----------
    before
        Lines of `decisions_before`.
    accounts
        Of tonight's decision, as JSON.
    """
    paths: dict[tuple[str, str], list[StandRow]] = {}
    nights = [(parse_instant(entry["as_of"]), entry["decision"]["accounts"]) for entry in before]
    for instant, told in (*nights, (as_of, list(accounts))):
        keys = {_key(account) for account in told}
        champions = {champion for champion, _ in keys}
        # Another champion closed what was open; who comes back begins anew.
        paths = {key: path for key, path in paths.items() if not told or key[0] in champions}
        for account in told:
            stand = StandRow(instant, float(account["log_points"]))
            paths.setdefault(_key(account), []).append(stand)
    return tuple(_account_row(account, tuple(paths[_key(account)])) for account in accounts)


def live_rows(before: Iterable[Mapping[str, Any]], night: Night) -> tuple[LiveRow, ...]:
    """Tell what people did with the lists that were live, as each night counted.

    Parameters
    ----------
    before
        Lines of `decisions_before`.
    """
    nights = [(parse_instant(entry["as_of"]), entry.get("live", ())) for entry in before]
    tonight = read_live(night.run)
    if tonight is not None:
        nights.append((night.as_of, tonight["rows"]))
    return tuple(
        LiveRow(
            as_of=as_of,
            model_version=str(row["model_version"]),
            slice=row["slice"],
            users=int(row["users"]),
            events=int(row["events"]),
            hit_rate=row["hit_rate"],
            ndcg=row["ndcg"],
            lo=row["ndcg_lo"],
            hi=row["ndcg_hi"],
            base_ndcg=row["base_only_ndcg"],
        )
        for as_of, rows in nights
        for row in rows
    )


def churn_rows(
    ws: Workspace,
    before: Iterable[Mapping[str, Any]],
    tonight: tuple[datetime, Mapping[str, Any] | None],
) -> tuple[ChurnRow, ...]:
    """Tell what each promotion changed for people who did nothing.

    Parameters
    ----------
    before
        Lines of `decisions_before`.
    tonight
        Its as-of, and what it measured, if it did.
    """
    nights = [
        (parse_instant(entry["as_of"]), _read(ws, entry["run_id"], read_churn)) for entry in before
    ]
    return tuple(
        ChurnRow(
            as_of=as_of,
            overlap=told["at"][str(FIRST)]["overlap"],
            idle=int(told["users"]),
            causes=tuple(sorted(told["at"][str(FIRST)]["lost"].items())),
            dice=told["dice"]["rate"],
            note=told["dice"]["why"] or "",
        )
        for as_of, told in (*nights, tonight)
        if told is not None
    )


def fold_rows(
    ws: Workspace,
    before: Iterable[Mapping[str, Any]],
    night: Night,
    tonight: Mapping[str, Any] | None,
) -> tuple[FoldRow, ...]:
    """Tell how near fold-in came to training again at each promotion, and what both were worth.

    Parameters
    ----------
    before
        Lines of `decisions_before`.
    tonight
        What the night's own promotion measured, if it did.
    """
    runs = [(parse_instant(entry["as_of"]), str(entry["run_id"])) for entry in before]
    found = [(as_of, run_id, _read(ws, run_id, _measured)) for as_of, run_id in runs]
    since: dict[str, Mapping[str, Any]] = {}
    for run_id in (*(run_id for _, run_id in runs), night.run.run_id):
        if (told := _read(ws, run_id, _followed)) is not None:
            since[told["run_id"]] = told
    return tuple(
        FoldRow(
            as_of=as_of,
            users=int(told["users"]),
            overlap=told["overlap"],
            folded=_ndcg(since.get(run_id), FOLDED),
            retrained=_ndcg(since.get(run_id), RETRAINED),
            note=told["why"] or "",
        )
        for as_of, run_id, told in (*found, (night.as_of, night.run.run_id, tonight))
        if told is not None
    )


def _measured(run: Run) -> Mapping[str, Any] | None:
    return read_parity(run, MEASURED)


def _followed(run: Run) -> Mapping[str, Any] | None:
    return read_parity(run, FOLLOWED)


def _ndcg(told: Mapping[str, Any] | None, name: str) -> float | None:
    return None if told is None or told[name] is None else told[name]["ndcg"]


def _key(account: Mapping[str, Any]) -> tuple[str, str]:
    return account["champion_hash"], account["recipe_hash"]


def _account_row(account: Mapping[str, Any], path: tuple[StandRow, ...]) -> AccountRow:
    lift, se = account["lift"], account["se"]
    known = lift is not None and se is not None
    return AccountRow(
        recipe=account["recipe"],
        points=float(account["points"]),
        threshold=float(account["threshold"]),
        lift=lift,
        lo=lift - _95 * se if known else None,
        hi=lift + _95 * se if known else None,
        blocks=int(account["blocks"]),
        smallest_effect=account["smallest_effect"],
        more_blocks=account["blocks_for_two_percent"],
        waiting=account["waiting"],
        path=path,
    )


def _past_row(ws: Workspace, entry: Mapping[str, Any], metric: str) -> PastRow | None:
    recipe, decision = entry["recipe"], entry["decision"]
    if recipe is None:
        return None
    found = _metrics(ws, entry["run_id"], recipe)
    block = decision.get("block")
    ratio = next(
        (
            told
            for told in decision["ratios"]
            if told["recipe_hash"] == decision["recipe_hash"]
            and (block is None or told["block"] == block)
        ),
        None,
    )
    lift = None if ratio is None else ratio["ratio"] - 1
    half = 0.0 if ratio is None else _95 * ratio["se"]
    return PastRow(
        as_of=parse_instant(entry["as_of"]),
        kind=entry["kind"],
        recipe=recipe,
        block_days=int(entry["block_days"]),
        mean=found.get(metric),
        lo=found.get(f"{metric}_lo"),
        hi=found.get(f"{metric}_hi"),
        lift=lift,
        lift_lo=None if lift is None else lift - half,
        lift_hi=None if lift is None else lift + half,
    )


def _metrics(ws: Workspace, run_id: str, recipe: str) -> dict[str, float]:
    told = _read(ws, run_id, lambda run: run.json("evaluate", "evaluation")["recipes"])
    return dict(told[recipe]["metrics"]) if told and recipe in told else {}


def _read(ws: Workspace, run_id: str, how: Callable[[Run], _T | None]) -> _T | None:
    """Read from an earlier run; None where its files are gone."""
    try:
        return how(ws.runs.open(run_id))
    except StorageError:
        return None
