"""Calibration of the gate on known truth: its error rate and its power on the data of a shop.

Guarantees: the truth is known, because the two sides are fits of one recipe that differ only in
their seed, or lists that a coin assigned to them, or one side has a planted change of known size;
the tests are those of a nightly run (`difference`, `is_proved`, `figures_of`); a cutoff is tested
with the seed SD (τ) of the other cutoffs, as a nightly run uses a τ that was measured before it;
neither pseudonyms nor the order of the input have an effect.

The share of equal candidates that the test of one block accepts, at h = max(z, margin/se), with the
z of the level 3α/(4K) of each of K candidates, and the minimum lift of a switch as margin:

    rate = Φ̄(h/√v̂),  v̂ = var(D)/se²,  its upper limit with v̂·df/χ²_{.05,df},  df = C·(K − 1)

D is the lift of one replicate over another; its variance is twice that over the K replicates,
pooled over the C cutoffs; se is the standard error of a nightly run with the τ measured here. As
that τ comes from the same fits, v̂ cannot exceed 1; the limit counts, which bounds the true
variance in 95 of 100 calibrations.

That is the effect of seeds. The effect of the sample of users is measured by a coin: each user's
list is in order on one side and reversed on the other, and a coin decides on which. Neither side is
better, and users differ as they do in the data; so the share of tosses that pass is the error of
the test, also for a deterministic recipe.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri

from pipeline.base import Interval
from pipeline.data.targets import Task
from pipeline.errors import GateError
from pipeline.evaluation.calibration import Calibration, RecipePair, Replay
from pipeline.evaluation.compare import Difference, difference
from pipeline.evaluation.gate import GateConfig, is_proved
from pipeline.evaluation.gate.e_process import PERIODS, figures_of, opening_weight, threshold_of
from pipeline.evaluation.gate.records import BlockRecord
from pipeline.evaluation.seed_variance import ReplicateBlock, replicate_variance, seed_spread

_Floats = NDArray[np.float64]
_Sides = tuple[_Floats, _Floats]

REPLICATES: Final = 8
"""Number of fits per cutoff."""
CUTOFFS: Final = 4
"""Number of cutoffs."""
LEAST_CUTOFFS: Final = 2
"""Minimum number of usable cutoffs."""
PLANTED: Final = 0.03
"""Approximate planted loss; its true size is measured."""
TOSSES: Final = 1000
"""Number of coin tosses per cutoff."""
_LEVEL: Final = 0.05


def clopper_pearson_upper(passed: int, of: int) -> float:
    """Return the one-sided 95 % upper limit of a share (Clopper and Pearson 1934).

    Parameters
    ----------
    passed, of
        Number of successes, and of trials.

    Returns
    -------
    float
        1 if all passed.
    """
    return 1.0 if passed >= of else float(betaincinv(passed + 1, of - passed, 1 - _LEVEL))


@dataclass(frozen=True)
class Needed:
    """Requirements of a switch: e-value, lift, e-value without the strongest block, assumed SD."""

    e_value: float
    lift: float
    without_best: float
    period_sd: float


def replay(blocks: Sequence[BlockRecord | None], needed: Needed) -> Replay:
    """Run an e-process over blocks, oldest first.

    Parameters
    ----------
    blocks
        Records; None for a block that could not be evaluated.
    needed
        Requirements of a switch.

    Returns
    -------
    Replay
        Its path, and the block of the switch.
    """
    path, records, switched = [], list[BlockRecord](), None
    for number, block in enumerate(blocks, start=1):
        if block is not None:
            records.append(block)
        if not records:
            path.append(0.0)
            continue
        figures = figures_of(records, needed.period_sd)
        path.append(figures.log_e)
        enough = (
            figures.log_e >= math.log(needed.e_value)
            and figures.lift >= needed.lift
            and figures.log_rest >= math.log(needed.without_best)
        )
        if switched is None and enough:
            switched = number
    return Replay(tuple(path), switched)


def calibrate(
    blocks: Sequence[ReplicateBlock],
    config: GateConfig,
    *,
    candidates: int,
    task: Task,
    baselines: Collection[str] = (),
) -> Calibration:
    """Measure the gate's error rate and power.

    Parameters
    ----------
    blocks
        Disjoint blocks with equally many replicates, at least 2 of each, in any order.
    config
        Config of the gate.
    candidates
        Number of recipes that are evaluated beside the champion.
    task
        Whether lists may repeat items.
    baselines
        Names of other recipes without randomness.

    Returns
    -------
    Calibration
        Rates, limits and replays.

    Raises
    ------
    GateError
        `calibration.too_few_cutoffs`: fewer than two blocks have enough users and a champion
        with an NDCG above 0.
    """
    blocks = _usable(blocks, config)
    replicates = len(blocks[0].ndcg)
    # Reversing every list loses more than planned, so only one list in `every` is reversed.
    losses = [1 - block.ndcg_reversed.mean() / block.ndcg.mean() for block in blocks]
    every = max(1, round(float(np.mean(losses)) / PLANTED))
    # The τ of the other blocks, or each test would use a τ that its own fits determine.
    taus = [seed_spread([x.ndcg for x in blocks if x is not block]) for block in blocks]
    pairs = [(a, b) for a in range(replicates) for b in range(replicates) if a != b]
    equal, better, lifts = [], [], []
    for draw, (a, b) in enumerate(pairs):
        worse = [_worse(block, every, b, draw) for block in blocks]
        sides = [(x.ndcg[a], w) for x, w in zip(blocks, worse, strict=True)]
        better.append(_tests(sides, taus, config))
        equal.append(_tests([(x.ndcg[a], x.ndcg[b]) for x in blocks], taus, config))
        lifts.append(
            np.mean([x.ndcg[b].mean() / w.mean() - 1 for x, w in zip(blocks, worse, strict=True)])
        )
    weight = opening_weight(max(1, candidates))
    needed = _needed(config, weight, task)
    bound = config.alpha * weight
    holdouts = [block.holdout for block in blocks]
    tests = [test for pair in equal for test in pair]
    disjoint_tests = _disjoint(pairs, equal)
    toss_tests = [test for sides in _tossed(blocks) for test in _tests(sides, taus, config)]
    passed, disjoint_passed, tossed_passed = (
        sum(is_proved(t, bound, config) for t in some)
        for some in (tests, disjoint_tests, toss_tests)
    )
    t = np.array([test.t for test in tests if test.underpowered is None])
    return Calibration(
        users=tuple(block.n_users for block in blocks),
        replicates=replicates,
        mean=float(np.mean([block.ndcg.mean() for block in blocks])),
        threshold=needed.e_value,
        min_lift=config.min_lift,
        passed=passed,
        pairs=len(tests),
        disjoint_passed=disjoint_passed,
        disjoint_pairs=len(disjoint_tests),
        disjoint_upper=clopper_pearson_upper(disjoint_passed, len(disjoint_tests)),
        tossed_passed=tossed_passed,
        tosses=len(toss_tests),
        tossed_upper=clopper_pearson_upper(tossed_passed, len(toss_tests)),
        sd_z=float(np.sqrt(np.mean(t**2))) if len(t) else 0.0,
        planted=float(np.mean(lifts)),
        every=every,
        equal=tuple(replay(_counted(x, holdouts), needed) for x in equal),
        better=tuple(replay(_counted(x, holdouts), needed) for x in better),
        **false_rate([block.ndcg for block in blocks], bound, config.min_lift),
        recipe_pairs=_recipe_pairs(blocks, taus, baselines, config, task),
    )


def _needed(config: GateConfig, weight: float, task: Task) -> Needed:
    threshold, period_sd = threshold_of(config.alpha, weight), config.period_sd_of(task)
    return Needed(threshold, config.min_lift, config.not_one_week, period_sd)


def _tests(
    sides: Sequence[_Sides], seed_sds: Sequence[float], config: GateConfig
) -> list[Difference]:
    """Compare a candidate with a champion, block by block."""
    return [
        difference(
            candidate,
            champion,
            tau_candidate=seed_sd,
            tau_champion=seed_sd,
            min_users=config.min_users,
            min_nonzero=config.min_nonzero,
        )
        for (candidate, champion), seed_sd in zip(sides, seed_sds, strict=True)
    ]


def _counted(tests: Sequence[Difference], holdouts: Sequence[Interval]) -> list[BlockRecord | None]:
    """Return the input of an e-process for each block."""
    return [
        BlockRecord(block, x.n, x.t2, x.x, x.s_dd, x.s_db, x.s_bb)
        if x.underpowered is None and x.v > 0
        else None
        for x, block in zip(tests, holdouts, strict=True)
    ]


def _disjoint(
    pairs: Sequence[tuple[int, int]], tests: Sequence[Sequence[Difference]]
) -> list[Difference]:
    """Return the tests of the pairs (0, 1), (2, 3), ..., which have no fit in common."""
    chosen = [x for (a, b), x in zip(pairs, tests, strict=True) if a % 2 == 0 and b == a + 1]
    return [test for x in chosen for test in x]


def _recipe_pairs(
    blocks: Sequence[ReplicateBlock],
    seed_sds: Sequence[float],
    baselines: Collection[str],
    config: GateConfig,
    task: Task,
) -> tuple[RecipePair, ...]:
    """Compare each other recipe with the first fit, over the blocks that have both."""
    pairs = []
    for name in sorted({name for block in blocks for name in block.others}):
        tests = [
            (
                difference(
                    block.others[name],
                    block.ndcg[0],
                    tau_candidate=0.0 if name in baselines else config.default_seed_sd,
                    tau_champion=seed_sd,
                    min_users=config.min_users,
                    min_nonzero=config.min_nonzero,
                ),
                block.holdout,
            )
            for block, seed_sd in zip(blocks, seed_sds, strict=True)
            if name in block.others
        ]
        counted = _counted(*map(list, zip(*tests, strict=True)))
        if records := [record for record in counted if record is not None]:
            figures = figures_of(records, config.period_sd_of(task))
            period_sd = figures.period_sd if len(records) >= PERIODS else None
            pairs.append(
                RecipePair(name, len(records), figures.lift, figures.q, figures.q_chance, period_sd)
            )
    return tuple(pairs)


def _worse(block: ReplicateBlock, every: int, replicate: int, draw: int) -> _Floats:
    """Return a fit's values with one list in `every` reversed, other lists in each draw."""
    # Users are drawn in the order of their NDCG, so that each draw has users of all levels.
    starts = np.arange(0, block.n_users, every)
    places = starts + np.random.default_rng(draw).integers(0, every, len(starts))
    picked = np.zeros(block.n_users, np.bool_)
    picked[block.users_by_ndcg[places[places < block.n_users]]] = True
    values: _Floats = np.where(picked, block.ndcg_reversed[replicate], block.ndcg[replicate])
    return values


def _tossed(blocks: Sequence[ReplicateBlock]) -> Iterator[list[_Sides]]:
    """Yield two equal sides for each block: a coin decides for each user which one is in order."""
    for toss in range(TOSSES):
        # Users in the order of their values, not of their ids: a new vault must not change a toss.
        rng, lifts = np.random.default_rng(toss), []
        for block in blocks:
            replicate, order = toss % len(block.ndcg), block.users_by_ndcg
            heads = rng.random(block.n_users) < 0.5
            ndcg = block.ndcg[replicate][order]
            ndcg_reversed = block.ndcg_reversed[replicate][order]
            sides = np.where(heads, ndcg, ndcg_reversed), np.where(heads, ndcg_reversed, ndcg)
            lifts.append(sides)
        yield lifts


def _usable(blocks: Sequence[ReplicateBlock], config: GateConfig) -> list[ReplicateBlock]:
    usable = sorted(
        (b for b in blocks if b.n_users >= config.min_users and (b.ndcg.mean(axis=1) > 0).all()),
        key=lambda block: block.holdout.start,
    )
    if len(usable) < LEAST_CUTOFFS:
        raise GateError(
            "calibration.too_few_cutoffs",
            f"only {len(usable)} of {len(blocks)} cutoffs have at least {config.min_users:,} users "
            f"and a champion with an NDCG above 0; a calibration needs {LEAST_CUTOFFS}: give a "
            "later --as-of, or lower gate.min_users",
        )
    return usable


def false_rate(
    blocks: Sequence[NDArray[np.float64]], bound: float, margin: float
) -> dict[str, Any]:
    """Return the share of equal candidates that the test of one block accepts, see the module.

    Parameters
    ----------
    blocks
        ``(replicates, n)`` values each.
    bound, margin
        Level of the test, and the minimum lift.

    Returns
    -------
    dict
        `seed_sd`, `z`, `se`, `v_hat`, `df`, `rate`, `rate_upper`.
    """
    seed_sd = seed_spread(blocks)
    parts = [replicate_variance(values) for values in blocks]
    spread = 2 * float(np.mean([total for total, _ in parts]))
    v = 2 * float(np.mean([users for _, users in parts])) + 2 * seed_sd**2
    df = len(blocks) * (len(blocks[0]) - 1)
    z = -float(ndtri(bound))
    inputs = {"seed_sd": seed_sd, "z": z, "se": math.sqrt(v), "df": df}
    # Without seed noise every fit has the same lists, and the quotients below are undefined.
    if spread == 0:
        return inputs | {"v_hat": 0.0, "rate": 0.0, "rate_upper": 0.0}
    height, v_hat = max(z, margin / math.sqrt(v)), spread / v
    upper = v_hat * df / (2 * float(gammaincinv(df / 2, _LEVEL)))  # a quantile of chi-squared
    return inputs | {
        "v_hat": v_hat,
        "rate": float(ndtr(-height / math.sqrt(v_hat))),
        "rate_upper": float(ndtr(-height / math.sqrt(upper))),
    }
