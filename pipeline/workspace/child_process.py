"""Bounded child processes: for input that may be hostile, and for a look with fresh eyes.

Promises: a child has no more memory and time than it was given, gets none of our secrets, and
dies with its caller's interest; whatever happens to it, the caller gets an answer or an error with
a sentence. What it prints besides stays out of the logs, since it may hold raw ids.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import json
import os
import resource
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from pipeline.errors import NightjarError, ResourceError

Answer: TypeAlias = dict[str, Any]
"""Plain JSON that a child answers."""

_KEPT: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "VIRTUAL_ENV")
_KEPT_PREFIXES: Final = ("POLARS_", "OMP_", "OPENBLAS_", "MKL_", "RAYON_")
_SMALL: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "2",
}
"""What keeps a reader small on a machine of many cores: stacks and pools count as allocated."""
_SIGNAL_AT_PARENTS_DEATH: Final = 1  # Linux's PR_SET_PDEATHSIG
_CHECK_BYTES: Final = 16 << 30
_CHECK_SECONDS: Final = 900


class ChildFailed(ResourceError):
    """A child died, ran out of time or memory, or met a bug."""


class Child:
    """A process that answers calls one by one; a call after its death starts another.

    Parameters
    ----------
    max_memory_bytes
        Data that it may allocate.
    max_seconds
        Time that one call may take.
    """

    def __init__(self, *, max_memory_bytes: int, max_seconds: int) -> None:
        self._memory = max_memory_bytes
        self._seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, function: str, **request: Any) -> Answer:
        """Call ``package.module:function`` with plain JSON and return its plain JSON.

        A `NightjarError` that it raises is raised here; `ChildFailed` says that there is no answer.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                _command(self._memory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment() | _SMALL,
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        line = json.dumps({"function": function, "request": request}).encode() + b"\n"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = json.loads(self._line(process.stdout))
        except (BrokenPipeError, ValueError):
            code = process.wait()
            self._end()
            raise ChildFailed("child.died", f"its process died ({_death(code)})") from None
        except BaseException:
            self._end()
            raise
        if "error" in answer:
            error = _error(answer["error"])
            if isinstance(error, ChildFailed):
                self._end()  # after a bug or a panic nobody knows what state it is in
            raise error
        result: Answer = answer["result"]
        return result

    def _line(self, stream: IO[bytes]) -> bytes:
        deadline = time.monotonic() + self._seconds
        read = b""
        while not read.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                raise ChildFailed("child.timeout", f"took longer than {self._seconds} seconds")
            some = os.read(stream.fileno(), 1 << 16)
            if not some:
                raise BrokenPipeError
            read += some
        return read

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(BrokenPipeError), process:
                process.kill()


def run_child(module: str, arguments: Sequence[str]) -> str:
    """Run a module in a fresh process and return what it printed; `ChildFailed` if it failed."""
    command = _command(_CHECK_BYTES, module, *arguments)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_CHECK_SECONDS,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ChildFailed(
            "child.timeout", f"{module} took longer than {_CHECK_SECONDS} seconds"
        ) from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise ChildFailed("child.failed", f"{module} failed ({_death(done.returncode)}): {last}")
    return done.stdout.decode()


def _command(memory: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.workspace.child_process", str(memory), *arguments]


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    # The child must find what this process imports, however it came to that.
    kept["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return kept


def _limit(memory: int) -> None:
    """Bound the data segment: it counts what is allocated, not what is merely mapped.

    And end when the caller ends, even if that was killed: raw ids must not be written any longer.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _death(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _error(described: Answer) -> NightjarError:
    """Rebuild what the child raised; an unknown class is a failure of the child."""
    kind = _kinds(NightjarError).get(described["kind"])
    if kind is None:
        return ChildFailed("child.failed", f"its process failed ({described['kind']})")
    return kind(**described["arguments"])


def _kinds(root: type[NightjarError]) -> dict[str, type[NightjarError]]:
    kinds = {root.__name__: root}
    for kind in root.__subclasses__():
        kinds |= _kinds(kind)
    return kinds


def _describe(error: BaseException) -> Answer:
    described: Answer = {"kind": type(error).__name__}
    if isinstance(error, NightjarError):
        names = inspect.signature(type(error)).parameters
        described["arguments"] = {name: getattr(error, name) for name in names}
    return described


def _serve() -> None:
    """Answer calls until the caller is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not talk into the answers
    for line in sys.stdin.buffer:
        call = json.loads(line)
        try:
            module, _, name = call["function"].partition(":")
            answer = {"result": getattr(importlib.import_module(module), name)(**call["request"])}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Panics of the libraries are no `Exception`.
            answer = {"error": _describe(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _main(memory: int, *arguments: str) -> None:
    _limit(memory)
    if not arguments:
        _serve()
    else:
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), *sys.argv[2:])
