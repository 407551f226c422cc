"""E-processes of a run: those of earlier runs, new ones, and the blocks of days that they lack.

Where runs are rare, most days are in no record. A run then evaluates earlier blocks as well, with
recipes that were trained up to the beginning of each block, as a run at its end would have done.

Guarantees: the order of the recipes has no effect; missing blocks overlap neither a record nor the
block of a run that was blocked or had too few users; a record is added only after all earlier ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pipeline.base import Interval
from pipeline.evaluation.gate.e_process import EProcess, EProcessKey, later_weight, opening_weight
from pipeline.evaluation.gate.evidence import GateHistory
from pipeline.evaluation.gate.records import BlockRecord


def processes_of(
    past: GateHistory, champion: str, candidates: Iterable[str], tonight: datetime
) -> dict[str, EProcess]:
    """Return the e-process of each candidate by its hash; a new candidate's opens tonight.

    Parameters
    ----------
    past
        Earlier e-processes, and the opening of the champion.
    champion, candidates
        Hashes of the recipes.
    tonight
        End of tonight's block.

    Returns
    -------
    dict
        Without tonight's records.
    """
    hashes = sorted(candidates)  # their order must have no effect
    opened, openers = past.opened, past.openers
    if opened is None:  # the first run of a task
        opened, openers = tonight, tuple(hashes)
    later = [p for p in past.e_processes if p.key.champion == champion]
    number = sum(process.key.candidate not in openers for process in later)
    processes = {}
    for candidate in hashes:
        key = EProcessKey(champion, candidate)
        process = past.e_process(key)
        if process is None and candidate in openers:
            process = EProcess(key, opened, opening_weight(len(openers)))
        elif process is None:
            # Older days may have been the reason to add this recipe.
            number += 1
            process = EProcess(key, tonight, later_weight(number))
        processes[candidate] = process
    return processes


def missing_blocks(
    processes: Iterable[EProcess], tonight: Interval, excused: Sequence[Interval], count: int
) -> tuple[Interval, ...]:
    """Return the newest blocks before tonight's that some e-process lacks.

    The days since the last record, or since the opening, are cut from the newest into blocks of
    tonight's length; what is left of them is a block as well.

    Parameters
    ----------
    processes
        E-processes of one champion.
    tonight
        Tonight's block.
    excused
        Blocks of runs that were blocked or had too few users.
    count
        Number of blocks per e-process, at most.

    Returns
    -------
    tuple
        Oldest first.
    """
    blocks: set[Interval] = set()
    for process in processes:
        spans = _free_spans(process, tonight.start, [*excused, *process.excused])
        cut = [block for span in reversed(spans) for block in _cut(span, tonight.length)]
        blocks.update(cut[:count])
    return tuple(sorted(blocks, key=lambda block: (block.start, block.end)))


def with_record(process: EProcess, block: Interval, record: BlockRecord | None) -> EProcess:
    """Return the e-process after one block, oldest block first.

    Parameters
    ----------
    process
        Before the block.
    block
        Days of the record; blocks of another e-process may overlap days that this one has.
    record
        None if the two recipes could not be compared, so that the block is not a hole.

    Returns
    -------
    EProcess
        The same one if the block starts before `free_from`.
    """
    if block.start < process.free_from:
        return process
    if record is None:
        return replace(process, excused=(*process.excused, block))
    return process.add(record)


def _free_spans(process: EProcess, until: datetime, excused: Sequence[Interval]) -> list[Interval]:
    """Return the days from the last record to an instant that are not excused, oldest first."""
    at, spans = process.free_from, list[Interval]()
    for span in sorted(excused, key=lambda span: span.start):
        if span.start > at and at < until:
            spans.append(Interval(at, min(span.start, until)))
        at = max(at, span.end)
    if at < until:
        spans.append(Interval(at, until))
    return spans


def _cut(span: Interval, length: timedelta) -> list[Interval]:
    """Cut a span into blocks, newest first; the oldest one may be shorter."""
    blocks, end = list[Interval](), span.end
    while end > span.start:
        start = max(span.start, end - length)
        blocks.append(Interval(start, end))
        end = start
    return blocks
