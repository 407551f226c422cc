"""Kills of the pipeline at random failpoints, in a sandbox, and the invariants that they broke.

An episode begins with a workspace that has one run behind it. Files land; passes over them are
killed at failpoints drawn by chance and started again; what the lake then holds is compared with
the expected state, which is kept by hand, and the lists with those of a pass without faults. Then
the nightly run: once without faults, once killed and started again from the same state, while a
reader polls the lists; both must end alike.

Guarantees: nothing outside the sandbox is touched, and nothing of it is left (of one whose process
was killed, the next start removes what is left); a seed repeats its episodes.
"""

from __future__ import annotations

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
from pipeline.testing.chaos.invariants import Reader, live_of, taken
from pipeline.testing.chaos.synthetic_shop import CONFIG, FIRST_NIGHT, NIGHT, Entry, Shop
from pipeline.workspace.workspace import CONFIG_FILE, Workspace

HITS: Final = {
    **dict.fromkeys(("claimed", "parsed", "committed", "fsynced", "archived", "mid_train"), 3),
    **dict.fromkeys(("step_tmp", "step_renamed", "manifest"), 12),
    **dict.fromkeys(("compacted", "checkpointed", "sums_written", "log_cleared"), 5),
}
"""How often a pass over three new files, or a night, is sure to come by; once at all others."""
_ROWS_PER_COMMIT: Final = (1, 25, 200_000)
"""Each file by itself, two or three files together, or all of a pass."""
_PREFIX: Final = "nightjar-chaos-"
_ALIVE: Final = "chaos"
"""Name of the lock of a sandbox in use."""


@dataclass
class Tally:
    """What was done, and what went wrong.

    Attributes
    ----------
    places
        Processes that a failpoint killed, by its name.
    lost, duplicated
        Things that were missing, or there too often: events, quarantined rows, files' counts,
        lists, publications, ledger lines, versions.
    mixed
        Reads of the lists that returned no whole publication.
    looks
        Reads of the lists.
    sentences
        The first 20 things that went wrong.
    """

    seed: int
    places: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    duplicated: int = 0
    mixed: int = 0
    looks: int = 0
    episodes: int = 0
    sentences: list[str] = field(default_factory=list)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def kills(self) -> int:
        """Processes that were killed."""
        return self.places.total()

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.lost or self.duplicated or self.mixed or self.sentences)

    def compare(self, expected: Counter[Entry], actual: Counter[Entry], where: str) -> None:
        """Count what differs."""
        missing, more = expected - actual, actual - expected
        self.lost += missing.total()
        self.duplicated += more.total()
        for words, entries in (("is missing", missing), ("is too many", more)):
            self.note(f"{where}: {str(entry)[:200]} {words}" for entry in list(entries)[:3])

    def hear(self, reader: Reader) -> None:
        """Count what a reader saw."""
        self.looks += reader.looks
        self.mixed += len(reader.faults)
        self.note(reader.faults[:3])

    def note(self, sentences: Iterable[str]) -> None:
        """Keep what went wrong, up to 20 sentences."""
        self.sentences = [*self.sentences, *sentences][:20]

    def text(self) -> str:
        """As lines for a person."""
        lines = [
            f"{self.kills} kills at {len(self.places)} places, "
            f"{min(self.places.values(), default=0)} or more at each: {self.lost} lost, "
            f"{self.duplicated} duplicated, {self.mixed} mixed ({self.looks:,} looks)"
        ]
        lines += [f"  {sentence}" for sentence in self.sentences]
        if not self.sound:
            lines.append(f"repeat it with --seed {self.seed}")
        return "\n".join(lines)


def chaos(kills: int, seed: int, *, progress: Progress = silent) -> Tally:
    """Run episodes until so many processes were killed, or something went wrong."""
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
    """Run the next episode of a tally, with no kill beyond `kills`."""
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
        tally.compare(expected, live_of(box.home), "fold-in")
    tally.compare(shop.account.entries(), taken(box.home), "ingest")
    expected = box.faultless_end(tally, "nightly")
    places = (*FAILPOINTS["night"], *FAILPOINTS["publish"])
    with Reader(box.home) as reader:
        for point in sorted(due(places, 6, tally, random), key=places.index):
            if tally.kills < kills:
                kill(box, tally, "nightly", point, draw_hit(point, random))
        run_without_faults(box, tally, "nightly")
    tally.hear(reader)
    tally.compare(expected, live_of(box.home), "night")


def due(places: Sequence[str], count: int, tally: Tally, random: np.random.Generator) -> list[str]:
    """Draw places, those first that killed the fewest processes so far."""
    drawn = [places[number] for number in random.permutation(len(places))]
    return sorted(drawn, key=lambda place: tally.places[place])[:count]


def draw_hit(point: str, random: np.random.Generator) -> int:
    """Draw at which of the sure passes of a place it kills."""
    return int(random.integers(1, HITS.get(point, 1) + 1))


def kill(box: ChaosSandbox, tally: Tally, work: str, point: str, hit: int) -> ExitStatus:
    """Do a work that is killed at a place; what an earlier kill left behind may not come by it."""
    ended = box.server.run(work, box.home, NIGHT, f"{point}:kill:{hit}")
    if ended.killed:
        tally.places[point] += 1
    else:
        _fault(ended, tally, f"{work} that was to die at {point}")
    return ended


def run_without_faults(box: ChaosSandbox, tally: Tally, work: str) -> None:
    """Do a work to its end."""
    _fault(box.server.run(work, box.home, NIGHT), tally, work)


def _fault(ended: ExitStatus, tally: Tally, what: str) -> None:
    if ended.code:
        tally.note([f"{what} failed: {ended.words.strip()}"])


class ChaosSandbox:
    """One place for a workspace, states of it that were put aside, and processes that may die.

    The workspace always lies at the same path: MLflow's database holds absolute ones.
    """

    def __init__(self, root: Path, server: ForkServer) -> None:
        self.home = root / "ws"
        self.server = server
        self._root = root

    def start(self, progress: Progress) -> None:
        """Make the workspace with its first night, and put that aside as ``started``."""
        tally = Tally(0)
        ws = Workspace.init(self.home, CONFIG)
        shop = Shop(0)
        shop.first(ws.home)
        progress("a workspace and its first night")
        for work in ("feedback", "nightly"):
            _fault(self.server.run(work, self.home, FIRST_NIGHT), tally, work)
        if tally.sentences:
            raise NightjarError("chaos.invariant", tally.sentences[0])
        self._account = shop.account  # the expected state after the first night
        self.put_aside("started")

    def shop(self, seed: int) -> Shop:
        """Return a shop that goes on from ``started``; the seed says how much one commit holds."""
        rows = _ROWS_PER_COMMIT[seed % len(_ROWS_PER_COMMIT)]
        text = f"{CONFIG}\n[ingest]\nrows_per_commit = {rows}\n"
        (self.home / CONFIG_FILE).write_text(text, "utf-8")
        return Shop(seed, deepcopy(self._account))

    def put_aside(self, name: str) -> None:
        """Keep the workspace as it is under a name."""
        shutil.rmtree(self._root / name, ignore_errors=True)
        shutil.copytree(self.home, self._root / name)

    def restore(self, name: str) -> None:
        """Bring the workspace back to what was put aside."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self._root / name, self.home)

    def faultless_end(self, tally: Tally, work: str) -> Counter[Entry]:
        """Return how a work without faults ends; the workspace stays before it."""
        self.put_aside("before")
        run_without_faults(self, tally, work)
        expected = live_of(self.home)
        self.restore("before")
        return expected


def remove_left_over() -> None:
    """Remove the sandboxes of dead processes: death frees a lock, but leaves folders."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (left / ".locks" / f"{_ALIVE}.lock").exists():
            with suppress(StorageError), Lake(left).lock(_ALIVE):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def sandbox(progress: Progress = silent) -> Iterator[ChaosSandbox]:
    """Make a sandbox, and remove it at the end, with those whose process was killed."""
    remove_left_over()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        root = Path(folder).resolve()
        with Lake(root).lock(_ALIVE), ForkServer(root / "log") as server:
            box = ChaosSandbox(root, server)
            box.start(progress)
            yield box
