"""How long stores keep what nobody needs any more; `docs/STORES.md` tells it store by store."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.base import Frozen

_Days = Annotated[int, Field(ge=1)]


class GcConfig(Frozen):
    """What `nightjar gc` takes away, in days before the instant that it is given."""

    versions_days: _Days = Field(
        default=7,
        description="Days for which every version of the lake's tables can be read, whether "
        "anything has pinned it or not.",
    )
    nights_days: _Days = Field(
        default=90,
        description="Days for which a night keeps the versions that it pinned, so that it can be "
        "made again; the live night and the one before it always keep theirs.",
    )
    abandoned_days: _Days = Field(
        default=14,
        description="Days without a step after which a night that never came to a decision is "
        "removed.",
    )
    scorers_days: _Days = Field(
        default=14,
        description="Days after the decision for which scorers stay that no step reads any more.",
    )
    quarantine_days: _Days = Field(
        default=14, description="Days for which rows stay in quarantine."
    )
    files_days: _Days = Field(
        default=14,
        description="Days for which files stay in archive and rejected, raw ids included.",
    )
    lists_days: _Days = Field(
        default=365,
        description="Days for which lists stay after others took their place; the live ones and "
        "those before them always do.",
    )
