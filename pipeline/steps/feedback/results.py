"""Results of the feedback commands, as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.steps.ingest.results import IngestResult


@dataclass(frozen=True)
class FoldinResult:
    """What became of the lists of people who did something.

    Attributes
    ----------
    users_refreshed
        People whose list is a new one.
    publication_id, generation
        Of the patch; ``None`` where nothing was refreshed.
    sentence
        What was done, or why nothing was.
    seconds
        What the pass took.
    fresh_after_seconds
        From the writing of the oldest file that is new in the patch to the lists; ``None`` where
        none landed here, or where lists do not go live by the clock.
    """

    users_refreshed: int
    publication_id: str | None
    generation: int | None
    sentence: str
    seconds: float
    fresh_after_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def text(self) -> str:
        """One line for a person."""
        if self.fresh_after_seconds is None:
            return self.sentence
        return f"{self.sentence}; what landed is in lists after {self.fresh_after_seconds:,.0f} s"


@dataclass(frozen=True)
class FeedbackResult(IngestResult):
    """One pass over the landing folder: what was folded in, and what is asked for.

    Attributes
    ----------
    verdict
        The policy's: ``skip``, ``fold_in`` or ``retrain``.
    """

    folded: FoldinResult
    verdict: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        said = {
            "events": self.events,
            "users_refreshed": self.folded.users_refreshed,
            "publication_id": self.folded.publication_id,
            "foldin": self.folded.to_dict(),
            "verdict": self.verdict,
            "reason": self.reason,
        }
        return super().to_dict() | said

    def text(self) -> str:
        """The files, then what was folded in, then the reason."""
        return f"{super().text()}\n{self.folded.text()}\n{self.reason}"
