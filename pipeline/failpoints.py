"""Named places where a test, or `nightjar chaos`, ends or disturbs the process.

Promises: nothing happens unless ``NIGHTJAR_FAILPOINT=NAME:ACTION[:HIT]`` is set; then ACTION
happens once, the HIT-th time (default: the first) that the place NAME is passed, after a line on
stderr that says so. The variable is read once a process. A place that `FAILPOINTS` does not name,
or a setting that makes no sense, is an error and no silence.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Final

from pipeline.errors import ConfigError

VARIABLE: Final = "NIGHTJAR_FAILPOINT"
ACTIONS: Final = ("kill", "raise", "sleep", "enospc")
SLEEP_SECONDS: Final = 5.0
FAILPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": (
        "listed",
        "claimed",
        "parsed",
        "quarantine_written",
        "before_commit",
        "committed",
        "fsynced",
        "archived",
        "before_asset",
    ),
    "foldin": (
        "before_foldin",
        "patch_staged",
        "patch_swapped",
    ),
    "night": (
        "snapshot_pinned",
        "step_tmp",
        "step_renamed",
        "manifest",
        "mid_train",
        "evaluated",
        "decided",
        "refit",
        "artifact_logged",
        "version_created",
        "tagged",
    ),
    "publish": (
        "lists_written",
        "checked",
        "staged",
        "before_swap",
        "swapped",
        "ledger",
        "alias",
    ),
    "upkeep": (
        "compacted",
        "checkpointed",
        "sums_written",
        "log_cleared",
        "run_renamed",
    ),
}
"""What is under way -> the places that it passes, in order. What each is stands in
`docs/INGEST.md`, and for upkeep in `docs/STORES.md`."""
_NAMES: Final = frozenset(name for names in FAILPOINTS.values() for name in names)


class FailpointReached(RuntimeError):
    """What the action ``raise`` raises: to all who catch expected errors, a bug."""


@dataclass(frozen=True)
class _Armed:
    name: str
    action: str
    hit: int


_passed: Counter[str] = Counter()
_counting = Lock()


def failpoint(name: str) -> None:
    """Pass the place `name`; raises `ConfigError` for a setting that makes no sense."""
    armed = _armed()
    if armed is None or name != armed.name:
        return
    with _counting:
        _passed[name] += 1
        due = _passed[name] == armed.hit
    if due:
        _act(armed)


@cache
def _armed() -> _Armed | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    parts = [*text.split(":"), "1"] if text.count(":") == 1 else text.split(":")
    if len(parts) != 3:
        raise _wrong(text, "it is written NAME:ACTION[:HIT]")
    name, action, hit = parts
    if name not in _NAMES:
        raise _wrong(text, f"no place is called {name!r}")
    if action not in ACTIONS:
        raise _wrong(text, f"the actions are {', '.join(ACTIONS)}")
    if not hit.isascii() or not hit.isdecimal() or int(hit) < 1:
        raise _wrong(text, "HIT counts from 1")
    return _Armed(name, action, int(hit))


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError("failpoint.invalid", f"{VARIABLE}={text} makes no sense: {why}")


def _act(armed: _Armed) -> None:
    sys.stderr.write(f"failpoint {armed.name}: {armed.action}\n")
    sys.stderr.flush()
    if armed.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif armed.action == "raise":
        raise FailpointReached(armed.name)
    elif armed.action == "sleep":
        time.sleep(SLEEP_SECONDS)
    else:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
