"""Result of one check of the data, with its figure, bound and sentence.

Guarantees: a check blocks the nightly run unless its status is `passed` or `no_history`; a missing
figure therefore blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict, computed_field


class Status(StrEnum):
    """Result of a check; all values but the first two block the nightly run."""

    PASSED = "passed"
    NO_HISTORY = "no_history"
    FAILED = "failed"
    MISSING = "missing"
    RULES_INCOMPLETE = "rules_incomplete"


@dataclass(frozen=True)
class DataCheck:
    """Result of one check.

    Attributes
    ----------
    name
        Name of the rule, or `rules_run`, `quarantine_budget`, `volume`, `volume_week`,
        `activity_items`, `activity_users`, `returning_users`, `known_users`, `repeated_items`,
        `catalogue`, `schema`.
    status
        Passed, or the reason why it did not.
    figure, bound
        Measured value and allowed limit; ``None`` if there is none.
    sentence
        Both in words, for the page and the error.
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
        """True if this check does not block the nightly run."""
        return self.status in (Status.PASSED, Status.NO_HISTORY)


def verdict(passed: bool) -> Status:
    """Return the status of a check that has a figure."""
    return Status.PASSED if passed else Status.FAILED
