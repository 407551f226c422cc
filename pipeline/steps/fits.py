"""More fits of a recipe, where one would let its training seed decide.

The error of a comparison has two parts: people, who become fewer as a shop grows, and seeds, which
do not. So where many people judge and a fit is quick, a recipe is trained three times.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.base import Progress, silent
from pipeline.data.matrix import History
from pipeline.models.contract import Recipe, Scorer
from pipeline.stores.runs import Draft, Run

FITS: Final = 3
_MANY_USERS: Final = 4000
QUICK_SECONDS: Final = 60.0
"""A fit that took longer is not made again for its dice."""


def further(
    recipe: Recipe,
    history: History,
    first: Scorer,
    *,
    users: int,
    seconds: float,
    progress: Progress = silent,
) -> tuple[Scorer, ...]:
    """Train a recipe again with other salts; nothing where that pays or says nothing.

    Parameters
    ----------
    first
        Its fit with salt 0.
    users, seconds
        How many people judge, and how long the first fit took.

    Returns
    -------
    The fits with the salts 1, 2; none for a baseline, or where the dice change nothing.
    """
    if users < _MANY_USERS or seconds > QUICK_SECONDS or recipe.capabilities.baseline is not None:
        return ()
    found: list[Scorer] = []
    for salt in range(1, FITS):
        progress(f"fit {salt + 1} of {FITS}")
        found.append(recipe.train(history, salt=salt))
        if salt == 1 and same(first, found[0]):
            return ()
    return tuple(found)


def same(one: Scorer, other: Scorer) -> bool:
    """Whether two scorers are equal, number by number."""
    ours, theirs = one.arrays(), other.arrays()
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )


def write(draft: Draft, scorers: tuple[Scorer, ...]) -> None:
    """Write further fits beside the first one."""
    for salt, scorer in enumerate(scorers, start=1):
        draft.arrays(file_of(salt), scorer.arrays())


def files(run: Run, step: str) -> tuple[str, ...]:
    """Return the names of all fits of a step, the first one first."""
    written = run.manifest(step)["files"]
    return tuple(name for name in map(file_of, range(FITS)) if f"{name}.npz" in written)


def file_of(salt: int) -> str:
    """Name the file of a fit."""
    return f"scorer-{salt}" if salt else "scorer"
