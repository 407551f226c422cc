"""What a training costs: seconds, memory, parameters and events a second, measured as it runs.

Promises: a measurement is told and decides nothing. The clocks read here say how long something
took, never what time it is, so they are no input of a night; and no sum that must repeat covers
them (`Draft.json(..., measured=True)`): a night that is run again is the same night at another
speed.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import Recipe, Scorer
from pipeline.stores.runs import Draft, Run
from pipeline.workspace.memory import TrainConfig, refuse_too_large

FILE: Final = "cost"
REFIT: Final = "refit"
_MB: Final = 1 << 20
_EVERY_SECONDS: Final = 0.005
_MEASURED: Final = (
    "fit_seconds",
    "fit_cpu_seconds",
    "peak_mb",
    "parameters",
    "examples_per_second",
)


@dataclass(frozen=True)
class Cost:
    """What one training took.

    Attributes
    ----------
    fit_seconds, fit_cpu_seconds
        By the clock on the wall, and of all threads of this process together.
    peak_mb
        How much the process grew at most while training, in 2^20 bytes; a GPU's own memory is not
        in it.
    parameters
        Numbers learnt (`Scorer.parameters`).
    examples_per_second
        Events of the window ÷ `fit_seconds`.
    estimated_mb
        What `Recipe.memory` had said, in 2^20 bytes.
    trained_on
        ``cpu`` or ``cuda``.
    """

    fit_seconds: float
    fit_cpu_seconds: float
    peak_mb: float
    parameters: int
    examples_per_second: float
    estimated_mb: float
    trained_on: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """As metrics for people who compare."""
        told = self.to_dict()
        return {f"{prefix}{name}": float(told[name]) for name in _MEASURED}

    def text(self) -> str:
        """In a few words for a person."""
        return (
            f"{self.fit_seconds:,.1f} s, {self.peak_mb:,.0f} MB, {self.parameters:,} parameters, "
            f"{self.examples_per_second:,.0f} events a second"
        )


class Meter:
    """Measures what runs inside its ``with`` block.

    The kernel keeps the highest size that this process ever had. Where the block set a new record
    that is exact. Where the process had been larger before, it says nothing, and resetting it would
    take it from others who read it; so a thread looks every few milliseconds, too.
    """

    def __enter__(self) -> Self:
        _hand_back()
        self._process = psutil.Process()
        self._start = self._seen = self._process.memory_info().rss
        self._record = _highest()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="memory-meter", daemon=True)
        self._watch.start()
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu
        self._over.set()
        self._watch.join()
        self._look_once()
        highest = _highest()
        if highest > self._record:
            self._seen = max(self._seen, highest)

    @property
    def peak_bytes(self) -> int:
        """How much the process grew at most."""
        return int(self._seen - self._start)

    def cost(self, scorer: Scorer, history: History, estimate: int) -> Cost:
        """Return what training `scorer` on `history` took; `estimate` in bytes."""
        return Cost(
            fit_seconds=self._wall,
            fit_cpu_seconds=self._cpu,
            peak_mb=self.peak_bytes / _MB,
            parameters=scorer.parameters,
            examples_per_second=len(history.item) / self._wall,
            estimated_mb=estimate / _MB,
            trained_on=scorer.trained_on,
        )

    def _look(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            self._look_once()

    def _look_once(self) -> None:
        self._seen = max(self._seen, self._process.memory_info().rss)


def _hand_back() -> None:
    """Give the system what earlier work freed, else a training that fits into it costs nothing."""
    with suppress(OSError, AttributeError):  # the C library is not GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def fit(
    name: str, recipe: Recipe, history: History, config: TrainConfig, progress: Progress
) -> tuple[Scorer, Cost]:
    """Train, unless memory is short, and tell what it took; `ResourceError` where it is."""
    refuse_too_large(name, recipe, history, config)
    with Meter() as meter:
        scorer = recipe.train(history, progress=progress)
    return scorer, meter.cost(scorer, history, recipe.memory(history))


def write_cost(draft: Draft, cost: Cost) -> None:
    """Write a cost beside what it made; no sum that must repeat covers it."""
    draft.json(FILE, cost.to_dict(), measured=True)


def read_cost(run: Run, step: str) -> Cost | None:
    """Read what `write_cost` wrote; ``None`` where the step trained nothing or was not done."""
    if run.committed(step) is None or f"{FILE}.json" not in run.manifest(step)["files"]:
        return None
    told: Mapping[str, Any] = run.json(step, FILE)
    return Cost(**told)


def costs(run: Run, steps: Mapping[str, str], winner: str | None) -> dict[str, dict[str, Any]]:
    """Return what each recipe took in its step, as plain JSON; of the winner, `REFIT` as well."""
    taken = {name: read_cost(run, step) for name, step in steps.items()}
    told = {name: cost.to_dict() for name, cost in taken.items() if cost is not None}
    again = read_cost(run, REFIT)
    if again is not None and winner in told:
        told[winner][REFIT] = again.to_dict()
    return told


def cost_line(told: Mapping[str, Mapping[str, Any]]) -> str:
    """Tell what the recipes took together, which of them took longest, and what the refit took."""
    taken = {name: _cost(cost) for name, cost in told.items()}
    seconds = sum(cost.fit_seconds for cost in taken.values())
    longest = max(taken, key=lambda name: taken[name].fit_seconds)
    count = f"{len(taken)} recipe{'' if len(taken) == 1 else 's'}"
    line = f"{count} in {seconds:,.1f} s, {longest} longest: {taken[longest].text()}"
    for cost in told.values():
        if REFIT in cost:
            line += f"; refit: {_cost(cost[REFIT]).text()}"
    return line


def _cost(told: Mapping[str, Any]) -> Cost:
    return Cost(**{name: value for name, value in told.items() if name != REFIT})


def _highest() -> int:
    """The most that it ever had; `ru_maxrss` would count what its parent had before it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
