"""Processes that failpoints kill: a parent that has imported everything forks one for each work.

Guarantees: a child does what the command of its name does, with a failpoint armed or none; whatever
kills it, the parent reports it and forks the next. Forking is sound because the parent has imported
and done nothing else: no library has started its pool of threads yet.
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

_SECONDS: Final = 300
"""A child that takes longer is ended."""
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
"""Modules that a run imports on its way, by name: each library still has one user."""


@dataclass(frozen=True)
class ExitStatus:
    """How a child ended.

    Attributes
    ----------
    code
        Its exit code, or minus the signal that killed it.
    words
        End of its output.
    """

    code: int
    words: str

    @property
    def killed(self) -> bool:
        """Whether a failpoint killed it."""
        return self.code == -signal.SIGKILL


class ForkServer:
    """The parent; it forks when asked. Imports take it some seconds, which `run` waits for."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.testing.chaos.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Threads of linear algebra are the ones that an import alone would start.
            env=_environment(),
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            process.kill()

    def run(self, work: str, home: Path, at: datetime, failpoint: str = "") -> ExitStatus:
        """Do ``feedback``, ``nightly`` or ``gc`` at an instant; returns when it has ended, or died.

        Raises `ResourceError` if the parent itself is gone.
        """
        self._log.unlink(missing_ok=True)
        request = {"work": work, "home": str(home), "at": format_instant(at)}
        request |= {"failpoint": failpoint, "log": str(self._log)}
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
        except (BrokenPipeError, ValueError):  # the end of the stream is no number
            raise ResourceError(
                "chaos.fork_server_died", "the process that forks the others is gone"
            ) from None
        output = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
        return ExitStatus(code, output[-2000:])


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": path}


def _serve() -> None:
    """Fork a child for each request, and answer with its exit code."""
    from pipeline.stores.registry.connection import registry_errors

    answers = os.fdopen(os.dup(1), "wb")
    with registry_errors("sqlite:///none"):  # its settings come before MLflow's first import
        for name in _WARM:
            import_module(name)
    for line in sys.stdin.buffer:
        with warnings.catch_warnings():
            # Python counts threads; those there are belong to allocators that know of forks.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _run_child(json.loads(line))
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        answers.flush()


def _run_child(request: dict[str, str]) -> None:
    """Do the work in the child, write what went wrong, end without the parent's exit handlers."""
    signal.alarm(_SECONDS)
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
        os._exit(code)


def _work(work: str, home: Path, at: AsOf) -> None:
    from pipeline.steps.feedback.feedback import feedback
    from pipeline.steps.maintenance.gc import gc
    from pipeline.steps.nightly.nightly import nightly
    from pipeline.workspace.workspace import Workspace

    works: dict[str, Callable[..., Any]] = {"feedback": feedback, "nightly": nightly, "gc": gc}
    sys.stderr.write(f"{works[work](Workspace.open(home), at).text()}\n")


if __name__ == "__main__":
    _serve()
