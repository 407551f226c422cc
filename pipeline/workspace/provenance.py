"""What made a run's bytes beside its data: the code, the libraries, the kernels of linear algebra.

Promises: told, never an input: neither a run's identity nor any decision hangs on it; what cannot
be found out is left out.
"""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_PACKAGES: Final = (
    "deltalake",
    "implicit",
    "lightgbm",
    "numpy",
    "polars",
    "rectools-lightfm",
    "scipy",
)
"""Those that read, turn or learn from data; others cannot change a model's bytes."""


def commit() -> str:
    """Return the git commit of the code, or ``unknown`` outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return UNKNOWN
    return described.stdout.strip() or UNKNOWN


def libraries() -> dict[str, str]:
    """Return name -> version of what computes here, Python and the BLAS kernels included.

    ``blas`` names the processor's kernels, too: OpenBLAS picks others on another processor, and
    they add in another order.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, **_blas()}


def _blas() -> dict[str, str]:
    """Name the BLAS that numpy calls; others that are loaded by now depend on what ran before."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        return {}
    numpy = min(pools, key=lambda pool: ("numpy" not in pool["filepath"], pool["filepath"]))
    parts = (numpy.get(key) for key in ("internal_api", "version", "architecture"))
    return {"blas": " ".join(str(part) for part in parts if part)}
