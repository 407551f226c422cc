"""The gate held against the truth: how often it is wrong, and what it finds, on one's own data.

Promises: the truth is known, for the sides are fits of one recipe that differ in their dice alone,
or lists that a coin has shared out, or one of them has a change of known size planted in it; the
tests are those of a night (`difference`, `is_proved`, `EProcess`); a cut-off is tested with the
spread over seeds (τ) of the others, as a night is with one that was measured before it; neither
pseudonyms nor the order of anything count.

What one block's test lets pass, at h = max(z_{α/M}, margin/se), margin the least lift of a switch:

    rate = Φ̄(h/√v̂),  v̂ = var(D)/se²,  its upper limit with v̂·df/χ²_{.05,df},  df = C·(K − 1)

D is the lift of one replicate over another, its variance twice that over the K of them, pooled over
the C cut-offs; se is what a night would use there, with the τ measured here. As that τ comes from
the same fits, v̂ cannot exceed 1, and what counts is the limit: so far may the true spread lie above
the measured one, in 95 of 100 calibrations.

That is the luck of the seeds. The luck of the people is a coin: each person's list stands upright
on one side and upside down on the other, and the coin says where. No side is better, and how far
people part is their own; so the share of tosses that pass is the test's error, and a recipe without
dice has one, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv, ndtr, ndtri

from pipeline.base import Interval
from pipeline.errors import GateError
from pipeline.evaluation.calibration import Calibration, Replay
from pipeline.evaluation.compare import Difference, difference
from pipeline.evaluation.gate import GateConfig, is_proved, threshold
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey
from pipeline.evaluation.gate.rules import e_value_needed
from pipeline.evaluation.metrics import NDCG
from pipeline.evaluation.seed_variance import ReplicateBlock, replicate_variance, seed_spread

_Floats = NDArray[np.float64]
_Sides = tuple[_Floats, _Floats]

REPLICATES: Final = 8
CUTOFFS: Final = 4
LEAST_CUTOFFS: Final = 2
PLANTED: Final = 0.03
"""Loss that is planted, about; its true size is measured."""
TOSSES: Final = 1000
"""Tosses of the coin a cut-off."""
_LEVEL: Final = 0.05


def clopper_pearson_upper(passed: int, of: int) -> float:
    """Return the one-sided 95 % upper limit of a share (Clopper and Pearson 1934)."""
    return 1.0 if passed >= of else float(betaincinv(passed + 1, of - passed, 1 - _LEVEL))


def replay(
    blocks: Sequence[tuple[float, float, Interval] | None], points: float, min_lift: float
) -> Replay:
    """Run an account over blocks, oldest first.

    Parameters
    ----------
    blocks
        Lift, its variance, and when; None for a block that could not be judged.
    points, min_lift
        What a switch needs.
    """
    account = EProcess(EProcessKey("champion", "candidate", NDCG, 0, 0))
    path, switched = [], None
    for number, block in enumerate(blocks, start=1):
        if block is not None:
            account = account.add(*block)
        path.append(account.log_e)
        enough = account.log_e >= math.log(points) and account.lift >= min_lift
        if switched is None and enough:
            switched = number
    return Replay(tuple(path), switched)


def calibrate(blocks: Sequence[ReplicateBlock], config: GateConfig) -> Calibration:
    """Measure the gate's own error rate and power.

    Parameters
    ----------
    blocks
        Disjoint ones, of equally many salts, at least 2 of each, in any order.

    Raises
    ------
    GateError
        Fewer than two blocks have users enough, and a champion that hits somebody.
    """
    blocks = _usable(blocks, config)
    replicates = len(blocks[0].ndcg)
    losses = [1 - block.ndcg_reversed.mean() / block.ndcg.mean() for block in blocks]
    every = max(1, round(float(np.mean(losses)) / PLANTED))
    taus = [seed_spread([x.ndcg for x in blocks if x is not block]) for block in blocks]
    pairs = [(a, b) for a in range(replicates) for b in range(replicates) if a != b]
    same, more, lifts = [], [], []
    for draw, (a, b) in enumerate(pairs):
        worse = [_worse(block, every, b, draw) for block in blocks]
        sides = [(x.ndcg[a], w) for x, w in zip(blocks, worse, strict=True)]
        more.append(_tests(sides, taus, config))
        same.append(_tests([(x.ndcg[a], x.ndcg[b]) for x in blocks], taus, config))
        lifts.append(
            np.mean([x.ndcg[b].mean() / w.mean() - 1 for x, w in zip(blocks, worse, strict=True)])
        )
    points, bound = e_value_needed(config, 1), threshold(config, 1)
    holdouts = [block.holdout for block in blocks]
    tests = [test for pair in same for test in pair]
    # Of the pairs (0, 1), (2, 3), ... no two have a fit in common.
    disjoint = [(a, a + 1) for a in range(0, replicates - 1, 2)]
    apart = [test for p, x in zip(pairs, same, strict=True) if p in disjoint for test in x]
    coins = [test for sides in _tossed(blocks) for test in _tests(sides, taus, config)]
    passed, hits, by_coin = (
        sum(is_proved(t, bound, config) for t in some) for some in (tests, apart, coins)
    )
    t = np.array([test.t for test in tests if test.underpowered is None])
    return Calibration(
        users=tuple(block.n_users for block in blocks),
        replicates=replicates,
        mean=float(np.mean([block.ndcg.mean() for block in blocks])),
        threshold=points,
        min_lift=config.min_lift,
        passed=passed,
        pairs=len(tests),
        disjoint_passed=hits,
        disjoint_pairs=len(apart),
        disjoint_upper=clopper_pearson_upper(hits, len(apart)),
        tossed_passed=by_coin,
        tosses=len(coins),
        tossed_upper=clopper_pearson_upper(by_coin, len(coins)),
        sd_z=float(np.sqrt(np.mean(t**2))) if len(t) else 0.0,
        planted=float(np.mean(lifts)),
        every=every,
        equal=tuple(replay(_counted(x, holdouts), points, config.min_lift) for x in same),
        better=tuple(replay(_counted(x, holdouts), points, config.min_lift) for x in more),
        **false_rate([block.ndcg for block in blocks], bound, config.min_lift),
    )


def _tests(sides: Sequence[_Sides], taus: Sequence[float], config: GateConfig) -> list[Difference]:
    """Compare a candidate with a champion, block by block."""
    return [
        difference(
            candidate,
            champion,
            tau_candidate=tau,
            tau_champion=tau,
            min_users=config.min_users,
            min_nonzero=config.min_nonzero,
        )
        for (candidate, champion), tau in zip(sides, taus, strict=True)
    ]


def _counted(
    tests: Sequence[Difference], whens: Sequence[Interval]
) -> list[tuple[float, float, Interval] | None]:
    """Return what an account takes of each block."""
    return [
        (test.x, test.v, when) if test.underpowered is None and test.v > 0 else None
        for test, when in zip(tests, whens, strict=True)
    ]


def _worse(block: ReplicateBlock, every: int, replicate: int, draw: int) -> _Floats:
    """Return a fit's values with the list of one user in `every` reversed, others in each draw.

    The users are in the order of their NDCG, so that each draw is of users good and bad alike.
    """
    starts = np.arange(0, block.n_users, every)
    places = starts + np.random.default_rng(draw).integers(0, every, len(starts))
    picked = np.zeros(block.n_users, np.bool_)
    picked[block.users_by_ndcg[places[places < block.n_users]]] = True
    values: _Floats = np.where(picked, block.ndcg_reversed[replicate], block.ndcg[replicate])
    return values


def _tossed(blocks: Sequence[ReplicateBlock]) -> Iterator[list[_Sides]]:
    """Yield two equal sides for each block: of each person a coin says which is upright."""
    for toss in range(TOSSES):
        rng, lifts = np.random.default_rng(toss), []
        for block in blocks:
            replicate, order = toss % len(block.ndcg), block.users_by_ndcg
            heads = rng.random(block.n_users) < 0.5
            upright, turned = block.ndcg[replicate][order], block.ndcg_reversed[replicate][order]
            lifts.append((np.where(heads, upright, turned), np.where(heads, turned, upright)))
        yield lifts


def _usable(blocks: Sequence[ReplicateBlock], config: GateConfig) -> list[ReplicateBlock]:
    usable = sorted(
        (b for b in blocks if b.n_users >= config.min_users and (b.ndcg.mean(axis=1) > 0).all()),
        key=lambda block: block.holdout.start,
    )
    if len(usable) < LEAST_CUTOFFS:
        raise GateError(
            "calibration.too_few_cutoffs",
            f"{len(usable)} of {len(blocks)} cut-offs have {config.min_users:,} users and a "
            f"champion that hits any of them; a calibration needs {LEAST_CUTOFFS}",
        )
    return usable


def false_rate(
    blocks: Sequence[NDArray[np.float64]], bound: float, margin: float
) -> dict[str, Any]:
    """Return how often one block's test would let an equal candidate pass, as the module says.

    Parameters
    ----------
    blocks
        ``(replicates, n)`` values each.
    bound, margin
        The test's level α/M, and the lift that it asks for.

    Returns
    -------
    dict
        `seed_sd`, `z`, `se`, `v_hat`, `df`, `rate`, `rate_upper`.
    """
    tau = seed_spread(blocks)
    parts = [replicate_variance(values) for values in blocks]
    spread = 2 * float(np.mean([total for total, _ in parts]))
    v = 2 * float(np.mean([users for _, users in parts])) + 2 * tau**2
    df = len(blocks) * (len(blocks[0]) - 1)
    z = -float(ndtri(bound))
    inputs = {"seed_sd": tau, "z": z, "se": math.sqrt(v), "df": df}
    if spread == 0:
        return inputs | {"v_hat": 0.0, "rate": 0.0, "rate_upper": 0.0}
    height, v_hat = max(z, margin / math.sqrt(v)), spread / v
    upper = v_hat * df / (2 * float(gammaincinv(df / 2, _LEVEL)))  # a quantile of chi-squared
    return inputs | {
        "v_hat": v_hat,
        "rate": float(ndtr(-height / math.sqrt(v_hat))),
        "rate_upper": float(ndtr(-height / math.sqrt(upper))),
    }
