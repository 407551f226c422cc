"""Tests for harm in slices of users: at a switch over all records, at a refresh on tonight's block.

Guarantees: a slice with too few users or differences is `underpowered` and does not change the
level of the others; a slice without a column is `missing`; one whose reference has no hit passes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

import polars as pl
from scipy.special import stdtr

from pipeline.errors import GateError
from pipeline.evaluation.compare import NO_LEVEL, Difference, difference, paired, standardised
from pipeline.evaluation.evaluate import SLICE
from pipeline.evaluation.gate.config import GateConfig
from pipeline.evaluation.gate.decision import RuleResult
from pipeline.evaluation.gate.evidence import REFRESH_SLICES
from pipeline.evaluation.gate.records import BlockRecord, SliceSums, slice_names
from pipeline.evaluation.gate.rules import group_name, verdict
from pipeline.number_text import chance, change

_Frames = tuple[pl.DataFrame, pl.DataFrame]
_SWITCH = "switch.slices."


def recorded_slice_rules(
    subject: str, frames: _Frames, records: Sequence[BlockRecord], config: GateConfig
) -> tuple[RuleResult, ...]:
    """Test each slice for harm over all records of a candidate, with Bonferroni's correction.

    Parameters
    ----------
    subject
        Name of the candidate.
    frames
        Tonight's values of the candidate and of the champion; a slice without a column fails.
    records
        At least one.
    config
        Level, and minimum numbers of users and of differences.

    Returns
    -------
    tuple
        One result per slice, sorted by name.
    """
    rules = [_missing(_SWITCH, subject, name, error) for name, error in _absent(frames)]
    sums: dict[str, list[SliceSums]] = defaultdict(list)
    for record in records:
        for part in record.slices:
            sums[part.name].append(part)
    absent = {rule.name for rule in rules}
    # Of the mean of as many independent fits as there are records.
    t2 = sum(record.t2 for record in records) / len(records) ** 2
    tested: list[tuple[str, float, float, int]] = []
    for name, parts in sums.items():
        n, nonzero = sum(p.n for p in parts), sum(p.nonzero for p in parts)
        if _SWITCH + name in absent:
            continue
        level = sum(p.b for p in parts)
        if n < config.slice_users or nonzero < config.min_nonzero:
            rules.append(_too_few(_SWITCH, subject, name, n, nonzero))
        elif level <= 0:
            rules.append(_no_level(_SWITCH, subject, name))
        else:
            tested.append((name, *_harm(parts, n, level, t2), n))
    for name, x, p, n in tested:
        bound = config.slice_alpha_switch / len(tested)
        text = f"{group_name(name)}: {change(x)} (test for harm: {chance(p)}, {n:,} users)"
        rules.append(RuleResult(_SWITCH + name, subject, p, bound, verdict(p > bound), text))
    return tuple(sorted(rules, key=lambda rule: rule.name))


def _harm(parts: Sequence[SliceSums], n: int, level: float, t2: float) -> tuple[float, float]:
    """Return the lift over all blocks, and the one-sided p-value of a loss."""
    d, dd, db, bb = (
        math.fsum(getattr(part, name) for part in parts) for name in ("d", "dd", "db", "bb")
    )
    x = d / level
    square = max(0.0, dd - 2 * x * db + x * x * bb)
    v = n * square / ((n - 1) * level**2) + t2
    return x, float(stdtr(n - 1, standardised(x, v)))


def refresh_slice_rules(
    subject: str,
    frames: _Frames,
    seed_sd: float,
    refused: Collection[str],
    config: GateConfig,
) -> tuple[RuleResult, ...]:
    """Test each slice for harm on tonight's block, against the scorer accepted last.

    A slice fails if its loss exceeds the margin and is significant; after it refused a refresh, it
    passes only with a loss within one standard error or the smaller margin.

    Parameters
    ----------
    subject
        Name of the champion's recipe.
    frames
        Values of tonight's scorer and of the stored one.
    seed_sd
        τ of both.
    refused
        Names of the rules that refused a refresh since the last accepted run.
    config
        Margins, level, and minimum numbers of users and of differences.

    Returns
    -------
    tuple
        One result per slice, sorted by name.
    """
    absent = dict(_absent(frames))
    rules = [_missing(REFRESH_SLICES, subject, name, error) for name, error in absent.items()]
    tested: list[tuple[str, Difference]] = []
    for name in (name for name in slice_names(frames) if name not in absent):
        result = difference(
            *paired(*frames, SLICE + name),
            tau_candidate=seed_sd,
            tau_champion=seed_sd,
            min_users=config.slice_users,
            min_nonzero=config.min_nonzero,
        )
        if result.underpowered == NO_LEVEL:
            rules.append(_no_level(REFRESH_SLICES, subject, name))
        elif result.underpowered:
            rules.append(_too_few(REFRESH_SLICES, subject, name, result.n, result.nonzero))
        else:
            # Only slices that can be tested share the level.
            tested.append((name, result))
    for name, result in tested:
        rule = REFRESH_SLICES + name
        harm = f"test for harm: {chance(result.p_harm)}, {result.n:,} users"
        bound, lost = (
            -config.refresh_margin,
            result.p_harm < config.slice_alpha_refresh / len(tested),
        )
        held = not (result.x < bound and lost)
        text = f"{group_name(name)}: {change(result.x)} ({harm})"
        if rule in refused:
            bound = -max(config.refused_margin, result.se)
            held = result.x >= bound
            text += ", refused before"
        rules.append(RuleResult(rule, subject, result.x, bound, verdict(held), text))
    return tuple(sorted(rules, key=lambda rule: rule.name))


def _absent(frames: _Frames) -> tuple[tuple[str, str], ...]:
    """Return the slices that cannot be paired, each with the reason."""
    faults = []
    for name in slice_names(frames):
        try:
            paired(*frames, SLICE + name)
        except GateError as error:
            faults.append((name, error.sentence.replace(SLICE + name, group_name(name))))
    return tuple(faults)


def _missing(prefix: str, subject: str, name: str, text: str) -> RuleResult:
    return RuleResult(prefix + name, subject, None, None, "missing", text)


def _no_level(prefix: str, subject: str, name: str) -> RuleResult:
    text = f"{group_name(name)}: the reference has no hit"
    return RuleResult(prefix + name, subject, None, None, "pass", text)


def _too_few(prefix: str, subject: str, name: str, n: int, nonzero: int) -> RuleResult:
    text = f"{group_name(name)}: too few users or differences ({n:,} users, {nonzero:,} differ)"
    return RuleResult(prefix + name, subject, None, None, "underpowered", text)
