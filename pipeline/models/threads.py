"""Calls of one function side by side, each with one thread of the BLAS.

Guarantees: results come in the order of the arguments, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from threadpoolctl import ThreadpoolController

_A = TypeVar("_A")
_T = TypeVar("_T")
_MOST: Final = 8
"""Calls at a time, at most: each has its block in memory."""


def thread_count() -> int:
    """Return the number of calls that `in_threads` makes at a time: the threads of the BLAS."""
    blas = ThreadpoolController().select(user_api="blas")
    return min(max((library.num_threads for library in blas.lib_controllers), default=1), _MOST)


def in_threads(work: Callable[[_A], _T], parts: Sequence[_A]) -> Iterator[_T]:
    """Call a function for each part.

    Parameters
    ----------
    work
        A function that holds Python's lock for a small part of its time only.
    parts
        Its arguments.

    Yields
    ------
    Results in the order of `parts`.
    """
    # Calls run side by side, so the products of each take one thread of the BLAS.
    blas, threads = ThreadpoolController().select(user_api="blas"), thread_count()
    with blas.limit(limits=1), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, parts)
