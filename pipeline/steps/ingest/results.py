"""What became of files, in numbers and one sentence a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

from pipeline.stores.batches import Batch

COUNTS: Final = ("rows", "accepted", "quarantined", "duplicates", "tombstoned", "skipped")


class FileStatus(StrEnum):
    """How a file ended."""

    TAKEN = "taken"
    SEEN = "seen before"
    SET_ASIDE = "set aside"
    WAITS = "waits"


@dataclass(frozen=True)
class FileResult:
    """One file.

    Attributes
    ----------
    status
        ``waits``: the file may be right, the config or the moment is not; nothing was recorded.
    batch_id
        sha256 of its bytes; None where they could not be read.
    sentence
        What is wrong; empty for a file that was taken.
    reasons
        Reason -> rows in quarantine that show it; a row may show several.
    """

    file: str
    source: str
    status: FileStatus
    batch_id: str | None = None
    sentence: str = ""
    rows: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    tombstoned: int = 0
    skipped: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
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
            why = self.sentence.removeprefix(f"{self.file}: ")
            return f"{self.file}: {self.status}" + (f": {why}" if why else "")
        said = _counts(self)
        why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
        ignored = ", ".join(self.ignored_columns)
        return (
            f"{self.file}: {said}"
            + (f"; quarantined for {why}" if why else "")
            + (f"; columns ignored: {ignored}" if ignored else "")
        )


@dataclass(frozen=True)
class IngestResult:
    """All files of one call.

    Attributes
    ----------
    lake_version
        Version of the table after it.
    backlog
        Files that have landed and were left for the next pass.
    younger
        Files that were written after the call's instant or just before it, and are left as well.
    """

    outcomes: tuple[FileResult, ...]
    lake_version: int | None
    backlog: int = field(default=0, kw_only=True)
    younger: int = field(default=0, kw_only=True)

    @property
    def files(self) -> int:
        """How many files were looked at."""
        return len(self.outcomes)

    @property
    def accepted(self) -> int:
        """Rows that are new in the lake."""
        return sum(one.accepted for one in self.outcomes)

    @property
    def events(self) -> int:
        """New rows of events alone."""
        return sum(one.accepted for one in self.outcomes if one.table == "events")

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with files that were set aside, or wait for a better config."""
        bad = (FileStatus.SET_ASIDE, FileStatus.WAITS)
        return tuple(one.text() for one in self.outcomes if one.status in bad)

    @property
    def failed(self) -> bool:
        """Whether any file has a problem."""
        return bool(self.problems)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        reasons: Counter[str] = Counter()
        for one in self.outcomes:
            reasons.update(one.reasons)
        return {
            "files": self.files,
            **{name: sum(getattr(one, name) for one in self.outcomes) for name in COUNTS},
            "reasons": dict(sorted(reasons.items())),
            "lake_version": self.lake_version,
            "backlog": self.backlog,
            "younger": self.younger,
            "problems": list(self.problems),
            "outcomes": [
                {**asdict(one), "status": one.status.value, "reasons": dict(one.reasons)}
                for one in self.outcomes
            ],
        }

    def text(self) -> str:
        """A line a file, and their sum where there are several."""
        lines = [one.text() for one in self.outcomes] or [
            "nothing is taken in" if self.younger else "nothing has landed"
        ]
        if self.files > 1:
            lines.append(f"{self.files:,} files: {_counts_of(self.to_dict())}")
        if self.backlog:
            lines.append(f"{self.backlog:,} files are left for the next pass")
        if self.younger:
            lines.append(
                f"too young for this pass, and left: {self.younger:,} "
                f"{'file' if self.younger == 1 else 'files'} (a file waits until two seconds after "
                "its writing)"
            )
        return "\n".join(lines)


def _counts(one: FileResult) -> str:
    return _counts_of({name: getattr(one, name) for name in COUNTS})


def _counts_of(counts: Mapping[str, Any]) -> str:
    shown = [f"{counts[n]:,} {n}" for n in COUNTS[1:] if counts[n] or n == COUNTS[1]]
    return f"{counts[COUNTS[0]]:,} rows = {' + '.join(shown)}"
