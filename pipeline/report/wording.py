"""Texts of pages and tables: names of metrics and rules, numbers, next steps.

Guarantees: a relative change has its sign; a share above 0 is never written as 0 %.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pipeline import number_text
from pipeline.evaluation.beyond_accuracy import COVERAGE, DIVERSITY, GINI, NOVELTY
from pipeline.evaluation.gate.bounds import BOUNDS, SETTINGS, SHARES
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import REFRESH_LAST
from pipeline.evaluation.lift import Verdict
from pipeline.number_text import MINUS, change, decimal

NONE = "–"
TRAINING: Final = "all recipes and the refit, without the selection of settings"
"""Trainings that count in the figure of a night."""
COMPARED: Final[Mapping[Verdict, str]] = {
    "better": "better than",
    "about as good": "about as good as",
    "unclear": "unclear whether better than",
    "worse": "worse than",
}
"""Words between a model and the one that it is compared with."""
DELIVER: Final = (
    "deliver missing or corrected files into landing/ (`nightjar feedback` reads them), then start "
    "a night with a later as-of T: `nightjar nightly --as-of T`"
)
"""Next step after data that cannot be used."""
TRIGGER: Final = "in Airflow, click Trigger on the page of nightly_retrain and enter T as `as_of`"
"""The same command in Airflow."""
MEASURES: Final[Mapping[str, str]] = {
    COVERAGE: "share of the catalogue in at least one list",
    GINI: "0 if all items are recommended equally often, 1 if one item fills all lists",
    NOVELTY: "mean information content of an entry in bits, low for popular items",
    DIVERSITY: "share of the pairs of entries without a common category",
}
"""Definitions of the metrics of lists beyond accuracy."""
_RESTART = (
    "This run has decided: start a night with a later as-of T (`nightjar nightly --as-of T`; "
    f"{TRIGGER}), or wait for the next scheduled night."
)
_NO_WIDTH = 1e-9
"""Width below which an interval is an effect of rounding."""
_UPPER = {"ndcg", "map", "mrr"}
_AREAS = {"first": "first model", "check": "data check"}
_RULES = {
    "evidence": "evidence of lift",
    "not_one_week": "e-value without the strongest block",
    "all_records": "e-value over all recorded blocks",
    "slices": "group",
    "baselines": "mean against baseline",
    "damage": "no damage of this run's data",
    "zero_reference": "reference without hits",
    "churn": "users with other results",
    "last": "newest accepted scorer",
    "month": "scorer of 21 to 45 days ago",
    "level": "level against accepted blocks",
    "floor": "mean against the best baseline",
    "anchor": "baseline ratio against its anchor",
    "gain": "unusual gain",
    "complete": "completeness",
    "absent": "recipe without evaluation",
    "volume": "volume of the last day",
    "volume_week": "volume of the last 7 days",
    "activity_items": "items that stay active",
    "activity_users": "users who stay active",
    "returning_users": "users who return",
    "known_users": "known users",
    "repeated_items": "items that users take again",
    "rules_run": "rules that ran",
}
_LIFTS = {"lift", "last", "month", "level", "floor", "anchor", "gain"}
"""Rules whose value and bound are relative changes."""
_OF_USUAL = {
    "volume", "volume_week", "activity_items", "activity_users", "returning_users", "known_users",
    "repeated_items",
}  # fmt: skip
"""Checks of the data whose value and bound are ratios to the usual value."""
_SHARES = {"quarantine_budget", "catalogue"}
"""Checks of the data whose value and bound are shares of a whole."""


def metric_label(name: str) -> str:
    """Return ``cold: NDCG@20`` for ``slice.cold.ndcg_at_20``."""
    where, _, metric = name.rpartition(".")
    stem, at, k = metric.partition("_at_")
    stem = stem.upper() if stem in _UPPER else plain(stem)
    prefix = f"{plain(where.removeprefix('slice.'))}: " if where else ""
    return f"{prefix}{stem}@{k}" if at else f"{prefix}{stem}"


def plain(name: str) -> str:
    """Return a name as words: ``new items`` for ``new_items``."""
    return re.sub(r"[._]+", " ", name).strip()


def number(value: float | None) -> str:
    """Format a number with four significant digits, large ones with thousands separators."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    else:
        text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text.replace("-", MINUS)


def figure(value: float | None, form: str = ".4f") -> str:
    """Format a figure; a dash for None.

    Parameters
    ----------
    value
        None is written as a dash.
    form
        Format specification.
    """
    return NONE if value is None else format(value, form)


def span(lo: float | None, hi: float | None, form: Callable[[float], str] = "{:.4f}".format) -> str:
    """Format an interval; a dash if an end is None.

    Parameters
    ----------
    lo, hi
        Ends of the interval.
    form
        Function that formats one end.
    """
    return NONE if lo is None or hi is None else f"{form(lo)} to {form(hi)}"


def estimate(
    mean: float | None, lo: float | None, hi: float | None, *, least: int = 4, unit: str = ""
) -> str:
    """Format a mean with its 95 % interval, with enough decimals to distinguish its ends.

    Parameters
    ----------
    mean, lo, hi
        None if not measured; without a mean the text is a dash.
    least
        Minimum number of decimals.
    unit
        Unit after the mean and after the interval, such as `` %``.
    """
    if mean is None:
        return NONE
    # An interval without a width adds nothing, and the logarithm below needs one.
    if lo is None or hi is None or hi - lo < _NO_WIDTH:
        return f"{decimal(mean, least)}{unit}"
    # Two significant digits of the half-width.
    digits = max(least, 1 - math.floor(math.log10((hi - lo) / 2)))
    ends = f"{decimal(lo, digits)}{unit} to {decimal(hi, digits)}{unit}"
    return f"{decimal(mean, digits)}{unit} ({ends})"


def lift_text(mean: float | None, lo: float | None, hi: float | None) -> str:
    """Format a lift with its 95 % interval: ``+4.9 %, −1.5 to +11.4``.

    Parameters
    ----------
    mean, lo, hi
        With None for one of them the text is a dash.
    """
    if mean is None or lo is None or hi is None:
        return NONE
    low, high = (change(x).removesuffix(" %") for x in (lo, hi))
    return f"{change(mean)}, {low} to {high}"


def share(value: float | None) -> str:
    """Format a share of a whole, as `number_text.share`; a dash for None."""
    return NONE if value is None else number_text.share(value)


def counted(verdicts: Iterable[Verdict]) -> str:
    """Count verdicts: ``1 better, 2 about as good``."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[word]} {word}" for word in COMPARED if counts[word])


def verdict_words(margin: float) -> str:
    """Explain the verdicts; `margin` as for `evaluation.lift.verdict`."""
    return (
        "Better or worse: the 95 % interval does not contain 0. About as good: it does, and a loss "
        f"of more than {number_text.share(margin)} is outside of it. Otherwise the result is "
        "unclear."
    )


def size(count: float) -> str:
    """Format a number of bytes: ``12.3 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def day(instant: datetime) -> str:
    """Format a day: ``1 Dec``."""
    return f"{instant.day} {instant:%b}"


def power_of_ten(exponent: int) -> str:
    """Format a power of ten: ``0.01``, ``1,000``."""
    return f"{10**exponent:,}" if exponent >= 0 else f"{10.0**exponent:g}"


def stops(kind: str, rule: RuleResult) -> bool:
    """Return whether a rule is a cause of a block; the rules of a losing candidate are not.

    Parameters
    ----------
    kind
        Kind of the decision.
    rule
        A rule of that decision.
    """
    lost = rule.name.startswith("switch.")
    return kind == "block" and rule.outcome in ("fail", "missing") and not lost


def rule_title(name: str) -> str:
    """Name a rule of the gate for a reader: ``refresh.slices.cold`` as ``refresh: group cold``."""
    area, _, rest = name.partition(".")
    rule, _, subject = rest.partition(".")
    if not rule:
        return _RULES.get(name, plain(name))
    text = _RULES.get(rule, plain(rest if area == "check" else rule))
    if subject and area != "check":
        over = "over " if rule in ("lift", "evidence") else ""
        text += f" {over}{plain(subject) if rule == 'slices' else subject}"
    return f"{_AREAS.get(area, plain(area))}: {text}"


def check_title(name: str) -> str:
    """Name a check of the data for a reader: ``event id missing`` for ``event_id_missing``."""
    return _RULES.get(name, plain(name))


def check_value(name: str, value: float | None) -> str:
    """Format the value or the bound of a check of the data: ``45.0 % of usual``, ``1.0 %``, ``3``.

    Parameters
    ----------
    name
        Name of the check; it decides the form.
    value
        `figure` or `bound` of the check.
    """
    if value is not None and name in _OF_USUAL:
        return f"{share(value)} of usual"
    if value is not None and name in _SHARES:
        return share(max(value, 0.0))  # a catalogue that grew has lost no item
    return number(value)


def rule_value(rule: RuleResult, value: float | None) -> str:
    """Format the value or the bound of a rule: lifts in percent, a tiny p as ``under 0.0001``.

    Parameters
    ----------
    rule
        The rule; its name decides the form.
    value
        `rule.figure` or `rule.bound`.
    """
    if value is None:
        return NONE
    area, _, rest = rule.name.partition(".")
    stem = rest.partition(".")[0]
    if area == "check":
        return check_value(rest, value)
    # With too few users to compare, this rule's value is their number.
    users = (rule.name, rule.outcome) == (REFRESH_LAST, "underpowered")
    # A slice is tested by its lift at a refresh, and by its p-value at a switch.
    if (stem in _LIFTS or (area, stem) == ("refresh", "slices")) and not users:
        return change(value)
    if stem in SHARES:
        return share(value)
    return "under 0.0001" if 0 < value < 1e-4 else number(value)


def sentence(text: str, *names: str) -> str:
    """Return a text with a capital first letter, unless it starts with a name.

    Parameters
    ----------
    text
        Sentence or clause.
    names
        Names that keep their spelling, such as those of recipes.
    """
    first = re.match(r"[^\s:,]*", text)
    return text if first and first[0] in names else text[:1].upper() + text[1:]


def without_id(sentence: str, name: str) -> str:
    """Return a sentence without the name of its rule, check or signal, which its row shows.

    Parameters
    ----------
    sentence
        Sentence of a rule, check or signal.
    name
        The id, such as ``refresh.slices.cold``.
    """
    stem = name.partition(".")[2] or name
    for part in (name, stem, f"group {plain(stem.removeprefix('slices.'))}", plain(stem)):
        sentence = sentence.removeprefix(f"{part}: ").replace(f" the rule {part}", " this rule")
    return sentence


def acceptance(run_id: str, offered: Sequence[str]) -> tuple[str, ...]:
    """Name the command that overrides the gate; empty if it has nothing to offer.

    Parameters
    ----------
    run_id
        Run whose decision it changes.
    offered
        Recipes that the command can publish, the default first.
    """
    if not offered:
        return ()
    first, *others = offered
    options = "".join(f", with `--recipe {name}` {name}" for name in others)
    return (
        "Only if the data are right and the change is intended, override the gate: "
        f"`nightjar gate accept {run_id} --by NAME --reason TEXT` chooses {first}{options}; it "
        "prints the command that publishes it.",
    )


def block_steps(rules: Sequence[RuleResult]) -> tuple[str, ...]:
    """Return what to do about a block, one sentence for each kind of cause."""
    causes = [rule for rule in rules if stops("block", rule)]
    bounds = [rule for rule in causes if rule.name.startswith(BOUNDS)]
    steps = [_bound_step(rule) for rule in bounds]
    if len(causes) > len(bounds) or not bounds:
        steps.append(
            "Look for the cause in the data of the last days, and deliver missing or corrected "
            "files into landing/ (`nightjar feedback` reads them)."
        )
    return (*steps, _RESTART)


def _bound_step(rule: RuleResult) -> str:
    """Return the bound that the lists violate, with its setting, and how to change it."""
    metric = rule.name.removeprefix(BOUNDS)
    setting, bound = SETTINGS[metric], rule_value(rule, rule.bound)
    side, action = ("minimum", "lower") if setting.startswith("min") else ("maximum", "raise")
    value = f"the lists of {rule.subject} have {rule_value(rule, rule.figure)}"
    measured = "it was not measured" if rule.figure is None else value
    return (
        f"The setting `gate.{setting}` of nightjar.toml requires a {side} {metric} of {bound}; "
        f"{measured} ({metric}: {MEASURES[metric]}). If the bound is too strict, {action} it, else "
        "change the recipe."
    )


def advice(
    kind: str, rules: Sequence[RuleResult], run_id: str = "", offered: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the possible next steps after a run, the most useful first; often none.

    Parameters
    ----------
    kind, rules
        Of the decision.
    run_id, offered
        As for `acceptance`.
    """
    if kind == "block":
        return (*block_steps(rules), *acceptance(run_id, offered))
    few = any((r.name, r.outcome) == (REFRESH_LAST, "underpowered") for r in rules)
    if kind == "keep" and few:
        return (
            "No action needed: too few users could be evaluated, the gate waits for more days.",
            *acceptance(run_id, offered),
        )
    return ()
