"""What all benchmarks share: the options of their command lines, and progress on stderr."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = (ROOT / "data", ROOT.parent / "shared" / "data")
"""Where a folder of data sets is looked for without ``--data``."""


def parser(about: str | None, *, data: str | None = None) -> argparse.ArgumentParser:
    """Return a parser that knows ``--json``, and ``--data`` where `data` says what lies there."""
    made = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data is not None:
        there = next((path for path in DATA if path.is_dir()), DATA[0])
        made.add_argument("--data", type=Path, default=there, help=data)
    made.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return made


def tell(text: str) -> None:
    """Say on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)
