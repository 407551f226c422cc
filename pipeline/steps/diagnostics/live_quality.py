"""The prequential track as a night keeps it: what the live lists were worth since the night before.

Promises: a night scores the events between the last decided night's as-of and its own, as it
pinned them; so each event is scored by one night, and one that is ingested after its night by none.
A replay's scores are kept with it and are no history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import polars as pl

from pipeline import columns as c
from pipeline.base import Interval, Progress, format_instant, parse_instant
from pipeline.data.exposure import in_play, lists_for
from pipeline.data.split import Split, between
from pipeline.data.targets import is_target
from pipeline.evaluation.evaluate import metric_name
from pipeline.evaluation.prequential import ALL, Prequential, past_of, prequential
from pipeline.report.live import LiveNight, LiveScore, live_table
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.config import Config
from pipeline.workspace.history import DECISION, last_judged
from pipeline.workspace.night import Night, read_pinned
from pipeline.workspace.workspace import Workspace

ReadEvents = Callable[[Sequence[str], pl.Expr], pl.DataFrame]

FILE: Final = "live"
_STEP: Final = "evaluate"
_TOLD: Final = ("users", "user_days", "events", "hit_rate", "ndcg", "ndcg_lo", "ndcg_hi")
_BARE: Final = ("base_only_hit_rate", "base_only_ndcg")


@dataclass(frozen=True)
class LiveHistory:
    """What live lists were worth, night by night."""

    nights: tuple[LiveNight, ...]
    entries: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON: everything that each night stored."""
        return {"entries": list(self.entries)}

    def text(self) -> str:
        """As a table for a person."""
        return live_table(self.nights)


def write_live(ws: Workspace, night: Night, split: Split, draft: Draft, tell: Progress) -> None:
    """Score the new events; the first night of a workspace has none, for nothing was live."""
    found = score(ws, night, split, tell)
    if found is not None:
        draft.json(FILE, found.to_dict())


def score(ws: Workspace, night: Night, split: Split, tell: Progress) -> Prequential | None:
    """Score the target events since the newest night that decided before; ``None`` without one."""
    moment = timedelta(microseconds=1)
    before = last_judged(ws.ledger.entries(), night.as_of - moment)
    if before is None:
        return None
    tell("score what was live")

    def read(columns: Sequence[str], where: pl.Expr) -> pl.DataFrame:
        return read_pinned(ws, night, "events", columns=columns, where=where)

    return score_span(ws, read, split, night.config, Interval(before[0], night.as_of))


def score_span(
    ws: Workspace, read: ReadEvents, split: Split, config: Config, span: Interval
) -> Prequential:
    """Score the target events of a span against the lists that were live.

    `read` gives the events that are known of, columns and rows as asked for.
    """
    wanted = is_target(split.target_kinds, config.features.rating_threshold)
    columns = (c.USER_ID, c.ITEM_ID, c.TIMESTAMP)
    events = read(columns, between(span) & wanted)
    people = events[c.USER_ID].unique().to_list()
    publications = ws.lake.read("publications")
    return prequential(
        events,
        read(columns, past_of(people, span)),
        publications,
        ws.lake.read("recommendations", where=lists_for(in_play(publications, span), people)),
        span=span,
        k=config.recommend.length,
        policy=split.policy,
    )


def live_summary(night: Night) -> list[dict[str, Any]]:
    """Return what a ledger line keeps: a row a version and slice, means and bounds of the NDCG."""
    told = read_live(night.run)
    names = ("model_version", "slice", *_TOLD, "ndcg_se", *_BARE)
    return [] if told is None else [{name: row[name] for name in names} for row in told["rows"]]


def live_metrics(run: Run) -> dict[str, float]:
    """Name what the version that was live last reached with everybody, as metrics."""
    told = read_live(run)
    rows = [] if told is None else [row for row in told["rows"] if row["slice"] == ALL]
    if told is None or not rows:
        return {}
    last, named = rows[-1], {"live.users": float(rows[-1]["users"])}
    for metric in ("hit_rate", "ndcg"):
        for end in ("", "_lo", "_hi"):
            if (value := last[f"{metric}{end}"]) is not None:
                named[f"live.{metric_name(metric, told['k'])}{end}"] = value
    return named


def read_live(run: Run) -> dict[str, Any] | None:
    """Return what a night stored, or ``None`` where it stored nothing."""
    if run.committed(_STEP) is None or f"{FILE}.json" not in run.manifest(_STEP)["files"]:
        return None
    told: dict[str, Any] = run.json(_STEP, FILE)
    return told


def live_history(ws: Workspace) -> LiveHistory:
    """Gather what all decided nights scored, oldest first; of two on one as-of the later one."""
    runs = {
        parse_instant(entry["as_of"]): str(entry["run_id"])
        for entry in ws.ledger.entries()
        if entry["type"] == DECISION
    }
    entries, nights = [], []
    for as_of, run_id in sorted(runs.items()):
        told = read_live(ws.runs.open(run_id))
        if told is None:
            continue
        entries.append({c.AS_OF: format_instant(as_of), c.RUN_ID: run_id, **told})
        scores = tuple(
            LiveScore(**{name: row[name] for name in (c.MODEL_VERSION, *_TOLD, *_BARE)})
            for row in told["rows"]
            if row["slice"] == ALL
        )
        nights.append(LiveNight(as_of, told["k"], told["unlisted"], scores))
    return LiveHistory(tuple(nights), tuple(entries))
