"""A parent process that has imported all libraries and forks a child for each command.

Failpoints kill the children; forking saves each of them seconds of imports.

Guarantees: a child does the same work as the command of its name, with or without an armed
failpoint. Whatever kills a child, the parent reports its exit code and can fork the next one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from pipeline.base import AsOf, as_of, format_instant
from pipeline.errors import NightjarError, ResourceError
from pipeline.failpoints import VARIABLE
from pipeline.workspace.child_process import CHILD_FOLDER, child_environment, python_command

_SECONDS: Final = 300
"""Time after which a child is killed."""
_WARM: Final = (
    "great_expectations",
    "implicit.als",
    "matplotlib.figure",
    "mlflow.artifacts",
    "mlflow.store.tracking.sqlalchemy_store",
    "pipeline.steps.feedback.feedback",
    "pipeline.steps.maintenance.gc",
    "pipeline.steps.nightly.nightly",
)
"""Modules that a run imports lazily.

They are named as text, because import contracts allow each library in one folder only.
"""


@dataclass(frozen=True)
class ExitStatus:
    """End of a child process.

    Attributes
    ----------
    code
        Its exit code, or minus the number of the signal that killed it.
    words
        The last 2,000 characters of its output.
    """

    code: int
    words: str

    @property
    def killed(self) -> bool:
        """True if a failpoint killed it."""
        return self.code == -signal.SIGKILL


class ForkServer:
    """The parent process; its imports take some seconds, for which the first `run` waits."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            python_command("pipeline.testing.chaos.fork_server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=CHILD_FOLDER,
            env=_environment(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.kill()

    def run(self, work: str, home: Path, at: datetime, failpoint: str = "") -> ExitStatus:
        """Run a command in a child process and wait for its end.

        Parameters
        ----------
        work
            ``feedback``, ``nightly`` or ``gc``.
        home
            Folder of the workspace.
        at
            Instant of the command, UTC.
        failpoint
            Setting of `failpoints.VARIABLE`, such as ``committed:kill:1``; empty for none.

        Returns
        -------
        How the child ended.

        Raises
        ------
        ResourceError
            `chaos.fork_server_died`: the parent process ended.
        """
        self._log.unlink(missing_ok=True)
        request = {"work": work, "home": str(home.resolve()), "at": format_instant(at)}
        request |= {"failpoint": failpoint, "log": str(self._log.resolve())}
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
        except (BrokenPipeError, ValueError):  # at the end of the stream the line is empty
            raise ResourceError(
                "chaos.fork_server_died",
                "the parent process of the children ended, perhaps for lack of memory; free "
                "memory, then run `nightjar chaos` again",
            ) from None
        output = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        return ExitStatus(code, output[-2000:])


def _environment() -> dict[str, str]:
    # The parent opens the same sandbox, its vault included: both need the same settings and key.
    settings = {name: value for name, value in os.environ.items() if name.startswith("NIGHTJAR")}
    settings.pop(VARIABLE, None)
    # OpenBLAS starts its threads at import, and a fork copies only the calling one.
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return child_environment() | settings | threads


def _serve() -> None:
    """Fork a child for each request, and return its exit code."""
    from pipeline.stores.registry.connection import registry_errors

    responses = os.fdopen(os.dup(1), "wb")  # children redirect descriptor 1 to their log
    with registry_errors("sqlite:///none"):  # MLflow reads its settings at its first import
        for name in _WARM:
            import_module(name)
    for line in sys.stdin.buffer:
        with warnings.catch_warnings():
            # Python warns of threads; those of the allocators support forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _run_child(json.loads(line))
        _, status = os.waitpid(child, 0)
        responses.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        responses.flush()


def _run_child(request: dict[str, str]) -> None:
    """Run the command in the child, log a failure, and end."""
    signal.alarm(_SECONDS)  # the default action of the signal ends the process
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if request["failpoint"]:
        os.environ[VARIABLE] = request["failpoint"]
    code = 1
    try:
        _work(request["work"], Path(request["home"]), as_of(request["at"]))
        code = 0
    except NightjarError as error:
        sys.stderr.write(f"{error.sentence}\n")
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # the exit handlers belong to the parent


def _work(work: str, home: Path, at: AsOf) -> None:
    from pipeline.steps.feedback.feedback import feedback
    from pipeline.steps.maintenance.gc import gc
    from pipeline.steps.nightly.nightly import nightly
    from pipeline.workspace.workspace import Workspace

    works: dict[str, Callable[..., Any]] = {"feedback": feedback, "nightly": nightly, "gc": gc}
    sys.stderr.write(f"{works[work](Workspace.open(home), at).text()}\n")


if __name__ == "__main__":
    _serve()
