"""Software that a run was computed with: commit of the code, libraries, and BLAS kernels.

Guarantees: it is recorded only, and changes neither a run id nor a decision; a library that is not
installed is left out, and a commit that cannot be determined is ``unknown``.
"""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pipeline.workspace.child_process import CHILD_FOLDER, child_environment

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
"""Libraries that read, transform or train on data; others cannot change a model's bytes."""


def commit() -> str:
    """Return the git commit of the code, or ``unknown`` outside a checkout."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            cwd=CHILD_FOLDER,
            env=child_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return UNKNOWN
    return described.stdout.strip() or UNKNOWN


def libraries() -> dict[str, str]:
    """Return name -> version of the libraries, Python and the BLAS kernels included."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**versions, **_blas()}


def _blas() -> dict[str, str]:
    """Return name, version and kernels of the BLAS that numpy calls."""
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        return {}
    # Several libraries may have loaded a BLAS of their own; numpy's is the one that counts.
    numpy = min(pools, key=lambda pool: ("numpy" not in pool["filepath"], pool["filepath"]))
    # OpenBLAS selects kernels by the processor's architecture, and kernels differ in the order of
    # their sums.
    parts = (numpy.get(key) for key in ("internal_api", "version", "architecture"))
    return {"blas": " ".join(str(part) for part in parts if part)}
