"""The answer of one check, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict, computed_field


class Status(StrEnum):
    """How a check ended; all but the first two block."""

    PASSED = "passed"
    NO_HISTORY = "no_history"
    FAILED = "failed"
    MISSING = "missing"
    RULES_INCOMPLETE = "rules_incomplete"


@dataclass(frozen=True)
class DataCheck:
    """One question to the data, and its answer.

    Attributes
    ----------
    name
        Name of the rule, or `rules_run`, `quarantine_budget`, `volume`, `volume_week`,
        `catalogue`, `schema`.
    status
        How it ended.
    figure, bound
        What was measured, and what is allowed; ``None`` where there is no such number.
    sentence
        The answer in words.
    """

    name: str
    status: Status
    figure: int | float | None  # a count stays whole in the file
    bound: int | float | None
    sentence: str
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="ignore")  # `passed` is derived

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the night may go on, as far as this check is concerned."""
        return self.status in (Status.PASSED, Status.NO_HISTORY)


def verdict(passed: bool) -> Status:
    """Return the status of a check that could be answered."""
    return Status.PASSED if passed else Status.FAILED
