"""Drift as a step: read what the days before an instant hold, and judge every signal.

Promises: a pass between two nights looks at whole days that end at the hour of the last night's
as-of, so it says the same all day, and the night that it asks for finds the same; what a night told
once begins its reference anew, by the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline import columns as c
from pipeline.base import Interval, Progress, parse_instant, silent
from pipeline.data.cluster_robust import FEWEST
from pipeline.data.split import Split, before, between
from pipeline.evaluation.prequential import ALL, Prequential
from pipeline.monitoring.drift import Quality, Worth, windows_at
from pipeline.monitoring.drift import drift as judge
from pipeline.monitoring.drift_windows import Windows
from pipeline.monitoring.rates import EVERYBODY, Answers
from pipeline.monitoring.signals import Known
from pipeline.monitoring.verdicts import Drift, Verdict
from pipeline.report.watched import DriftRow
from pipeline.steps.diagnostics.live_quality import score_span
from pipeline.steps.feedback.attribution import joined
from pipeline.stores.runs import Run
from pipeline.workspace.as_of_view import Lately
from pipeline.workspace.night import Night
from pipeline.workspace.run_files import read_split
from pipeline.workspace.workspace import Workspace

STEP: Final = "drift"
NIGHTS: Final = timedelta(days=90)
"""How long a night's live quality is something to compare with."""
_DAY: Final = timedelta(days=1)
_EVENTS: Final = (c.USER_ID, c.ITEM_ID, c.KIND, c.VALUE, c.TIMESTAMP)


def drift(ws: Workspace, at: datetime, *, progress: Progress = silent) -> Drift:
    """Judge the days before an instant, as the lake holds them now."""
    return seen(Lately.now(ws, at), progress)


def drift_of(ws: Workspace, night: Night, tell: Progress = silent) -> Drift:
    """Return what a night says of the days before it, which it keeps."""
    if night.run.committed(STEP) is None:
        asked = night.facts.get("asked")
        if asked is not None:  # what started it is what it answers
            found = Drift.from_dict(asked["drift"])
        else:
            found = seen(Lately.of(ws, night), tell)
        with night.run.draft(STEP) as draft:
            draft.json(STEP, found.to_dict())
            draft.rows = len(found.signals)
    return Drift.from_dict(night.run.json(STEP, STEP))


def read_drift(run: Run) -> Drift | None:
    """Return what a night kept, ``None`` where it has not looked."""
    return None if run.committed(STEP) is None else Drift.from_dict(run.json(STEP, STEP))


def drift_summary(run: Run) -> dict[str, Any] | None:
    """Return what a ledger line keeps: the verdict, and since when which signal drifts."""
    found = read_drift(run)
    if found is None:
        return None
    told = found.to_dict()["signals"]
    since = {x["name"]: x["since"] for x in told if x["verdict"] == Verdict.DRIFT}
    return {"verdict": found.verdict.value, "sentence": found.sentence, "since": since}


def drift_rows(found: Drift) -> tuple[DriftRow, ...]:
    """Return drift as a page and a table take it."""
    return tuple(
        DriftRow(x.name, x.verdict.value, x.figure, x.bound, x.sentence) for x in found.signals
    )


def drift_metrics(run: Run) -> dict[str, float]:
    """Name how far each signal is, as metrics of a night."""
    found = read_drift(run)
    known = () if found is None else found.signals
    return {f"drift.{x.name}": x.figure for x in known if x.figure is not None}


def seen(lately: Lately, tell: Progress = silent) -> Drift:
    """Judge the whole days before an instant."""
    tell("look for drift")
    config, decisions = lately.config.drift, lately.decisions()
    end = _end(lately, decisions)
    windows = windows_at(end, config)
    past = before(windows.span.start)
    items = lately.table("items", [c.ITEM_ID, c.PRICE, c.CATEGORIES])
    return judge(
        lately.events(_EVENTS, between(windows.span)),
        items,
        Known(
            lately.events([c.USER_ID], past)[c.USER_ID].unique(),
            lately.events([c.ITEM_ID], past)[c.ITEM_ID].unique(),
        ),
        tuple(_qualities(lately, windows, decisions)),
        _restarts(decisions),
        end=end,
        config=config,
    )


def _end(lately: Lately, decisions: Sequence[Mapping[str, Any]]) -> datetime:
    """Return where the latest day ends: a night's as-of, or the hour of the last one."""
    if lately.night is not None or not decisions:
        return lately.at
    judged = parse_instant(decisions[-1]["as_of"])
    return judged + (lately.at - judged) // _DAY * _DAY


def _restarts(decisions: Iterable[Mapping[str, Any]]) -> dict[str, datetime]:
    found: dict[str, datetime] = {}
    for line in decisions:
        since = (line.get("drift") or {}).get("since", {})
        found |= {name: parse_instant(instant) for name, instant in since.items()}
    return found


def _qualities(
    lately: Lately, windows: Windows, decisions: Sequence[Mapping[str, Any]]
) -> Iterator[Quality]:
    """Yield what live lists were worth: their NDCG, and the share of entries that was answered."""
    if not decisions:
        return
    last, oldest = decisions[-1], windows.start(windows.recent - 1)
    recent = [line for line in decisions if parse_instant(line["as_of"]) > oldest - NIGHTS]
    then = [x for x in recent if parse_instant(x["as_of"]) <= oldest and x["task"] == last["task"]]
    days = [Interval(windows.start(at), windows.start(at) + _DAY) for at in range(windows.recent)]
    nights = _known(_ndcg_then(line) for line in then)
    found: list[Worth | None] = [None for _ in days]
    if len(nights) >= lately.config.drift.least_nights:
        split = read_split(lately.ws.runs.open(last["run_id"]))
        found = [_ndcg_of(_scored(lately, split, day)) for day in days]
    yield Quality("ndcg", tuple(found), nights)
    nights = _known(_rate_then(line) for line in then)
    if len(nights) >= lately.config.drift.least_nights:
        found = [_rate_of(joined(lately, day)) for day in days]
    yield Quality("answers", tuple(found), nights)


def _scored(lately: Lately, split: Split, day: Interval) -> Prequential:
    return score_span(lately.ws, lately.events, split, lately.config, day)


def _ndcg_of(found: Prequential) -> Worth | None:
    """Return the mean over all versions of a day, ``None`` of too few people."""
    rows = [row for row in found.rows if row.slice == ALL and row.ndcg.se is not None]
    if sum(row.users for row in rows) < FEWEST:
        return None
    return _pooled([Worth(x.ndcg.mean, x.ndcg.se, x.user_days, x.users) for x in rows])


def _ndcg_then(line: Mapping[str, Any]) -> Worth | None:
    rows = [x for x in line.get("live", ()) if x["slice"] == ALL and x["ndcg"] is not None]
    parts = [Worth(x["ndcg"], x.get("ndcg_se"), x["user_days"], x["users"]) for x in rows]
    return _pooled(parts)


def _rate_of(found: Answers) -> Worth | None:
    everybody = next((row for row in found.rows if row.by == EVERYBODY), None)
    if everybody is None or everybody.figures is None:
        return None
    rate = everybody.figures.answer_rate
    return Worth(rate.mean, rate.se, everybody.figures.exposures, everybody.people)


def _rate_then(line: Mapping[str, Any]) -> Worth | None:
    told = line.get("answers") or {}
    rate = told.get("answer_rate")
    if rate is None:
        return None
    return Worth(rate, told["answer_rate_se"], told["exposures"], told["people"])


def _pooled(parts: Sequence[Worth]) -> Worth | None:
    """Pool versions, weighed by how many days of people each is of."""
    total = sum(part.of for part in parts)
    if not total:
        return None
    mean = sum(part.mean * part.of for part in parts) / total
    known = [part.se * part.of for part in parts if part.se is not None]
    se = math.hypot(*known) / total if len(known) == len(parts) else None
    return Worth(mean, se, total, sum(part.people for part in parts))


def _known(found: Iterable[Worth | None]) -> tuple[Worth, ...]:
    return tuple(one for one in found if one is not None)
