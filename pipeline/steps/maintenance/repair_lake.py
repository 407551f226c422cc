"""Repairs of the lake's log: checkpoints and checksums.

Guarantees: a repair that was killed is completed by the next call; a repair of a sound lake changes
nothing. Lost checksums are accepted only after the ledger has the user and the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.base import AsOf, Progress, silent
from pipeline.steps.maintenance.gc import WRITERS
from pipeline.steps.nightly.accept import refuse_empty
from pipeline.stores.lake import Restoration
from pipeline.workspace.config import short_digest
from pipeline.workspace.ledger import RepairEntry, append_entry
from pipeline.workspace.workspace import Workspace


@dataclass(frozen=True)
class LakeRepaired:
    """Result of a repair of the lake.

    Attributes
    ----------
    repaired
        Files by table, relative to the table; only tables with a repair.
    altered
        Versions whose accepted files hold other rows than were committed, by table.
    """

    repaired: dict[str, tuple[str, ...]]
    altered: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def text(self) -> str:
        """Return the result as lines."""
        lines = [f"{table}: {', '.join(files)}" for table, files in self.repaired.items()]
        lines += [f"{table}: {_altered(versions)}" for table, versions in self.altered.items()]
        return "\n".join(lines) or "nothing to repair"


def repair_checkpoints(ws: Workspace, *, progress: Progress = silent) -> LakeRepaired:
    """Make damaged and lost checkpoints again from the log; remove wrong pointers to them.

    Parameters
    ----------
    ws
        Workspace.
    progress
        Receives the name of each table.

    Returns
    -------
    The checkpoints by table.

    Raises
    ------
    LakeError
        `lake.log_incomplete`: a checkpoint cannot be made again.
    ConcurrencyError
        `lock.held`: another process writes the table.
    """
    repaired = {}
    for table in WRITERS:
        with _restoration(ws, table, progress) as restoration:
            repaired[table] = restoration.rebuild_checkpoints()
    return LakeRepaired({table: files for table, files in repaired.items() if files})


def repair_sums(
    ws: Workspace, at: AsOf, *, by: str, reason: str, progress: Progress = silent
) -> LakeRepaired:
    """Accept the files of the lake whose checksums are lost, as they are now.

    Parameters
    ----------
    ws
        Workspace.
    at
        Instant of the repair, for the ledger.
    by, reason
        User and reason, one line each.
    progress
        Receives the name of each table.

    Returns
    -------
    The accepted files by table.

    Raises
    ------
    ConfigError
        `override.empty`, `override.not_printable`
    LakeError
        `lake.log_cut`, `lake.file_cut`: a file without a checksum is visibly damaged.
    ConcurrencyError
        `lock.held`: another process writes the table.
    """
    refuse_empty(by, reason)
    repaired, altered = {}, {}
    for table in WRITERS:
        with _restoration(ws, table, progress) as restoration:
            lost = restoration.lost_sums()
            if not lost:
                continue
            files = tuple(sorted(file for sums in lost.values() for file in sums))
            if versions := restoration.altered_versions(lost):
                altered[table] = versions
            # Before the checksums: a killed repair must not leave them without a user and a reason.
            # The next call computes the same checksums, and so the same key.
            entry = RepairEntry(
                key=f"repair:{table}:{short_digest({str(v): sums for v, sums in lost.items()})}",
                as_of=at,
                store=table,
                by=by,
                reason=reason,
                sentence=f"lost checksums of {len(files)} files of the table {table} accepted "
                f"by {by}: {reason}" + (f"; {_altered(versions)}" if versions else ""),
            )
            append_entry(ws.damaged_ledger, entry)  # `ws.ledger` would read the damaged lake
            restoration.accept_sums(lost)
            repaired[table] = files
    return LakeRepaired(repaired, altered)


def _altered(versions: Sequence[int]) -> str:
    named = ", ".join(map(str, versions))
    some = f"version {named} holds" if len(versions) == 1 else f"versions {named} hold"
    return f"{some} other rows than were committed, or rows that cannot be compared"


@contextmanager
def _restoration(ws: Workspace, table: str, progress: Progress) -> Iterator[Restoration]:
    """Hold the lock of the writers of a table."""
    progress(table)
    lake = ws.damaged_lake
    with lake.lock(WRITERS[table]):
        yield Restoration(lake.root, table)
