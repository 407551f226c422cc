"""Memory limit of a training, and the error for a training that would exceed it.

The limit is `train.memory_gb` if that is set. Otherwise it is the free memory of the machine, of
the control group of this process (such as its container), or of its address space (``ulimit -v``),
whichever is least. Cache that the kernel would release counts as free, swap does not.

Guarantees: a training that does not fit raises before it starts; the sentence has the estimate,
the limit and the remedy.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil
from pydantic import Field

from pipeline.base import Frozen
from pipeline.data.matrix import History
from pipeline.errors import ResourceError
from pipeline.models.contract import Recipe

_MB: Final = 1 << 20
_GB: Final = 1 << 30
_SYSTEM: Final = Path("/")
_PROGRAM_BYTES: Final = 7 << 29
"""Address space of a command without data: libraries, most of them mapped and not in memory."""
_CORE_BYTES: Final = 64 << 20
"""Address space of the threads that the libraries start for each core."""

# Controller -> folder below /sys/fs/cgroup, files of the limit and of the usage, and the key in
# memory.stat of the cache that the kernel releases first. Control groups of version 2 are the entry
# with an empty name.
_GROUPS: Final = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class TrainConfig(Frozen):
    """Limits of a training."""

    memory_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Memory limit of the training of one recipe, in 2^30 bytes beyond the memory "
        "in use. Without a value, the limit is the memory that is free on the machine or in its "
        "container when the training starts.",
    )
    search_budget: float = Field(
        default=20.0,
        gt=0,
        allow_inf_nan=False,
        description="CPU minutes that the trainings of a selection of hyperparameters may take, as "
        "estimated from the counts of its windows, so that a rerun selects the same. Values that "
        "it leaves out keep their defaults; the log names them.",
    )


def refuse_too_large(name: str, recipe: Recipe, history: History, config: TrainConfig) -> None:
    """Raise if a training needs more memory than it may take.

    Parameters
    ----------
    name
        The recipe's name in the error.

    Raises
    ------
    ResourceError
        `memory.recipe_too_large`.
    """
    needed, limit = recipe.peak_bytes(history), limit_of(config)
    if needed <= limit:
        return
    source = "free memory" if config.memory_gb is None else "train.memory_gb"
    raise ResourceError(
        "memory.recipe_too_large",
        f"{name}: training needs about {size(needed)}, the limit is {size(limit)} ({source}); "
        "allow more memory or configure a smaller recipe",
    )


def refusal(config: TrainConfig) -> Callable[[Recipe, History], None]:
    """Return a function that raises for a recipe that is too large, named by its family."""
    return lambda recipe, history: refuse_too_large(recipe.family, recipe, history, config)


def limit_of(config: TrainConfig) -> int:
    """Return the number of bytes that a training may take now."""
    return free_memory() if config.memory_gb is None else round(config.memory_gb * _GB)


def size(count: int) -> str:
    """Write a number of bytes as ``1.3 GB`` or ``270.0 MB`` (2^30 and 2^20 bytes)."""
    return f"{count / _GB:,.1f} GB" if count >= _GB else f"{count / _MB:,.1f} MB"


def free_memory(system: Path = _SYSTEM) -> int:
    """Return the number of bytes that this process can still allocate.

    Parameters
    ----------
    system
        Root of ``/proc`` and ``/sys``, which hold the control groups.
    """
    available = int(psutil.virtual_memory().available)
    return max(0, min([available, *_left_in_groups(system), *_left_to_map()]))


def refuse_small_address_space() -> None:
    """Raise if the address space of this process is too small for any command with data.

    Libraries abort the process, or raise errors of any kind, if they cannot map memory.

    Raises
    ------
    ResourceError
        `memory.address_space`.
    """
    needed = _PROGRAM_BYTES + _CORE_BYTES * (os.cpu_count() or 1)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise ResourceError(
            "memory.address_space",
            f"the address space of this process is limited to {size(limit)}, and it needs at least "
            f"{size(needed)} besides its data; raise the limit (`ulimit -v`)",
        )


def _left_to_map() -> Iterator[int]:
    """Yield the bytes that this process may still map, if its address space is limited."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        yield limit - int(psutil.Process().memory_info().vms)


def _left_in_groups(system: Path) -> Iterator[int]:
    """Yield the free bytes of each control group of this process that has a limit."""
    mounted = system / "sys/fs/cgroup"
    for line in (system / "proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in _GROUPS.keys() & controllers.split(","):
            folder, *files = _GROUPS[controller]
            # In a container the root of the mount may be its own group; other paths do not exist.
            for group in (Path(place), *Path(place).parents):
                left = _left(mounted / folder / group.relative_to("/"), *files)
                if left is not None:
                    yield left


def _left(group: Path, limit: str, used: str, cache: str) -> int | None:
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return None
        taken = int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:  # the group is not visible from here, or lacks this controller
        return None
    return int(most) - taken + int(stat.get(cache, 0))
