"""Config of the gate: the figures that a promotion needs; `decide` applies them."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from pipeline.base import Frozen
from pipeline.evaluation.compare import MIN_NONZERO, MIN_USERS, UNKNOWN_SEED_SD


class GateConfig(Frozen):
    """Requirements of a promotion. Lifts and margins are shares of the champion's mean."""

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that a candidate without an advantage ever reaches a switch, over all nightly runs."""
    candidates: int = Field(default=5, ge=1)
    """Number of candidates M that the threshold M / alpha of a switch corrects for, at least."""
    min_lift: float = Field(default=0.01, ge=0)
    """Lift that a switch needs, however strong its evidence is."""
    min_users: int = Field(default=MIN_USERS, ge=2)
    """Minimum number of users; with fewer no comparison is made."""
    min_nonzero: int = Field(default=MIN_NONZERO, ge=1)
    """Minimum number of users for whom two recipes must differ; with fewer nothing is compared."""
    default_seed_sd: float = Field(default=UNKNOWN_SEED_SD, ge=0)
    """Relative SD over training seeds of a learned recipe for which it was never measured."""
    coverage_ratio: float = Field(default=0.8, ge=0, le=1)
    """Share of the champion's coverage that a switch must keep."""
    slice_users: int = Field(default=100, ge=2)
    """Minimum number of users of a slice; a smaller slice is not tested."""
    slice_alpha_switch: float = Field(default=0.05, gt=0, lt=1)
    """Family-wise level of the tests for harm in any slice, at a switch."""
    slice_alpha_refresh: float = Field(default=0.01, gt=0, lt=1)
    """Family-wise level of the tests for harm in any slice, at a refresh."""
    refresh_margin: float = Field(default=0.02, ge=0)
    """Loss against the last accepted scorer that a refresh may always have."""
    refresh_errors: float = Field(default=3.0, ge=0)
    """Loss against the last accepted scorer that a refresh may have, in standard errors."""
    anchor_margin: float = Field(default=0.1, ge=0, lt=1)
    """Loss of the baseline ratio against the anchor that a refresh may have."""
    baseline_floor: float = Field(default=0.98, ge=0)
    """Share of the best baseline's mean that a refresh must reach."""
    patience: int = Field(default=3, ge=0)
    """Number of nightly runs with too few users before a refresh blocks for a decision by hand."""
    fallback: str = Field(default="decayed_popularity", min_length=1)
    """Baseline that becomes the first champion if there are too few users to compare recipes."""
    human_review: bool = False
    """Let a reviewer decide in Airflow on an inconclusive candidate; no answer means no switch."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # A comparison that needs more differences than users would always be underpowered.
        for name in ("min_users", "slice_users"):
            users, differing = getattr(self, name), self.min_nonzero
            if differing > users:
                raise ValueError(f"min_nonzero = {differing} must not exceed {name} = {users}")
        return self
