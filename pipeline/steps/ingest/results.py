"""Results of ingest: status, counts and one sentence of each file; ``--json`` writes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from pipeline.stores.batches import Batch

COUNTS: Final = ("rows", "accepted", "quarantined", "duplicates", "tombstoned", "skipped")


class FileStatus(StrEnum):
    """How a file ended."""

    TAKEN = "taken"
    SEEN = "seen before"
    SET_ASIDE = "set aside"
    WAITS = "waits"


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Rows of a file, or of all files of a call.

    Attributes
    ----------
    reasons
        Reason -> rows in quarantine that show it; a row may show several.
    """

    rows: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    tombstoned: int = 0
    skipped: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> str:
        """The counts as an equation, those that are zero left out."""
        shown = {name: getattr(self, name) for name in COUNTS}
        total = shown.pop("rows")
        parts = [f"{n:,} {name}" for name, n in shown.items() if n or name == "accepted"]
        return f"{total:,} rows = {' + '.join(parts)}"


@dataclass(frozen=True)
class FileResult(RowCounts):
    """One file.

    Attributes
    ----------
    status
        ``waits``: the file may be right, the config or the moment is not; nothing was recorded.
    batch_id
        sha256 of its bytes; None where they could not be read.
    sentence
        What is wrong; empty for a file that was taken.
    """

    file: str
    source: str
    status: FileStatus
    batch_id: str | None = None
    sentence: str = ""
    ignored_columns: tuple[str, ...] = ()
    table: str = ""

    @classmethod
    def taken(
        cls, batch: Batch, reasons: Mapping[str, int], ignored: tuple[str, ...]
    ) -> FileResult:
        """Build the result of a file whose rows were committed."""
        return cls(
            file=batch.file,
            source=batch.source,
            table=batch.table,
            status=FileStatus.TAKEN,
            batch_id=batch.batch_id,
            reasons=reasons,
            ignored_columns=ignored,
            **{name: getattr(batch, name) for name in COUNTS},
        )

    def text(self) -> str:
        """One line for a person."""
        if self.status is not FileStatus.TAKEN:
            reason = self.sentence.removeprefix(f"{self.file}: ")
            return f"{self.file}: {self.status}" + (f": {reason}" if reason else "")
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        ignored = ", ".join(self.ignored_columns)
        return (
            f"{self.file}: {self.counts}"
            + (f"; quarantined for {reasons}" if reasons else "")
            + (f"; columns ignored: {ignored}" if ignored else "")
        )


@dataclass(frozen=True, kw_only=True)
class IngestResult(RowCounts):
    """All files of one call.

    Attributes
    ----------
    files
        How many files were looked at.
    lake_version
        Version of the table after it.
    backlog
        Files that have landed and were left for the next pass.
    younger
        Files that were written after the call's instant or just before it, and are left as well.
    problems
        What is wrong with files that were set aside, or wait for a better config.
    """

    files: int
    lake_version: int | None
    backlog: int
    younger: int
    problems: tuple[str, ...]
    outcomes: tuple[FileResult, ...]

    @classmethod
    def of_files(
        cls,
        outcomes: tuple[FileResult, ...],
        lake_version: int | None,
        *,
        backlog: int = 0,
        younger: int = 0,
    ) -> IngestResult:
        """Sum up what became of files."""
        reasons: Counter[str] = Counter()
        for file in outcomes:
            reasons.update(file.reasons)
        bad = (FileStatus.SET_ASIDE, FileStatus.WAITS)
        return cls(
            **{name: sum(getattr(file, name) for file in outcomes) for name in COUNTS},
            reasons=dict(sorted(reasons.items())),
            files=len(outcomes),
            lake_version=lake_version,
            backlog=backlog,
            younger=younger,
            problems=tuple(file.text() for file in outcomes if file.status in bad),
            outcomes=outcomes,
        )

    @property
    def new_events(self) -> int:
        """New rows of events alone."""
        return sum(file.accepted for file in self.outcomes if file.table == "events")

    @property
    def failed(self) -> bool:
        """Whether any file has a problem."""
        return bool(self.problems)

    @property
    def sentence(self) -> str:
        """The sum of all files."""
        if not self.files:
            return "nothing is taken in" if self.younger else "nothing has landed"
        return f"{self.files:,} {'file' if self.files == 1 else 'files'}: {self.counts}"

    def text(self) -> str:
        """A line a file, and their sum where there are several."""
        lines = [file.text() for file in self.outcomes]
        if self.files != 1:
            lines.append(self.sentence)
        if self.backlog:
            lines.append(f"{self.backlog:,} files are left for the next pass")
        if self.younger:
            lines.append(
                f"too young for this pass, and left: {self.younger:,} "
                f"{'file' if self.younger == 1 else 'files'} (a file waits until two seconds after "
                "its writing)"
            )
        return "\n".join(lines)
