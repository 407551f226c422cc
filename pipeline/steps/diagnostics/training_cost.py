"""Cost of a training: seconds, memory, parameters and events per second.

Guarantees: no decision reads a measurement. The clocks here measure durations, never the time, so a
run does not depend on them; `CostFile` is volatile, so no reproducible checksum covers the results.
"""

from __future__ import annotations

import ctypes
import re
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil
from pydantic import JsonValue, model_serializer

from pipeline.base import Progress
from pipeline.data.matrix import History
from pipeline.models.contract import Recipe, Scorer
from pipeline.models.device import watch_gpu
from pipeline.stores.runs import Run
from pipeline.workspace.artifacts import REFIT, CostFile, train_step
from pipeline.workspace.memory import TrainConfig, refuse_too_large
from pipeline.workspace.task_log import logger

_MB: Final = 1 << 20
_EVERY_SECONDS: Final = 0.005


@dataclass(frozen=True)
class TrainingCosts:
    """Cost of one recipe; in JSON the figures of `fit`, and those of the refit as ``refit``."""

    fit: CostFile
    refit: CostFile | None = None

    @model_serializer
    def _flat(self) -> dict[str, JsonValue]:
        refit = {} if self.refit is None else {REFIT: self.refit.plain()}
        return {**self.fit.plain(), **refit}


class Meter:
    """Measures duration and memory of its ``with`` block, and how fits in it use the GPU.

    The kernel keeps the maximum size of the process (``VmHWM``). It is exact if the block exceeds
    it. If the process had been larger before, it contains no information about the block, and
    resetting it would affect other readers; so a thread samples the size every few milliseconds as
    well.
    """

    def __enter__(self) -> Self:
        # Before the first measurement, so that the block starts from the memory in use.
        _hand_back()
        self._process = psutil.Process()
        self._start = self._seen = self._process.memory_info().rss
        self._record = _highest()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, name="memory-meter", daemon=True)
        self._watch.start()
        self._stack = ExitStack()
        self.gpu = self._stack.enter_context(watch_gpu())
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = time.process_time() - self._cpu
        self._stack.close()
        self._over.set()
        self._watch.join()
        if (highest := _highest()) > self._record:
            self._seen = max(self._seen, highest)

    @property
    def peak_bytes(self) -> int:
        """Maximum growth of the process."""
        return int(self._seen - self._start)

    def cost(self, scorer: Scorer, history: History, estimate: int) -> CostFile:
        """Return the cost of the measured training.

        Parameters
        ----------
        scorer, history
            Result and input of the training.
        estimate
            Estimated memory in bytes.
        """
        gpu = self.gpu
        used = scorer.trained_on == "cuda"
        return CostFile(
            fit_seconds=self._wall,
            fit_cpu_seconds=self._cpu,
            peak_mb=self.peak_bytes / _MB,
            parameters=scorer.parameters,
            examples_per_second=len(history.item) / self._wall,
            estimated_mb=estimate / _MB,
            trained_on=scorer.trained_on,
            gpu_peak_mb=gpu.peak_bytes / _MB if used else None,
            gpu_estimated_mb=gpu.estimated_bytes / _MB if used else None,
            gpu_cause=gpu.cause and f"{gpu.cause.id}: {gpu.cause.sentence}",
        )

    def _look(self) -> None:
        over = False
        while not over:
            # A last sample follows the end: the block may be shorter than the interval.
            over = self._over.wait(_EVERY_SECONDS)
            self._seen = max(self._seen, self._process.memory_info().rss)


def _hand_back() -> None:
    """Return freed memory to the system; a training that reuses it would seem to need none."""
    with suppress(OSError, AttributeError):  # the C library is not GNU's
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def fit(
    name: str, recipe: Recipe, history: History, config: TrainConfig, progress: Progress
) -> tuple[Scorer, CostFile]:
    """Train a recipe and measure the cost.

    Parameters
    ----------
    name
        Name of the recipe in the config, for messages.
    config
        Limit of the memory.

    Raises
    ------
    ResourceError
        The estimated memory is above the limit; see `refuse_too_large`.
    """
    refuse_too_large(name, recipe, history, config)
    with Meter() as meter:
        scorer = recipe.train(history, progress=progress)
    if (cause := meter.gpu.cause) is not None:
        logger().warning("gpu_not_used", recipe=name, error=cause.sentence, error_id=cause.id)
    return scorer, meter.cost(scorer, history, recipe.peak_bytes(history))


def costs(run: Run, recipes: Iterable[str], winner: str | None) -> dict[str, TrainingCosts]:
    """Return the cost of each trained recipe.

    Parameters
    ----------
    winner
        Recipe that was refitted, or None; its refit is included.
    """
    refit = run.find(CostFile, REFIT)
    return {
        name: TrainingCosts(fit, refit if name == winner else None)
        for name in recipes
        if (fit := run.find(CostFile, train_step(name))) is not None
    }


def cost_line(costs: Mapping[str, TrainingCosts]) -> str:
    """Return total seconds, the cost of the slowest recipe, and that of the refit."""
    seconds = sum(cost.fit.fit_seconds for cost in costs.values())
    longest = max(costs, key=lambda name: costs[name].fit.fit_seconds)
    count = f"{len(costs)} recipe{'' if len(costs) == 1 else 's'}"
    line = f"{count} in {seconds:,.1f} s, {longest} longest: {costs[longest].fit.text()}"
    refits = [f"; refit: {cost.refit.text()}" for cost in costs.values() if cost.refit is not None]
    return line + "".join(refits)


def _highest() -> int:
    """Return ``VmHWM`` in bytes; ``ru_maxrss`` would include the parent's size before the fork."""
    line = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(line[1]) * 1024 if line else 0
