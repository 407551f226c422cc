"""What a calibration of the gate found: rates, limits, and the accounts that it replayed.

Promises: frozen, tuples inside; written as plain JSON and read back equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replay:
    """An account of points as it went, block after block.

    Attributes
    ----------
    log_e
        After each block, one that could not be judged included.
    switched
        The block, counted from 1, that would have made the switch; None where none would.
    """

    log_e: tuple[float, ...]
    switched: int | None


@dataclass(frozen=True)
class Calibration:
    """What the gate does where the truth is known. Shares are of 1, spreads relative to the mean.

    Attributes
    ----------
    users
        Users a block, oldest block first.
    replicates
        Fits a block.
    seed_sd
        Spread of the recipe's mean over seeds.
    mean
        NDCG over blocks, fits and users.
    threshold, min_lift
        Points and lift that a switch needs.
    passed, pairs
        Of the ordered pairs of salts, how many the one-block test let pass. They share fits, so no
        interval.
    disjoint_passed, disjoint_pairs, disjoint_upper
        Of pairs that share no fit, with the upper limit of Clopper and Pearson (one-sided 95 %).
    tossed_passed, tosses, tossed_upper
        The same of equal sides that a coin has shared out, person by person.
    z, se, v_hat, df, rate, rate_upper
        The one-block test's rate of false switches and its upper limit, see `calibrate`.
    sd_z
        Spread of x/√v over the ordered pairs: 1 where v is right.
    planted, every
        The lift that was planted, and which share of the lists bears it: one in so many.
    equal, better
        Replays of an equal candidate, and of one that has the planted lift.
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
    equal: tuple[Replay, ...]
    better: tuple[Replay, ...]

    @property
    def seed_noise(self) -> bool:
        """Whether the recipe rolls any."""
        return self.v_hat > 0

    @property
    def switched(self) -> int:
        """Replays of an equal candidate that came to a switch."""
        return sum(replay.switched is not None for replay in self.equal)

    @property
    def detections(self) -> int:
        """Replays that found the planted lift."""
        return sum(replay.switched is not None for replay in self.better)

    @property
    def power(self) -> float:
        """Share of the replays that found it."""
        return self.detections / len(self.better)
