"""Measures what a training costs: seconds, memory, parameters and events per second.

Guarantees: a measurement decides nothing. The clocks read here measure durations, never the time,
so they are no input of a run; and no reproducible checksum covers what they measure
(`CostFile.VOLATILE`): a repeated run is the same run at another speed.
"""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil
from pydantic import JsonValue, model_serializer

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import Recipe, Scorer
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import REFIT, CostFile, train_step
from pipeline.workspace.memory import TrainConfig, refuse_too_large

_MB: Final = 1 << 20
_EVERY_SECONDS: Final = 0.005


@dataclass(frozen=True)
class TrainingCosts:
    """What one recipe cost; in JSON the figures of `fit`, and those of the refit as ``refit``."""

    fit: CostFile
    refit: CostFile | None = None

    @model_serializer
    def _flat(self) -> dict[str, JsonValue]:
        refit = {} if self.refit is None else {REFIT: self.refit.plain()}
        return {**self.fit.plain(), **refit}


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

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu
        self._over.set()
        self._watch.join()
        self._look_once()
        if (highest := _highest()) > self._record:
            self._seen = max(self._seen, highest)

    @property
    def peak_bytes(self) -> int:
        """How much the process grew at most."""
        return int(self._seen - self._start)

    def cost(self, scorer: Scorer, history: History, estimate: int) -> CostFile:
        """Return what training `scorer` on `history` cost; `estimate` in bytes."""
        return CostFile(
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
) -> tuple[Scorer, CostFile]:
    """Train, and measure what it costs; `ResourceError` where memory is short."""
    refuse_too_large(name, recipe, history, config)
    with Meter() as meter:
        scorer = recipe.train(history, progress=progress)
    return scorer, meter.cost(scorer, history, recipe.peak_bytes(history))


def costs(run: Run, recipes: Iterable[str], winner: str | None) -> dict[str, TrainingCosts]:
    """Return what each recipe cost; of the winner, what its refit cost as well."""
    refit = run.find(CostFile, REFIT)
    return {
        name: TrainingCosts(fit, refit if name == winner else None)
        for name in recipes
        if (fit := run.find(CostFile, train_step(name))) is not None
    }


def cost_line(costs: Mapping[str, TrainingCosts]) -> str:
    """Return what all recipes cost together, the one that took longest, and the refit."""
    seconds = sum(cost.fit.fit_seconds for cost in costs.values())
    longest = max(costs, key=lambda name: costs[name].fit.fit_seconds)
    count = f"{len(costs)} recipe{'' if len(costs) == 1 else 's'}"
    line = f"{count} in {seconds:,.1f} s, {longest} longest: {costs[longest].fit.text()}"
    refits = [f"; refit: {cost.refit.text()}" for cost in costs.values() if cost.refit is not None]
    return line + "".join(refits)


def _highest() -> int:
    """The most that it ever had; `ru_maxrss` would count what its parent had before it, too."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
