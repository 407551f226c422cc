"""Report of the quarantine: rows per file and reason, with examples.

Guarantees: ids of users and events are masked, as the quarantine stores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline import columns as c
from pipeline.data.ingest.quarantine import by_reason, of_file, with_files
from pipeline.errors import ConfigError, nearest
from pipeline.workspace.workspace import Workspace

_EXAMPLES: Final = 3


@dataclass(frozen=True)
class Quarantined:
    """Rows of one file with one reason.

    Attributes
    ----------
    file, batch_id
        Name and sha256 of the file.
    examples
        Lines of the first rows, and their bad values as JSON.
    """

    file: str
    batch_id: str
    reason: str
    rows: int
    examples: tuple[tuple[int, str], ...]

    def text(self) -> str:
        """Return one line for a terminal."""
        shown = ", ".join(f"line {line} {raw}" for line, raw in self.examples)
        return f"{self.file}: {self.rows:,} {self.reason}: {shown}"


def quarantined(ws: Workspace, file: str | None = None) -> tuple[Quarantined, ...]:
    """Return the rows in quarantine, by file and reason.

    Parameters
    ----------
    ws
        Workspace.
    file
        Name or sha256 of a file; None for all files.

    Returns
    -------
    The newest file first, its most frequent reason first; a row with several reasons is in each.

    Raises
    ------
    ConfigError
        `quarantine.unknown_file`: no file of this name has rows in quarantine.
    """
    batches = ws.lake.read("batches", columns=[c.BATCH_ID, c.FILE, c.SEQ])
    rows = with_files(ws.lake.read("quarantine"), batches)
    if file is not None:
        known = sorted(rows[c.FILE].unique())
        rows = of_file(rows, file)
        if rows.is_empty():
            raise ConfigError(
                "quarantine.unknown_file",
                f"no row of {file} is in quarantine; nightjar quarantine shows all files"
                f"{nearest(file, known)}",
            )
    return tuple(
        Quarantined(name, digest, reason, count, tuple(zip(lines, raws, strict=True)))
        for _, name, digest, reason, count, lines, raws in by_reason(rows, _EXAMPLES).iter_rows()
    )
