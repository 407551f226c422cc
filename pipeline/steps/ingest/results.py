"""Results of ingest: status, counts and one sentence per file; ``--json`` writes them.

Guarantees: the counts of a call are the sums of those of its files; `failed` is true exactly if a
file was set aside, waits, is not read or could not be moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Self

from pipeline.errors import DataError, StorageError, printable
from pipeline.stores.batches import Batch

COUNTS: Final = ("rows", "accepted", "quarantined", "duplicates", "tombstoned", "skipped")
_BY_REASON: Final = ("reasons", "emptied", "changed", "doubtful")
_LISTED: Final = 20


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.items())


def _sums(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(sorted(total.items()))


class FileStatus(StrEnum):
    """Status of a file after a pass."""

    TAKEN = "taken"
    CHECKED = "checked"
    SEEN = "seen before"
    SET_ASIDE = "set aside"
    WAITS = "waits"
    NOT_READ = "not read"


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Counts of rows, of a file or of all files of a call.

    Attributes
    ----------
    reasons
        Reason -> quarantined rows with it; a row may have several.
    emptied
        Reason -> accepted rows of which one field counts as missing.
    changed
        Kind of change, such as ``item_id_float`` -> rows of which an id was changed.
    doubtful
        Id such as ``item_id 0`` -> accepted rows with it; it may mean that there is none.
    """

    rows: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    tombstoned: int = 0
    skipped: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    emptied: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    doubtful: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> str:
        """The counts as an equation without zeros."""
        shown = {name: getattr(self, name) for name in COUNTS}
        total = shown.pop("rows")
        # Accepted rows are shown even if there are none: the equation needs a right side.
        parts = [f"{n:,} {name}" for name, n in shown.items() if n or name == "accepted"]
        return f"{total:,} rows = {' + '.join(parts)}"


@dataclass(frozen=True)
class FileResult(RowCounts):
    """Result of one file.

    Attributes
    ----------
    status
        ``waits``: the file may be valid, but not with this config or at this moment; nothing was
        recorded. ``checked``: it was only validated. ``not read``: it is a link, or another
        irregular file.
    batch_id
        sha256 of its bytes; None if they could not be read.
    sentence
        The problem; empty for a file that was ingested and moved.
    error_id, exit_code
        Id of the problem's error, empty for an entry that is not read as a file, and its exit code.
    """

    file: str
    source: str
    status: FileStatus
    batch_id: str | None = None
    sentence: str = ""
    ignored_columns: tuple[str, ...] = ()
    table: str = ""
    error_id: str = ""
    exit_code: int = 0

    @classmethod
    def taken(cls, batch: Batch, by_reason: RowCounts, ignored: tuple[str, ...]) -> FileResult:
        """Build the result of a file whose rows were committed.

        Parameters
        ----------
        batch
            Counts and origin of the file.
        by_reason
            Counts by reason; the others are those of `batch`.
        ignored
            Columns of the file that its source does not map.

        Returns
        -------
        Result with status `TAKEN`.
        """
        return cls(
            file=batch.file,
            source=batch.source,
            table=batch.table,
            status=FileStatus.TAKEN,
            batch_id=batch.batch_id,
            ignored_columns=ignored,
            **{name: getattr(by_reason, name) for name in _BY_REASON},
            **{name: getattr(batch, name) for name in COUNTS},
        )

    @property
    def stays(self) -> bool:
        """True if the file stays in its place for a later pass."""
        return self.status is FileStatus.WAITS or self.exit_code == StorageError.exit_code

    @property
    def waits_for_config(self) -> bool:
        """True if the file may be valid, and only a user can end its waiting."""
        return self.status is FileStatus.WAITS and self.exit_code == DataError.exit_code

    def not_moved(self, error: StorageError) -> Self:
        """Return this result for a file that could not be moved out of the landing folder."""
        return replace(self, sentence=error.sentence, error_id=error.id, exit_code=error.exit_code)

    def text(self) -> str:
        """Return one line for a terminal."""
        if self.status not in (FileStatus.TAKEN, FileStatus.CHECKED):
            # The sentence of an error may begin with the file as well.
            reason = self.sentence.removeprefix(f"{self.file}: ")
            return f"{self.file}: {self.status}" + (f": {reason}" if reason else "")
        ignored = ", ".join(map(printable, self.ignored_columns[:_LISTED]))
        if len(self.ignored_columns) > _LISTED:
            ignored += ", …"
        return (
            f"{self.file}: {self.counts}"
            + (f"; quarantined for {_listed(self.reasons)}" if self.reasons else "")
            + (f"; fields emptied for {_listed(self.emptied)}" if self.emptied else "")
            + (f"; ids changed for {_listed(self.changed)}" if self.changed else "")
            + (
                f"; {_listed(self.doubtful)} may mean that there is no id (if so, add it to "
                "ingest.missing_ids)"
                if self.doubtful
                else ""
            )
            + (f"; columns ignored: {ignored}" if ignored else "")
            + (f"; {self.sentence}" if self.sentence else "")
        )


@dataclass(frozen=True, kw_only=True)
class IngestResult(RowCounts):
    """Results of all files of one call.

    Attributes
    ----------
    files
        Number of files that were examined.
    lake_version
        Version of the table after the call.
    backlog
        Landed files that are left for the next pass.
    younger
        Files written after the instant of the call or just before it, which are left as well.
    problems
        One sentence per file that was set aside, waits, is not read or could not be moved; at most
        20 sentences of files that are not read, then their number.
    warnings
        One sentence per entry of the landing folder that an earlier pass reported as not read, or
        as waiting for another config; at most 20, then the number of the others.
    """

    files: int
    lake_version: int | None
    backlog: int
    younger: int
    problems: tuple[str, ...]
    outcomes: tuple[FileResult, ...]
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_files(
        cls,
        outcomes: tuple[FileResult, ...],
        lake_version: int | None,
        *,
        backlog: int = 0,
        younger: int = 0,
        warnings: tuple[str, ...] = (),
    ) -> IngestResult:
        """Sum the results of files.

        Parameters
        ----------
        outcomes
            Results in the order of the files.
        lake_version, backlog, younger, warnings
            As in the class.

        Returns
        -------
        Results with their sums and problems.
        """
        return cls(
            **{name: sum(getattr(file, name) for file in outcomes) for name in COUNTS},
            reasons=_sums(file.reasons for file in outcomes),
            emptied=_sums(file.emptied for file in outcomes),
            changed=_sums(file.changed for file in outcomes),
            doubtful=_sums(file.doubtful for file in outcomes),
            files=len(outcomes),
            lake_version=lake_version,
            backlog=backlog,
            younger=younger,
            warnings=tuple(_shortened(warnings)),
            problems=tuple(_lines([file for file in outcomes if file.exit_code])),
            outcomes=outcomes,
        )

    @property
    def new_events(self) -> int:
        """Accepted rows of the table `events`."""
        return sum(file.accepted for file in self.outcomes if file.table == "events")

    @property
    def failed(self) -> bool:
        """True if a file has a problem."""
        return bool(self.problems)

    @property
    def exit_code(self) -> int:
        """The highest exit code of a file: 2, 3 or 6; 0 without a problem."""
        return max((file.exit_code for file in self.outcomes), default=0)

    @property
    def sentence(self) -> str:
        """The sum of all files."""
        if not self.files:
            return "no file was ingested" if self.younger else "no file has landed"
        counts = Counter(file.status for file in self.outcomes)
        parts = [self.counts] if counts.pop(FileStatus.TAKEN, 0) else []
        parts += [f"{status} {counts[status]:,}" for status in FileStatus if counts[status]]
        return f"{self.files:,} {'file' if self.files == 1 else 'files'}: {'; '.join(parts)}"

    def text(self) -> str:
        """Return one line per file, and their sum if there are several.

        Of files that are not read, the first 20 have a line.
        """
        lines = _lines(self.outcomes)
        if self.files != 1:
            lines.append(self.sentence)
        lines += [f"warning: {warning}" for warning in self.warnings]
        if self.backlog:
            lines.append(f"{self.backlog:,} files are left for the next pass")
        if self.younger:
            lines.append(
                f"too young for this pass, and left: {self.younger:,} "
                f"{'file' if self.younger == 1 else 'files'} (a file waits until two seconds after "
                "its writing)"
            )
        return "\n".join(lines)


def _lines(files: Sequence[FileResult]) -> list[str]:
    # A sender can create links in any number, and no pass removes them.
    irregular = [file.text() for file in files if file.status is FileStatus.NOT_READ]
    others = [file.text() for file in files if file.status is not FileStatus.NOT_READ]
    return [*_shortened(irregular), *others]


def _shortened(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _LISTED
    return [*lines[:_LISTED], *([f"and {more:,} more that are not read"] if more > 0 else [])]
