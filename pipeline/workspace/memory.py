"""How much memory a training may take, and the refusal of one that would take more.

Promises: what does not fit is refused before it starts, in one sentence with the estimate, the
limit and what to do. The limit is `train.memory_gb` where that is set. Otherwise it is what is free
now: of the machine, and of every control group around this process (a container's limit is one),
whichever is less. Cache that the kernel would give back counts as free, swap does not.
"""

from __future__ import annotations

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

# (folder below /sys/fs/cgroup, limit, in use, cache within it that is the first to go)
_GROUPS: Final = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class TrainConfig(Frozen):
    """What training may take."""

    memory_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Memory (in 2^30 bytes) that training one recipe may take beside what is in "
        "use; without it, what is free on the machine or in its container when training starts.",
    )


def refuse_too_large(name: str, recipe: Recipe, history: History, config: TrainConfig) -> None:
    """Raise `ResourceError` if `recipe` needs more memory for `history` than it may take."""
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
    """Return the bytes that a training may take now."""
    return free_memory() if config.memory_gb is None else round(config.memory_gb * _GB)


def size(count: int) -> str:
    """Write bytes as ``1.3 GB`` or ``270 MB``."""
    if count >= _GB:
        return f"{count / _GB:,.1f} GB"
    return f"{count / _MB:,.0f} MB" if count >= 10 * _MB else f"{count / _MB:.2g} MB"


def free_memory(system: Path = _SYSTEM) -> int:
    """Return the bytes that this process can still take; `system` holds its control groups."""
    available = int(psutil.virtual_memory().available)
    return max(0, min([available, *_left_in_groups(system)]))


def _left_in_groups(system: Path) -> Iterator[int]:
    """Yield what each group around this process has left, for those that have a limit."""
    mounted = system / "sys/fs/cgroup"
    for line in (system / "proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        for controller in _GROUPS.keys() & controllers.split(","):
            folder, *files = _GROUPS[controller]
            # In a container its own group may be mounted as the root: then only that one is found.
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
    except OSError:  # the group is not to be seen from here, or has no such controller
        return None
    return int(most) - taken + int(stat.get(cache, 0))
