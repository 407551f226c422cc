"""Results of the feedback commands; ``--json`` writes their fields."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.steps.ingest.results import IngestResult


@dataclass(frozen=True)
class FoldinResult:
    """Result of a fold-in.

    Attributes
    ----------
    users_refreshed
        Users with a new list.
    publication_id, generation
        Of the patch; ``None`` where nothing was refreshed.
    sentence
        What was done, or why nothing was.
    seconds
        Duration of the pass.
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

    def text(self) -> str:
        """One line for a person."""
        if self.fresh_after_seconds is None:
            return self.sentence
        return f"{self.sentence}; what landed is in lists after {self.fresh_after_seconds:,.0f} s"


@dataclass(frozen=True, kw_only=True)
class FeedbackResult(IngestResult):
    """Result of a pass over the landing folder: the files, the fold-in, the policy's decision.

    Attributes
    ----------
    events
        New rows of events.
    users_refreshed, publication_id
        Those of `foldin`.
    action
        The policy's: ``skip``, ``fold_in`` or ``retrain``.
    """

    events: int
    users_refreshed: int
    publication_id: str | None
    foldin: FoldinResult
    action: str
    reason: str

    def text(self) -> str:
        """Lines for a person: the files, the fold-in, the reason."""
        return f"{super().text()}\n{self.foldin.text()}\n{self.reason}"
