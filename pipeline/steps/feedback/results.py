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
        The result, or the reason why no list was refreshed.
    seconds
        Duration of the fold-in.
    fresh_after_seconds
        Time from the writing of the oldest file that is new in the patch until its lists are live;
        ``None`` if no file is in the archive, or lists do not go live by the clock.
    users_trimmed
        Users whose list lost items that are no longer available.
    """

    users_refreshed: int
    publication_id: str | None
    generation: int | None
    sentence: str
    seconds: float
    fresh_after_seconds: float | None = None
    users_trimmed: int = 0

    def text(self) -> str:
        """Return one line for a terminal."""
        if self.fresh_after_seconds is None:
            return self.sentence
        return f"{self.sentence}, {self.fresh_after_seconds:,.0f} s after the oldest file landed"


@dataclass(frozen=True, kw_only=True)
class FeedbackResult(IngestResult):
    """Result of a pass: the files, the fold-in, and the decision of the policy.

    Attributes
    ----------
    events
        New rows of events.
    users_refreshed, publication_id
        Those of `foldin`.
    action
        ``skip``, ``fold_in`` or ``retrain``.
    """

    events: int
    users_refreshed: int
    publication_id: str | None
    foldin: FoldinResult
    action: str
    reason: str

    def text(self) -> str:
        """Return lines for a terminal: the files, the fold-in, the reason of the policy."""
        return f"{super().text()}\n{self.foldin.text()}\n{self.reason}"
