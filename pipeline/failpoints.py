"""Named places where a test, or `nightjar chaos`, ends or disturbs the process.

Guarantees: nothing happens unless ``NIGHTJAR_FAILPOINT=NAME:ACTION[:HIT]`` is set; then ACTION
happens once, when the place NAME is passed for the HIT-th time (default: the first), after a line
on stderr. The variable is read once per process; a malformed value raises `ConfigError`.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import chain
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
"""Activity -> the places that it passes, in order. `docs/INGEST.md` describes them, and
`docs/STORES.md` those of `upkeep`."""
_SETTING: Final = re.compile(
    rf"(?P<name>{'|'.join(chain.from_iterable(FAILPOINTS.values()))})"
    rf":(?P<action>{'|'.join(ACTIONS)})(:(?P<hit>0*[1-9][0-9]*))?"
)


class FailpointReached(RuntimeError):
    """Raised by the action ``raise``; not a `NightjarError`, so it counts as a bug."""


_passed: Counter[str] = Counter()
_counting = Lock()


def failpoint(name: str) -> None:
    """Pass the place `name`; `ConfigError` `failpoint.invalid` if the setting is malformed."""
    armed = _armed()
    if armed is None or name != armed["name"]:
        return
    # The action happens once even if threads pass the place together.
    with _counting:
        _passed[name] += 1
        due = _passed[name] == int(armed["hit"] or 1)
    if due:
        _act(name, armed["action"])


@cache
def _armed() -> re.Match[str] | None:
    setting = os.environ.get(VARIABLE)
    if not setting:
        return None
    armed = _SETTING.fullmatch(setting)
    if armed is None:
        raise ConfigError(
            "failpoint.invalid",
            f"{VARIABLE}={setting} is invalid; write NAME:ACTION[:HIT], NAME as in "
            f"docs/INGEST.md or docs/STORES.md, ACTION one of {', '.join(ACTIONS)}, HIT from 1 on",
        )
    return armed


def _act(name: str, action: str) -> None:
    sys.stderr.write(f"failpoint {name}: {action}\n")
    sys.stderr.flush()  # SIGKILL leaves no time to empty the buffer
    if action == "kill":
        # No `finally` and no exit handler runs after this signal, as in a power cut.
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FailpointReached(name)
    elif action == "sleep":
        time.sleep(SLEEP_SECONDS)
    else:
        # The error of a write to a full disk.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
