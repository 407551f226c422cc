"""Result of a calibration of the gate: rates, limits, and the replayed e-processes.

Guarantees: frozen, with tuples inside; written as plain JSON and read back equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replay:
    """Path of an e-process over blocks.

    Attributes
    ----------
    log_e
        Logarithm of the e-value after each block, also after one that could not be evaluated.
    switched
        The block, counted from 1, that would have made the switch; None if none would.
    """

    log_e: tuple[float, ...]
    switched: int | None


@dataclass(frozen=True)
class RecipePair:
    """The champion's recipe and another one: the lift of the other from block to block.

    Attributes
    ----------
    blocks
        Number of blocks on which both could be compared.
    lift
        Weighted mean of the lifts.
    q, q_chance
        Q of the lifts, and the probability of such a Q if all blocks have one lift.
    period_sd
        Estimated SD of the lift from block to block; None with fewer than four blocks.
    """

    recipe: str
    blocks: int
    lift: float
    q: float
    q_chance: float
    period_sd: float | None


@dataclass(frozen=True)
class Calibration:
    """Behaviour of the gate where the truth is known. Shares are of 1, SDs relative to the mean.

    Attributes
    ----------
    users
        Number of users per block, oldest block first.
    replicates
        Number of fits per block.
    seed_sd
        SD of the recipe's mean over seeds.
    mean
        NDCG over blocks, fits and users.
    threshold, min_lift
        E-value and lift that a switch needs.
    passed, pairs
        Number of ordered pairs of fits that pass the test of one block, and of all. Pairs share
        fits, so they have no interval.
    disjoint_passed, disjoint_pairs, disjoint_upper
        The same of pairs that share no fit, with the one-sided 95 % limit (Clopper and Pearson).
    tossed_passed, tosses, tossed_upper
        The same of two equal sides to which a coin assigns each user's list.
    z, se, v_hat, df, rate, rate_upper
        False switches by the test of one block, and their upper limit, see `calibrate`.
    sd_z
        SD of x/√v over the ordered pairs: 1 if v is right.
    planted, every
        The planted lift, and one in how many lists has it.
    recipe_pairs
        The champion's recipe against each other one, by name.
    equal, better
        Replays of an equal candidate, and of one with the planted lift.
    """

    users: tuple[int, ...]
    replicates: int
    seed_sd: float
    mean: float
    threshold: float
    min_lift: float
    passed: int
    pairs: int
    disjoint_passed: int
    disjoint_pairs: int
    disjoint_upper: float
    tossed_passed: int
    tosses: int
    tossed_upper: float
    z: float
    se: float
    v_hat: float
    df: int
    rate: float
    rate_upper: float
    sd_z: float
    planted: float
    every: int
    recipe_pairs: tuple[RecipePair, ...]
    equal: tuple[Replay, ...]
    better: tuple[Replay, ...]

    @property
    def seed_noise(self) -> bool:
        """True if the recipe depends on its seed."""
        return self.v_hat > 0

    @property
    def switched(self) -> int:
        """Number of replays of an equal candidate that end in a switch."""
        return sum(replay.switched is not None for replay in self.equal)

    @property
    def detections(self) -> int:
        """Number of replays that detect the planted lift."""
        return sum(replay.switched is not None for replay in self.better)

    @property
    def power(self) -> float:
        """Share of replays that detect the planted lift."""
        return self.detections / len(self.better)
