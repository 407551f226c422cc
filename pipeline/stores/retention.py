"""Retention times of the stores; `docs/STORES.md` lists them store by store."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.base import Frozen

_Days = Annotated[int, Field(ge=1)]


class GcConfig(Frozen):
    """Ages at which `nightjar gc` removes data, in days before its instant `--at`."""

    versions_days: _Days = Field(
        default=7,
        description="Days for which every version of the lake's tables stays readable, pinned or "
        "not.",
    )
    nights_days: _Days = Field(
        default=90,
        description="Days for which the versions that a nightly run pinned stay readable, so that "
        "the run can be reproduced. The versions of the live run and the previous one always stay.",
    )
    abandoned_days: _Days = Field(
        default=14,
        description="Days without a step after which a nightly run without a decision is removed.",
    )
    scorers_days: _Days = Field(
        default=14,
        description="Days after a run's decision; scorers that no step reads are removed then.",
    )
    quarantine_days: _Days = Field(
        default=14, description="Days for which rows stay in the quarantine table."
    )
    files_days: _Days = Field(
        default=14,
        description="Days for which files stay in the folders archive and rejected. They contain "
        "raw user ids.",
    )
    lists_days: _Days = Field(
        default=365,
        description="Days for which recommendation lists stay after they were replaced. The live "
        "lists and the previous ones always stay.",
    )
