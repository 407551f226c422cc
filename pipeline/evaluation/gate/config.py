"""What a promotion needs, in numbers; the procedure they belong to stands in `decide`."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from pipeline.base import Frozen
from pipeline.evaluation.compare import MIN_NONZERO, MIN_USERS, UNKNOWN_SEED_SD


class GateConfig(Frozen):
    """What a promotion needs. Lifts and margins are shares of the champion's mean."""

    model_config = ConfigDict(allow_inf_nan=False)

    alpha: float = Field(
        default=0.01,
        gt=0,
        lt=0.5,
        description="Chance that a candidate that is not better ever gets to a switch, however "
        "many nights look at it.",
    )
    candidates: int = Field(
        default=5,
        ge=1,
        description="Candidates that the threshold pays for; more of them make it stricter. A "
        "switch needs candidates / alpha points.",
    )
    min_lift: float = Field(
        default=0.01, ge=0, description="Lift that a switch needs, however sure it is."
    )
    min_users: int = Field(
        default=MIN_USERS, ge=2, description="Users below which nothing is judged."
    )
    min_nonzero: int = Field(
        default=MIN_NONZERO,
        ge=1,
        description="Users that two recipes must serve differently to be told apart.",
    )
    default_seed_sd: float = Field(
        default=UNKNOWN_SEED_SD,
        ge=0,
        description="Spread over training seeds of a learned recipe that was never measured.",
    )
    coverage_ratio: float = Field(
        default=0.8, ge=0, le=1, description="Coverage that a switch must keep of the champion's."
    )
    slice_users: int = Field(
        default=100, ge=2, description="Users below which a slice is not judged."
    )
    slice_alpha_switch: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Level of the test for harm in any slice, at a switch.",
    )
    slice_alpha_refresh: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Level of the test for harm in any slice, at a refresh.",
    )
    refresh_margin: float = Field(
        default=0.02, ge=0, description="Loss against the scorer accepted last that is let pass."
    )
    refresh_errors: float = Field(
        default=3.0,
        ge=0,
        description="Standard errors of loss against the scorer accepted last that are let pass.",
    )
    anchor_margin: float = Field(
        default=0.1, ge=0, lt=1, description="Loss of baseline ratio against the anchor let pass."
    )
    baseline_floor: float = Field(
        default=0.98,
        ge=0,
        description="Share of the best baseline's mean that a refresh must keep.",
    )
    patience: int = Field(
        default=3, ge=0, description="Nights with too few users before a person is asked."
    )
    fallback: str = Field(
        default="decayed_popularity",
        min_length=1,
        description="Baseline that goes live first where nothing can be judged.",
    )
    human_review: bool = Field(
        default=False,
        description="Whether the scheduler asks a person about a candidate that has 1 / alpha "
        "points and not yet enough; no answer in time means no switch.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("min_users", "slice_users"):
            if self.min_nonzero > getattr(self, name):
                raise ValueError(
                    f"min_nonzero = {self.min_nonzero} is more than {name} = {getattr(self, name)}:"
                    " nothing could ever be judged"
                )
        return self
