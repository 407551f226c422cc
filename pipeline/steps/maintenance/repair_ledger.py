"""Restoration of a damaged, cut or lost ledger from the runs, the lake and the experiments.

Guarantees:

* Lines that fit their own checksum stay; missing entries are put where their process wrote them.
* The old file stays beside the new one. A killed repair leaves the old ledger or the new one.
* A ledger that lacks no entry is not changed.
* The last line names the user, the reason, and the entries that could not be restored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import accumulate
from operator import attrgetter
from typing import Final, TypeAlias

import polars as pl

from pipeline import columns as c
from pipeline.base import AsOf, Progress, silent
from pipeline.errors import LakeError, NightjarError, StorageError
from pipeline.steps.experiments.calibration.calibrate import FOLDER as CALIBRATIONS
from pipeline.steps.experiments.calibration.calibrate import calibration_entry
from pipeline.steps.experiments.tuning.report import FOLDER as STUDIES
from pipeline.steps.experiments.tuning.report import read_study
from pipeline.steps.experiments.tuning.study import candidate_entry
from pipeline.steps.feedback.decisions import decision_entry, override_entry
from pipeline.steps.nightly.accept import refuse_empty
from pipeline.stores.ledger import ReadableLines
from pipeline.stores.runs import Runs
from pipeline.workspace.agreement import compare_ledger, refuse_cut_ledger
from pipeline.workspace.experiment_artifacts import CalibrationFile, CalibrationPlanFile
from pipeline.workspace.history import JUST_AFTER, LedgerHistory
from pipeline.workspace.ledger import (
    DecisionEntry,
    Entry,
    OverrideEntry,
    PatchEntry,
    PublicationEntry,
    RepairEntry,
    StepEntry,
    line_of,
    parse_entry,
)
from pipeline.workspace.night import ACCEPT, Night
from pipeline.workspace.publications import entry_key, ledger_entry
from pipeline.workspace.step_outputs import PUBLISHED_STEPS, step_entry
from pipeline.workspace.workspace import Workspace

_Makers: TypeAlias = Iterator[tuple[str, Callable[[], Entry]]]
_Place: TypeAlias = tuple[datetime, int, int, int, int]
_RANKS: Final = (DecisionEntry, OverrideEntry, StepEntry, PublicationEntry, PatchEntry)
"""Order of the entries of one run."""


@dataclass(frozen=True)
class LedgerRepaired:
    """Result of a repair.

    Attributes
    ----------
    restored
        Keys of the restored entries.
    missing
        Entries that could not be restored.
    kept
        Name of the old file; None if there was none, or if nothing was to repair.
    lines
        Number of lines of the ledger.
    """

    restored: tuple[str, ...]
    missing: tuple[str, ...]
    kept: str | None
    lines: int

    def text(self) -> str:
        """Return the result as lines."""
        if not self.restored and not self.missing and self.kept is None:
            return f"nothing to repair: the ledger has {self.lines:,} lines and lacks none"
        lines = [f"restored: {key}" for key in self.restored]
        lines += [f"not restored: {entry}" for entry in self.missing]
        lines += [f"the old file is {self.kept}"] if self.kept else []
        return "\n".join([*lines, f"the ledger has {self.lines:,} lines"])


def repair_ledger(
    ws: Workspace, at: AsOf, *, by: str, reason: str, progress: Progress = silent
) -> LedgerRepaired:
    """Write the ledger again: its sound lines, and the missing entries from other stores.

    Parameters
    ----------
    ws
        Workspace; its lake must be sound.
    at
        Instant of the repair.
    by, reason
        User and reason, one line each.
    progress
        Receives short texts.

    Returns
    -------
    The restored entries, and those that could not be restored.

    Raises
    ------
    ConfigError
        `override.empty`, `override.not_printable`
    ConcurrencyError
        `lock.held`: a nightly run is in progress.
    """
    refuse_empty(by, reason)
    with (
        ws.lake.lock("night"),
        ws.lake.lock("publish", wait=True),
        ws.damaged_ledger.lock(),
    ):
        ledger, publications = ws.damaged_ledger, ws.lake.read("publications").sort(c.GENERATION)
        old = ledger.readable()
        restored = _Restored(ws, old, publications, progress)
        entries, new, missing = restored.entries, restored.new, restored.missing
        if not new and _is_sound(ws):
            return LedgerRepaired((), (), None, len(old.chained))
        sentence = f"ledger written again by {by}: {reason}; {len(new)} entries restored"
        if missing:
            sentence += f", {len(missing)} could not be restored"
        repair = RepairEntry(
            key=f"repair:ledger:{len(entries) + 1}",
            as_of=at,
            store="ledger",
            by=by,
            reason=reason,
            sentence=sentence,
            accepted_generation=max(publications[c.GENERATION], default=0),
            missing=missing,
        )
        progress("write the ledger")
        kept = ledger.rewrite([*map(line_of, entries), line_of(repair)])
    name = None if kept is None else kept.name
    return LedgerRepaired(tuple(new), missing, name, len(entries) + 1)


def _is_sound(ws: Workspace) -> bool:
    """Return whether the ledger is whole; an older lake is an error of the lake."""
    try:
        compare_ledger(ws.lake, ws.damaged_ledger)
        refuse_cut_ledger(ws.damaged_ledger)
    except LakeError:
        raise
    except StorageError:
        return False
    return True


@dataclass
class _Restored:
    """Entries of a ledger after a repair.

    Attributes
    ----------
    entries
        All entries, in the order of their lines.
    new
        Keys of those that the old file does not have.
    """

    ws: Workspace
    old: ReadableLines
    publications: pl.DataFrame
    progress: Progress
    entries: list[Entry] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    _faults: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: dict[str, Entry] = {}
        for line in (*self.old.chained, *self.old.later):
            known.setdefault(line["key"], parse_entry(line))
        self._add(known, self._published())
        self._add(known, self._decided())
        self._add(known, self._experiments(LedgerHistory(tuple(known.values()))))
        self.entries = self._in_order(known)

    @property
    def missing(self) -> tuple[str, ...]:
        """Entries that no store has, or whose store cannot be read."""
        keys = {entry.key for entry in self.entries}
        lines = {
            number: key
            for number, key in self.old.damaged.items()
            if key is None or key not in keys
        }
        # Each restored entry whose damaged line has lost its key is one that such a line held.
        unnamed = [number for number, key in lines.items() if key is None]
        restored = len(self.new) - sum(key in self.new for key in self.old.damaged.values())
        for number in unnamed[: max(restored, 0)]:
            del lines[number]
        missing = [f"line {n}" if key is None else f"line {n}, {key}" for n, key in lines.items()]
        missing += [f"{key}: {fault}" for key, fault in self._faults.items()]
        noted = self.ws.damaged_ledger.noted_lines() - len(self.entries)
        if (cut := max(self._lines_cut(), noted) - len(missing)) > 0:
            missing.append(f"{cut} lines that were cut off")
        return tuple(missing)

    def _lines_cut(self) -> int:
        """Return the number of lines that are missing before the last publication."""
        if self.publications.is_empty():
            return 0
        last = self.publications.row(-1, named=True)
        keys = [entry.key for entry in self.entries]
        key = entry_key(last)
        before = keys.index(key) if key in keys else len(keys)
        return int(last[c.LEDGER_LINES]) - before

    def _add(self, known: dict[str, Entry], entries: _Makers) -> None:
        """Add the entries that are not known; an unreadable store is a fault of its entry."""
        for key, make in entries:
            if key in known:
                continue
            self.progress(key)
            try:
                known[key] = make()
            except NightjarError as error:
                self._faults[key] = error.sentence
            else:
                self.new.append(key)

    def _published(self) -> _Makers:
        for row in self.publications.iter_rows(named=True):
            yield entry_key(row), partial(ledger_entry, self.ws, row)

    def _decided(self) -> _Makers:
        for run in self.ws.runs.starting_with(""):
            if run.committed("snapshot") is None or run.committed("gate") is None:
                continue
            try:
                night = Night.read(self.ws, run)
            except NightjarError as error:
                self._faults[f"entries of run {run.run_id}"] = error.sentence
                continue
            if night.replay:
                continue
            yield f"decision:{run.run_id}", partial(decision_entry, night)
            if run.committed(ACCEPT) is not None:
                yield f"override:{run.run_id}", partial(override_entry, night)
            for step in PUBLISHED_STEPS:
                if run.committed(step) is not None:
                    yield f"step:{run.run_id}:{step}", partial(step_entry, night, step)

    def _experiments(self, history: LedgerHistory) -> _Makers:
        for run in Runs(self.ws.home / CALIBRATIONS).starting_with(""):
            if run.committed(CalibrationFile.STEP) is None:
                continue
            champion = history.champion(run.read(CalibrationPlanFile).as_of + JUST_AFTER)
            if champion is None:
                self._faults[f"calibration:{run.run_id}"] = "its champion could not be restored"
            else:
                yield f"calibration:{run.run_id}", partial(calibration_entry, run, champion)
        for folder in sorted((self.ws.home / STUDIES).glob("*/")):
            study = read_study(self.ws, folder.name)
            if study.candidate:
                yield candidate_entry(study).key, partial(candidate_entry, study)

    def _in_order(self, known: Mapping[str, Entry]) -> list[Entry]:
        """Put the new entries between the old ones, which keep their order."""
        place = _places(known.values())
        entries = [entry for key, entry in known.items() if key not in self.new]
        first = len(self.old.chained)
        for entry in sorted((known[key] for key in self.new), key=place):
            later = (n for n in range(first, len(entries)) if place(entries[n]) > place(entry))
            entries.insert(next(later, len(entries)), entry)
        return entries


def _places(entries: Collection[Entry]) -> Callable[[Entry], _Place]:
    """Return a function that gives the place of an entry, which can be compared."""
    # A publication lies behind the steps of its run, and its generation behind the one before.
    # Other entries lie behind the publications up to their as-of.
    published = sorted(
        (entry for entry in entries if isinstance(entry, PublicationEntry | PatchEntry)),
        key=attrgetter("generation"),
    )
    # A patch may have a later as-of than the run whose publication follows it.
    reached = accumulate((entry.as_of for entry in published), max)
    at = {entry.key: until for entry, until in zip(published, reached, strict=True)}
    by_run = {e.run_id: e for e in published if isinstance(e, PublicationEntry)}

    def place(entry: Entry) -> _Place:
        rank = next((n for n, kind in enumerate(_RANKS) if isinstance(entry, kind)), len(_RANKS))
        step = PUBLISHED_STEPS.index(entry.step) if isinstance(entry, StepEntry) else 0
        own: Entry | None = entry if isinstance(entry, PatchEntry) else None
        if isinstance(entry, PublicationEntry | DecisionEntry | OverrideEntry | StepEntry):
            own = by_run.get(entry.run_id)
        if not isinstance(own, PublicationEntry | PatchEntry):
            return (entry.as_of, 1, 0, rank, step)
        return (at[own.key], 0, own.generation, rank, step)

    return place
