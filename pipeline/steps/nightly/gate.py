"""The gate as a step: lay the evidence out, decide, write the decision, its page and the ledger.

The decision follows from files that were committed before and from ledger lines of earlier nights,
so a retry decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.base import Progress, format_instant, parse_instant, silent
from pipeline.data.split import Split
from pipeline.evaluation.evaluate import NDCG, metric_name
from pipeline.evaluation.gate import (
    Absent,
    Anchor,
    Check,
    Decision,
    Evidence,
    Past,
    Reference,
    decide,
    remember,
)
from pipeline.failpoints import failpoint
from pipeline.steps.diagnostics.live_quality import live_summary
from pipeline.steps.feedback.attribution import answers_summary
from pipeline.steps.feedback.drift import drift_summary
from pipeline.steps.feedback.policy import read_policy
from pipeline.steps.reporting.night_page import gather
from pipeline.steps.reporting.page_files import draft_rows, draw_page
from pipeline.stores.runs import Ref
from pipeline.workspace.chosen_recipes import choices
from pipeline.workspace.history import ACCEPTANCE, ANCHOR, DECISION, PUBLICATION
from pipeline.workspace.night import Night, open_night
from pipeline.workspace.run_files import absences, judged, read_split, trained
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class Decided:
    """What the gate decided, and where it stands.

    Attributes
    ----------
    ask
        Whether a person is to be asked about a candidate in the grey zone.
    """

    kind: str
    sentence: str
    ask: bool
    ref: Ref

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def gate(ws: Workspace, run_id: str, *, progress: Progress = silent) -> Decided:
    """Decide on the night; a replay's decision stays out of the ledger."""
    night = open_night(ws, run_id)
    if night.run.committed("gate") is None:
        progress("gate")
        parts = read_split(night.run)
        decision = decide(_evidence(night, parts, past_of(ws, night)), night.config.gate)
        with night.run.draft("gate") as draft:
            draft.json("decision", decision.to_dict())
            draft.json("metrics", _metrics(night, decision))
            draft_rows(draft, gather(ws, night, decision), measured=False)
            draft.rows = len(decision.rules)
        failpoint("decided")
    draw_page(night.run)
    decision_dict = night.run.json("gate", "decision")
    split = night.run.json("features", "split")
    if not night.replay:
        ws.ledger.append(
            f"{DECISION}:{run_id}",
            DECISION,
            {
                "run_id": run_id,
                "as_of": format_instant(night.as_of),
                "kind": decision_dict["kind"],
                "recipe": decision_dict["recipe"],
                "sentence": decision_dict["sentence"],
                "block_days": split["block_days"],
                "settled": choices(night),
                "weights": {
                    "asked": night.facts["config"]["features"],
                    "chosen": night.config.features.model_dump(mode="json"),
                },
                "task": _task(night, split),
                "live": live_summary(night),
                "answers": answers_summary(night.run),
                "drift": drift_summary(night.run),
                "asked": read_policy(night.run),
                "decision": decision_dict,
            },
        )
    ask = night.config.gate.ask and decision_dict["grey"] is not None and not night.replay
    return Decided(decision_dict["kind"], decision_dict["sentence"], ask, night.run.ref("gate"))


def _evidence(night: Night, split: Split, past: Past) -> Evidence:
    run = night.run
    evaluation = run.json("evaluate", "evaluation")
    missing = absences(night)
    names = trained(night)
    validation = run.json("validate", "validation")
    found = evaluation["references"]
    # What has no place in this task is no gap in the evidence; what failed is.
    expected = tuple(n for n in night.recipes if n in names or run.committed(f"train/{n}") is None)
    return Evidence(
        k=night.config.recommend.length,
        holdout=split.holdout,
        judged=judged(night),
        expected=expected,
        champion=night.champion_name,
        checks=tuple(
            Check(*(check[name] for name in ("name", "passed", "sentence", "figure", "bound")))
            for check in validation["checks"]
        ),
        absent=tuple(
            Absent(name, night.recipes[name].capabilities.baseline, missing[name])
            for name in expected
            if name in missing
        ),
        last=_reference(night, found, "last"),
        month=_reference(night, found, "month"),
        skipped=(found["skipped"],) if "skipped" in found else (),
        past=past,
    )


def _reference(night: Night, found: dict[str, Any], label: str) -> Reference | None:
    if label not in found:
        return None
    return Reference(
        label=found[label]["day"],
        tonight=night.run.frame("evaluate", f"reference-{label}-tonight"),
        stored=night.run.frame("evaluate", f"reference-{label}-stored"),
    )


def past_of(ws: Workspace, night: Night) -> Past:
    """Gather what nights before this one's as-of, and people, left to it.

    Figures of another task (policy, kinds, length of a list) are no measure for tonight's.
    """
    entries = ws.ledger.entries()
    task = _task(night, night.run.json("features", "split"))
    before = [e for e in entries if "as_of" in e and parse_instant(e["as_of"]) < night.as_of]
    before.sort(key=lambda entry: parse_instant(entry["as_of"]))
    changed = {e["run_id"]: e["decision"] for e in before if e["type"] == ACCEPTANCE}
    nights = [e for e in before if e["type"] == DECISION and e["task"] == task]
    live = {e["run_id"] for e in entries if e["type"] == PUBLICATION}
    decisions = [Decision.from_dict(changed.get(e["run_id"], e["decision"])) for e in nights]
    past = remember(decisions, [e["run_id"] in live for e in nights])
    anchors = {a.recipe_hash: a for a in past.anchors}
    for entry in before:
        if entry["type"] == ANCHOR and entry["task"] == task:
            _set_anchor(anchors, entry, nights, decisions)
    return replace(past, anchors=tuple(anchors.values()))


def _set_anchor(
    anchors: dict[str, Anchor],
    entry: Mapping[str, Any],
    nights: Sequence[Mapping[str, Any]],
    decisions: Sequence[Decision],
) -> None:
    """Put a person's anchor over what earlier nights left; later ones carry it on, or a newer."""
    by_hand = Anchor(**entry["anchor"])
    later = [
        decision
        for night, decision in zip(nights, decisions, strict=True)
        if parse_instant(night["as_of"]) > parse_instant(entry["as_of"]) and decision.anchor
    ]
    if not any(d.anchor and d.anchor.recipe_hash == by_hand.recipe_hash for d in later):
        anchors[by_hand.recipe_hash] = by_hand


def _task(night: Night, split: dict[str, Any]) -> dict[str, Any]:
    """Name what figures must have in common to be compared."""
    return {
        "policy": split["policy"],
        "target_kinds": split["target_kinds"],
        "k": night.config.recommend.length,
    }


def _metrics(night: Night, decision: Decision) -> dict[str, dict[str, float | None]]:
    """Line up what candidate, champion's recipe and best baseline reached, metric by metric."""
    found = night.run.json("evaluate", "evaluation")["recipes"]
    primary = metric_name(NDCG, night.config.recommend.length)

    def best(names: list[str]) -> str | None:
        return max(names, key=lambda name: found[name]["metrics"].get(primary, 0.0), default=None)

    baselines = [n for n in found if night.recipes[n].capabilities.baseline is not None]
    others = [n for n in found if n not in baselines and n != night.champion_name]
    candidate = decision.recipe if decision.recipe != night.champion_name else None
    shown = {
        "candidate": candidate or best(others),
        "champion": night.champion_name,
        "baseline": best(baselines),
    }
    metrics = sorted({m for f in found.values() for m in f["metrics"] if m.count(".") == 0})
    return {
        metric: {
            role: found[name]["metrics"].get(metric) if name in found else None
            for role, name in shown.items()
        }
        for metric in metrics
    }
