"""Config of the gate: the figures that a promotion needs; `decide` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import ConfigDict, Field, model_validator

from pipeline.base import Frozen
from pipeline.data.targets import Task
from pipeline.evaluation.compare import MIN_NONZERO, MIN_USERS, UNKNOWN_SEED_SD

_PERIOD_SD: Final[Mapping[Task, float]] = {"repeat": 0.005, "discovery": 0.01}


class GateConfig(Frozen):
    """Requirements of a promotion. Lifts and margins are shares of the champion's mean."""

    model_config = ConfigDict(allow_inf_nan=False, use_attribute_docstrings=True)

    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Chance that a candidate without an advantage ever reaches a switch, over all nightly runs."""
    min_lift: float = Field(default=0.01, ge=0)
    """Lift that a switch needs, however strong its evidence is."""
    period_sd: float | None = Field(default=None, ge=0)
    """SD of a pair's lift from block to block that is always assumed; by default 0.005 if lists may
    repeat items, and 0.01 if they may not."""
    catch_up_blocks: int = Field(default=0, ge=0)
    """Number of earlier blocks that a nightly run evaluates as well, where days since the last
    recorded block are in no record; each costs another training of every recipe. The default is 4
    where `schedule.mode` is `adaptive` or `both`, because days without a run are in no record."""
    not_one_week: float = Field(default=10.0, ge=1)
    """E-value that a switch needs without its strongest block."""
    min_users: int = Field(default=MIN_USERS, ge=2)
    """Minimum number of users; with fewer no comparison is made."""
    min_nonzero: int = Field(default=MIN_NONZERO, ge=1)
    """Minimum number of users for whom two recipes must differ; with fewer nothing is compared."""
    default_seed_sd: float = Field(default=UNKNOWN_SEED_SD, ge=0)
    """Relative SD over training seeds of a learned recipe for which it was never measured."""
    coverage_ratio: float = Field(default=0.8, ge=0, le=1)
    """Share of the champion's coverage that a switch must keep."""
    min_coverage: float | None = Field(default=None, ge=0, le=1)
    """Share of the catalogue that the lists of a winner must hold; not tested by default."""
    max_gini: float | None = Field(default=None, ge=0, le=1)
    """Largest Gini index of the exposure in the lists of a winner; not tested by default."""
    min_novelty: float | None = Field(default=None, ge=0)
    """Mean novelty in bits that the lists of a winner must have; not tested by default."""
    min_diversity: float | None = Field(default=None, ge=0, le=1)
    """Mean diversity that the lists of a winner must have; not tested by default. Without
    categories of items it is not measured, and the bound fails."""
    slice_users: int = Field(default=100, ge=2)
    """Minimum number of users of a slice; a smaller slice is not tested."""
    slice_alpha_switch: float = Field(default=0.05, gt=0, lt=1)
    """Chance of a false loss in any slice, at a switch; divided by the number of slices."""
    slice_alpha_refresh: float = Field(default=0.0005, gt=0, lt=1)
    """Chance of a false loss in any slice, at a refresh; divided by the number of slices."""
    refresh_margin: float = Field(default=0.02, ge=0)
    """Loss against a stored scorer, overall or in a slice, that a refresh may always have."""
    refresh_errors: float = Field(default=3.0, ge=0)
    """Loss that a refresh may have by any of its rules, in standard errors."""
    refused_margin: float = Field(default=0.01, ge=0)
    """Loss that a refresh may always have by a rule that refused one since the last accepted run;
    beyond it one standard error is allowed."""
    level_margin: float = Field(default=0.5, ge=0, lt=1)
    """Loss of the champion's mean against its accepted blocks that a refresh may have."""
    floor_margin: float = Field(default=0.02, ge=0, lt=1)
    """Share by which the champion's mean may lie below the best baseline's at a refresh."""
    anchor_margin: float = Field(default=0.1, ge=0, lt=1)
    """Loss of the baseline ratio against the anchor that a refresh may have."""
    patience: int = Field(default=3, ge=0)
    """Number of nightly runs with too few users before a refresh blocks for a decision by hand."""
    fallback: str = Field(default="decayed_popularity", min_length=1)
    """Baseline that becomes the first champion if there are too few users to compare recipes."""
    human_review: bool = False
    """Let a reviewer decide in Airflow on an inconclusive candidate; no answer means no switch."""

    def period_sd_of(self, task: Task) -> float:
        """Return the SD of a pair's lift from block to block that is assumed for a task."""
        return _PERIOD_SD[task] if self.period_sd is None else self.period_sd

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # A comparison that needs more differences than users would always be underpowered.
        for name in ("min_users", "slice_users"):
            users, differing = getattr(self, name), self.min_nonzero
            if differing > users:
                raise ValueError(f"min_nonzero = {differing} must not exceed {name} = {users}")
        return self
