"""Texts of a night's page: names of metrics, numbers, headlines, what a person can do next.

Guarantees: no figure is computed here, none is dropped; a percentage always carries its sign where
it is a change.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime

from pipeline.evaluation.gate.decision import RuleResult

HEADLINE = {
    "first": "A first model goes live",
    "switch": "A new recipe goes live",
    "refresh": "The same recipe goes live on newer data",
    "keep": "The champion stays live",
    "block": "Blocked: the live lists stay as they were",
}
NONE = "–"
NO_CHANGE = "0 %"
_STOPS = ("fail", "missing")
_UPPER = {"ndcg", "map", "mrr"}


def metric_label(name: str) -> str:
    """Write ``ndcg_at_20`` as ``NDCG@20``, ``slice.cold.recall_at_10`` as ``cold: recall@10``."""
    where, _, metric = name.rpartition(".")
    stem, at, k = metric.partition("_at_")
    stem = stem.upper() if stem in _UPPER else plain(stem)
    prefix = f"{plain(where.removeprefix('slice.'))}: " if where else ""
    return f"{prefix}{stem}@{k}" if at else f"{prefix}{stem}"


def plain(name: str) -> str:
    """Write a name as words: ``switch.new_items`` as ``switch new items``."""
    return re.sub(r"[._]+", " ", name).strip()


def change(value: float) -> str:
    """Write a relative change with its sign: ``+1.5 %``, ``−22 %``; whole from 10 % on."""
    if not math.isfinite(value):
        return "n/a"
    percent = 100 * value
    text = f"{abs(percent):.1f}" if abs(percent) < 9.95 else f"{abs(percent):.0f}"
    if float(text) == 0:
        return NO_CHANGE
    return f"{'+' if percent > 0 else '−'}{text} %"


def number(value: float | None) -> str:
    """Write a figure with four significant digits, large ones with thousands marks."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text.replace("-", "−")


def figure(value: float | None, form: str = ".4f") -> str:
    """Write a figure by a format, a dash for none."""
    return NONE if value is None else format(value, form)


def span(lo: float | None, hi: float | None, form: Callable[[float], str] = "{:.4f}".format) -> str:
    """Write an interval, a dash for none."""
    return NONE if lo is None or hi is None else f"{form(lo)} to {form(hi)}"


def share(value: float | None) -> str:
    """Write a share of a whole: ``1.6 %``, ``93 %``, ``under 0.1 %``; a dash for none."""
    if value is None:
        return NONE
    percent = 100 * value
    if 0 < percent < 0.05:
        return "under 0.1 %"
    if percent == 0 or percent == 100:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent < 9.95 or percent > 99 else f"{percent:.0f} %"


def day(instant: datetime) -> str:
    """Write a day as ``1 Dec``."""
    return f"{instant.day} {instant:%b}"


def power(exponent: int) -> str:
    """Write a power of ten: ``0.01``, ``1,000``."""
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:g}"


def stops(kind: str, rule: RuleResult) -> bool:
    """Say whether a rule is a cause of the block; a candidate that loses is none."""
    lost = rule.name.startswith("switch.")
    return kind == "block" and rule.outcome in _STOPS and not lost


def acceptance(run_id: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Name the command by which a person overrules the gate; nothing where nobody can.

    Parameters
    ----------
    offered
        Recipes that it would put live, the one that it takes unasked first.
    """
    if not offered:
        return ()
    first, *others = offered
    command = (
        f"`nightjar gate accept {run_id} --by NAME --reason TEXT` puts the {first} of tonight live"
    )
    command += "".join(f", with `--recipe {name}` {name}" for name in others)
    return (f"If you know better: {command}; then start the night again.",)


def advice(
    kind: str, rules: Sequence[RuleResult], run_id: str = "", offered: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return what a person can do after such a night, most useful first; often nothing.

    Parameters
    ----------
    run_id, offered
        As for `acceptance`.
    """
    if kind == "block":
        causes = [plain(rule.name) for rule in rules if stops(kind, rule)]
        named = ", ".join(dict.fromkeys(causes)) or "the sentence above"
        return (
            f"Look first at: {named}. The run's folder, named below, holds all evidence.",
            "If data are missing or wrong, deliver them into landing/ and start the night again: "
            "with other data it is a new run.",
            *acceptance(run_id, offered),
            "Nothing needs to be undone: a blocked night publishes nothing.",
        )
    if kind == "keep" and any(rule.outcome == "underpowered" for rule in rules):
        return (
            "Nothing yet: too few people could be judged, so the gate waits for more days.",
            *acceptance(run_id, offered),
        )
    return ()
