"""Kills the pipeline at random failpoints in a sandbox and counts violated invariants.

An episode starts from a workspace with one nightly run. Files land; feedback passes over them are
killed at random failpoints and started again. Then the lake is compared with an expected state that
is computed independently of it, and the lists with those of a pass without faults. The next nightly
run is made twice from the same state: first without faults, then killed and started again while a
reader polls the lists. Both must end with the same content.

Guarantees: nothing outside the sandbox is changed, and the sandbox is removed at the end (after a
killed process, by the next start). Equal seeds give equal episodes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import computed_field

from pipeline.base import Progress, silent
from pipeline.errors import NightjarError, StorageError
from pipeline.failpoints import FAILPOINTS
from pipeline.stores.lake import Lake
from pipeline.testing.chaos.fork_server import ExitStatus, ForkServer
from pipeline.testing.chaos.invariants import Reader, lake_entries, published_entries
from pipeline.testing.chaos.synthetic_shop import CONFIG, FIRST_NIGHT, NIGHT, Entry, Shop
from pipeline.workspace.workspace import CONFIG_FILE, Workspace

HITS: Final = {
    **dict.fromkeys(("claimed", "parsed", "committed", "fsynced", "archived", "mid_train"), 3),
    **dict.fromkeys(("step_tmp", "step_renamed", "manifest"), 12),
    **dict.fromkeys(("compacted", "checkpointed", "sums_written", "log_cleared"), 5),
}
"""Failpoint -> number of times that every feedback pass or nightly run reaches it, at least.

A pass has three files or more. Failpoints that are not listed are reached at least once.
"""
_ROWS_PER_COMMIT: Final = (1, 25, 200_000)
"""Commits of one file each, of two or three files, and of all files of a pass."""
_PREFIX: Final = "nightjar-chaos-"
_ALIVE: Final = "chaos"
"""Name of the lock of a sandbox in use."""


@dataclass
class Tally:
    """Counts of kills and of violated invariants.

    Attributes
    ----------
    places
        Killed processes by the name of the failpoint.
    lost, duplicated
        Entries that were missing, or present too often: events, quarantined rows, counts of files,
        lists, publications, ledger lines, model versions.
    mixed
        Reads of the lists that did not return one whole publication.
    reads
        Reads of the lists.
    sentences
        The first 20 violations.
    """

    seed: int
    places: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    duplicated: int = 0
    mixed: int = 0
    reads: int = 0
    episodes: int = 0
    sentences: list[str] = field(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kills(self) -> int:
        """Number of killed processes."""
        return self.places.total()

    @property
    def sound(self) -> bool:
        """True if no invariant was violated."""
        return not (self.lost or self.duplicated or self.mixed or self.sentences)

    def compare(self, expected: Counter[Entry], actual: Counter[Entry], where: str) -> None:
        """Count missing and surplus entries.

        Parameters
        ----------
        expected, actual
            Multisets of entries.
        where
            Part of the pipeline that wrote them, for the sentences.
        """
        missing, more = expected - actual, actual - expected
        self.lost += missing.total()
        self.duplicated += more.total()
        for words, entries in (("is missing", missing), ("is too many", more)):
            self.note(f"{where}: {str(entry)[:200]} {words}" for entry in list(entries)[:3])

    def add_reads(self, reader: Reader) -> None:
        """Count the reads and the errors of a reader."""
        self.reads += reader.reads
        self.mixed += len(reader.errors)
        self.note(reader.errors[:3])

    def note(self, sentences: Iterable[str]) -> None:
        """Add sentences, up to 20 in all."""
        self.sentences = [*self.sentences, *sentences][:20]

    def text(self) -> str:
        """Return lines for a terminal."""
        lines = [
            f"{self.kills} kills at {len(self.places)} places, "
            f"{min(self.places.values(), default=0)} or more at each: {self.lost} lost, "
            f"{self.duplicated} duplicated, {self.mixed} mixed ({self.reads:,} reads)"
        ]
        lines += [f"  {sentence}" for sentence in self.sentences]
        if not self.sound:
            lines.append(f"repeat the run with --seed {self.seed}")
        return "\n".join(lines)


def chaos(kills: int, seed: int, *, progress: Progress = silent) -> Tally:
    """Run episodes until enough processes were killed, or an invariant was violated.

    Parameters
    ----------
    kills
        Number of processes to kill.
    seed
        Seed of all random choices.

    Returns
    -------
    The counts; `Tally.sound` is False if an invariant was violated.

    Raises
    ------
    NightjarError
        `chaos.invariant`: the first nightly run failed without any fault.
    """
    tally = Tally(seed)
    with sandbox(progress) as box:
        while tally.kills < kills and tally.sound:
            episode(box, tally, kills)
            progress(
                f"episode {tally.episodes}: {tally.kills} kills, {tally.lost} lost, "
                f"{tally.duplicated} duplicated, {tally.mixed} mixed"
            )
    return tally


def episode(box: ChaosSandbox, tally: Tally, kills: int) -> None:
    """Run the next episode and add its counts.

    Parameters
    ----------
    box
        Sandbox with the state ``started``.
    tally
        Counts of earlier episodes; failpoints with the fewest kills come first.
    kills
        Number of kills after which no process is killed any more, counted over all episodes.
    """
    # Seeded by the number of the episode, so that one episode can be repeated by itself.
    random = np.random.default_rng([tally.seed, tally.episodes])
    tally.episodes += 1
    box.restore("started")
    shop = box.shop(int(random.integers(1 << 30)))
    passed = (*FAILPOINTS["ingest"], *FAILPOINTS["foldin"])
    for _ in range(int(random.integers(1, 4))):
        shop.batch(box.home)
        expected = box.faultless_end(tally, "feedback")
        for point in due(passed, int(random.integers(1, 4)), tally, random):
            if tally.kills < kills:
                kill(box, tally, "feedback", point, draw_hit(point, random))
        run_without_faults(box, tally, "feedback")
        tally.compare(expected, published_entries(box.home), "fold-in")
    tally.compare(shop.expected.entries(), lake_entries(box.home), "ingest")
    expected = box.faultless_end(tally, "nightly")
    places = (*FAILPOINTS["night"], *FAILPOINTS["publish"])
    with Reader(box.home) as reader:
        # In the order in which a run reaches them: a restarted run skips the tasks that it has
        # committed, so an earlier failpoint would not be reached again.
        for point in sorted(due(places, 6, tally, random), key=places.index):
            if tally.kills < kills:
                kill(box, tally, "nightly", point, draw_hit(point, random))
        run_without_faults(box, tally, "nightly")
    tally.add_reads(reader)
    tally.compare(expected, published_entries(box.home), "night")


def due(places: Sequence[str], count: int, tally: Tally, random: np.random.Generator) -> list[str]:
    """Draw failpoints, those with the fewest kills first.

    Parameters
    ----------
    places
        Names to draw from.
    count
        How many to draw.
    tally
        Kills so far.
    random
        Source of randomness.

    Returns
    -------
    Names of failpoints.
    """
    # The sort is stable: failpoints with equally many kills stay in random order.
    drawn = [places[number] for number in random.permutation(len(places))]
    return sorted(drawn, key=lambda place: tally.places[place])[:count]


def draw_hit(point: str, random: np.random.Generator) -> int:
    """Draw the hit of a failpoint that kills.

    Parameters
    ----------
    point
        Name of the failpoint.
    random
        Source of randomness.

    Returns
    -------
    A number from 1 to `HITS` of the failpoint.
    """
    return int(random.integers(1, HITS.get(point, 1) + 1))


def kill(box: ChaosSandbox, tally: Tally, work: str, point: str, hit: int) -> ExitStatus:
    """Start a command that a failpoint is to kill.

    Parameters
    ----------
    box
        Sandbox in which it runs.
    tally
        Receives the kill, or the failure of the command.
    work
        ``feedback``, ``nightly`` or ``gc``.
    point, hit
        Failpoint, and the hit at which it kills.

    Returns
    -------
    Exit status of the process. A command that only completes the work of a killed one may end
    without reaching the failpoint.
    """
    ended = box.server.run(work, box.home, NIGHT, f"{point}:kill:{hit}")
    if ended.killed:
        tally.places[point] += 1
    else:
        _fault(ended, tally, f"{work} with failpoint {point}")
    return ended


def run_without_faults(box: ChaosSandbox, tally: Tally, work: str) -> None:
    """Run a command without a failpoint; a failure is added to the tally.

    Parameters
    ----------
    box
        Sandbox in which it runs.
    tally
        Receives the failure.
    work
        ``feedback``, ``nightly`` or ``gc``.
    """
    _fault(box.server.run(work, box.home, NIGHT), tally, work)


def _fault(ended: ExitStatus, tally: Tally, what: str) -> None:
    if ended.code:
        tally.note([f"{what} failed: {ended.words.strip()}"])


class ChaosSandbox:
    """A workspace, saved states of it, and the processes that run on it.

    The workspace always has the same path, because MLflow's database holds absolute paths.
    """

    def __init__(self, root: Path, server: ForkServer) -> None:
        self.home = root / "ws"
        self.server = server
        self._root = root

    def start(self, progress: Progress) -> None:
        """Make the workspace, run its first nightly run, and save this state as ``started``."""
        tally = Tally(0)
        ws = Workspace.init(self.home, CONFIG)
        shop = Shop(0)
        shop.first(ws.home)
        progress("workspace and first nightly run")
        for work in ("feedback", "nightly"):
            _fault(self.server.run(work, self.home, FIRST_NIGHT), tally, work)
        if tally.sentences:
            violation = tally.sentences[0]
            raise NightjarError(
                "chaos.invariant",
                f"the first nightly run failed without an injected fault: {violation}; if disk and "
                "memory suffice, report this message: it is a defect of Nightjar",
            )
        self._expected = shop.expected  # the expected state after the first night
        self.save("started")

    def shop(self, seed: int) -> Shop:
        """Return a shop that continues from ``started``; the seed sets the rows per commit."""
        rows = _ROWS_PER_COMMIT[seed % len(_ROWS_PER_COMMIT)]
        text = f"{CONFIG}\n[ingest]\nrows_per_commit = {rows}\n"
        (self.home / CONFIG_FILE).write_text(text, "utf-8")
        return Shop(seed, deepcopy(self._expected))

    def save(self, name: str) -> None:
        """Save the current state of the workspace under a name."""
        shutil.rmtree(self._root / name, ignore_errors=True)
        shutil.copytree(self.home, self._root / name)

    def restore(self, name: str) -> None:
        """Restore a saved state of the workspace."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self._root / name, self.home)

    def faultless_end(self, tally: Tally, work: str) -> Counter[Entry]:
        """Run a command without faults, then restore the state before it.

        Parameters
        ----------
        tally
            Receives a failure.
        work
            ``feedback`` or ``nightly``.

        Returns
        -------
        Content of the workspace after the command, see `published_entries`.
        """
        self.save("before")
        run_without_faults(self, tally, work)
        expected = published_entries(self.home)
        self.restore("before")
        return expected


def remove_left_over() -> None:
    """Remove the sandboxes of this user's processes that were killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another sandbox may end meanwhile, and those of other users cannot be looked into.
        with suppress(FileNotFoundError, StorageError):
            own = left.lstat().st_uid == os.geteuid()
            if own and (left / ".locks" / f"{_ALIVE}.lock").exists():
                # The kernel frees the lock of a killed process; a held one is a sandbox in use.
                with Lake(left).lock(_ALIVE):
                    shutil.rmtree(left, ignore_errors=True)


@contextmanager
def sandbox(progress: Progress = silent) -> Iterator[ChaosSandbox]:
    """Make a sandbox and remove it at the end; remove those of killed processes before."""
    remove_left_over()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        root = Path(folder).resolve()
        with Lake(root).lock(_ALIVE), ForkServer(root / "log") as server:
            box = ChaosSandbox(root, server)
            box.start(progress)
            yield box
