"""Compilation of functions by numba, for passes that numpy and scipy have no function for.

Guarantees: the compiled code is cached beside the source file, or in the user's cache folder, so
that the next process does not compile again; where neither is writable, each process compiles; an
index of an earlier version is replaced. Only a process that calls `compiled` imports numba. Sums
stay in the written order, so that all machines compute the same bytes, except in products by
`np.dot`, which the BLAS computes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(*signature: object) -> Callable[[_F], _F]:
    """Return a decorator that compiles a function, which then runs without Python's lock.

    Parameters
    ----------
    *signature
        Its numba type: the function is compiled at once, for this type alone. Without it, it is
        compiled for each type when another compiled function or Python first calls it.
    """
    import numba

    njit: Any = numba.njit  # its overloads do not allow for a signature that may be absent

    def decorate(function: _F) -> _F:
        try:
            return cast(_F, njit(*signature, cache=True, nogil=True)(function))
        except RuntimeError:  # neither this folder nor the user's cache folder is writable
            return cast(_F, njit(*signature, nogil=True)(function))
        except AttributeError:
            # An earlier version wrote the index of the cache, and names a class that is gone.
            folder = Path(njit(cache=True)(function).stats.cache_path)
            for index in folder.glob(f"{Path(function.__code__.co_filename).stem}.*.nbi"):
                index.unlink(missing_ok=True)
            return cast(_F, njit(*signature, cache=True, nogil=True)(function))

    return decorate
