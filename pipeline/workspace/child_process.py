"""Bounded child processes, for hostile input and for checks in a fresh process.

Guarantees:

* A child has no more memory and time than it was given, gets only the environment variables of a
  list, which names no secret, and ends when its parent ends.
* A child imports nothing from the folder in which the user called the command: it may hold files
  of strangers. Its own current folder is the root, so relative paths must be made absolute before.
* Every call returns a response or raises an error with a sentence.
* A child that a signal from outside killed is started once more; limits and crashes are final.
* A child's other output is not logged, since it may contain raw ids.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, TypeVar

from pipeline.errors import NightjarError, ResourceError
from pipeline.workspace.permissions import set_umask

T = TypeVar("T")
Response: TypeAlias = dict[str, Any]
"""Plain JSON that a child returns."""

_KEPT: Final = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "VIRTUAL_ENV")
_KEPT_PREFIXES: Final = ("POLARS_", "OMP_", "OPENBLAS_", "MKL_", "RAYON_")
_PATHS: Final = ("LD_LIBRARY_PATH", "PATH", "PYTHONPATH")
CHILD_FOLDER: Final = "/"
"""Current folder of every child, and of imports that read it: only root can write there."""
# Stacks of threads and memory pools count as allocated: on many cores they would fill the limit.
_SMALL: Final = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "2",
}
_SIGNAL_AT_PARENTS_DEATH: Final = 1  # Linux's PR_SET_PDEATHSIG
_OWN: Final = (
    *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
    *(signal.SIGSYS, signal.SIGTRAP, signal.SIGXCPU, signal.SIGXFSZ),
)
"""Signals of a crash or a limit (a child that exceeds its memory aborts), not from outside."""
_CHECK_BYTES: Final = 16 << 30
_CHECK_SECONDS: Final = 900


class ChildFailed(ResourceError):
    """A child ended early, exceeded its time or memory, or has a bug."""


class ChildKilled(ChildFailed):
    """A child was killed from outside, as the kernel does, or could not be started."""


class Child:
    """A process that serves calls one by one; a call after its end starts another process.

    Parameters
    ----------
    max_memory_bytes
        Limit of its data segment.
    max_seconds
        Limit of one call.
    """

    def __init__(self, *, max_memory_bytes: int, max_seconds: int) -> None:
        self._memory = max_memory_bytes
        self._seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, function: str, **request: Any) -> Response:
        """Call a function in the child; a `NightjarError` of the child is raised here, too.

        A child that is killed from outside is called once more, in a new process.

        Parameters
        ----------
        function
            ``package.module:function``.
        **request
            Arguments as plain JSON.

        Raises
        ------
        ChildFailed
            `child.died`, `child.timeout`, or `child.failed` for any other exception.
        ChildKilled
            `resource.child_killed`: twice, by a signal that is neither a limit nor a crash;
            `resource.child_not_started`
        """
        return _repeated_if_killed(lambda: self._call(function, request))

    def _call(self, function: str, request: Response) -> Response:
        if self._process is None:
            with _refused_start():
                self._process = subprocess.Popen(
                    _command(self._memory),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=CHILD_FOLDER,
                    env=child_environment() | _SMALL,
                )
        process = self._process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101
        line = json.dumps({"function": function, "request": request}).encode() + b"\n"
        try:
            process.stdin.write(line)
            process.stdin.flush()
            response = json.loads(self._line(process.stdout))
        except (BrokenPipeError, ValueError):
            code = process.wait()
            self._end()
            _refuse_killed("its process", code)
            raise ChildFailed("child.died", f"its process ended ({_death(code)})") from None
        except BaseException:
            self._end()
            raise
        if "error" in response:
            error = _error(response["error"])
            if isinstance(error, ChildFailed):
                self._end()  # its state is undefined after a bug or a panic
            raise error
        result: Response = response["result"]
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


def run_child(
    module: str, arguments: Sequence[str], *, also: Mapping[str, str] | None = None
) -> str:
    """Run a module in a fresh process, and once more if that is killed from outside.

    Parameters
    ----------
    module
        Dotted name; it runs as ``__main__``.
    arguments
        Its command line.
    also
        Environment variables besides those of `child_environment`.

    Returns
    -------
    Its standard output.

    Raises
    ------
    ChildFailed
        `child.timeout`, or `child.failed`.
    ChildKilled
        `resource.child_killed`: twice; `resource.child_not_started`
    """
    return _repeated_if_killed(lambda: _run(module, arguments, also or {}))


def _repeated_if_killed(call: Callable[[], T]) -> T:
    """Call, and once more if the child was killed from outside: no request causes that."""
    try:
        return call()
    except ChildKilled:
        return call()


def _refuse_killed(name: str, code: int) -> None:
    """Raise if an exit code is that of a process that was killed from outside."""
    if code < 0 and -code not in _OWN:
        raise ChildKilled(
            "resource.child_killed",
            f"{name} was killed ({_death(code)}), as the kernel does when memory is short; free "
            "memory, then start again",
        ) from None


@contextmanager
def _refused_start() -> Iterator[None]:
    """Raise `ChildKilled` if the system refuses to start a process."""
    try:
        yield
    except OSError as error:
        raise ChildKilled(
            "resource.child_not_started",
            f"cannot start a process: {error.strerror}; end other programs or raise the limits "
            "of this user (`ulimit -u`, `ulimit -n`), then start again",
        ) from error


def _run(module: str, arguments: Sequence[str], also: Mapping[str, str]) -> str:
    command = _command(_CHECK_BYTES, module, *arguments)
    try:
        with _refused_start():
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_CHECK_SECONDS,
                cwd=CHILD_FOLDER,
                env={**child_environment(), **also},
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ChildFailed(
            "child.timeout",
            f"{module} took longer than {_CHECK_SECONDS} seconds; stop other programs, then start "
            "the same command again",
        ) from None
    _refuse_killed(module, done.returncode)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise ChildFailed(
            "child.failed",
            f"{module} failed ({_death(done.returncode)}): {last}; correct the cause, then start "
            "the same command again",
        )
    return done.stdout.decode()


def python_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module without the current folder on its import path.

    Parameters
    ----------
    module
        Dotted name.
    arguments
        Its command line.

    Returns
    -------
    Program and arguments.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment of a child: the variables of a list, without relative search paths."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    # The child must import the same modules, whatever changed this process's path. The first entry
    # replaces an empty one, through which `python -c` may have found this package.
    given = map(Path, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # Python has made absolute paths of these.
    relative = {os.path.normpath(entry.absolute()) for entry in given if not entry.is_absolute()}
    places = (place for place in sys.path if place not in relative)
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *places])
    for name in _PATHS:
        if name in environment:
            # An empty or relative entry means the current folder.
            entries = filter(os.path.isabs, environment[name].split(os.pathsep))
            environment[name] = os.pathsep.join(entries)
    return environment


def keep_private() -> None:
    """Keep the data of this process and its children from other users of the machine.

    Changes the whole process: it writes no core dumps, which may contain raw ids and keys, and
    files that it creates are accessible to their owner only. Call it first: opening a workspace of
    a group then changes the mode of new files to that of this workspace.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    set_umask()


def _command(memory: int, *arguments: str) -> list[str]:
    return python_command("pipeline.workspace.child_process", str(memory), *arguments)


def _limit(memory: int) -> None:
    """Limit the memory of this process and bind its life to that of its parent."""
    if sys.platform == "linux":
        import ctypes

        # It ends even if the parent is killed, so that it writes no raw ids afterwards.
        ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL)
    # The data segment counts allocated memory; the address space would count mapped memory, too.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    keep_private()


def _death(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _error(described: Response) -> NightjarError:
    """Rebuild the child's exception; an unknown class becomes a `ChildFailed`."""
    kind = _kinds(NightjarError).get(described["kind"])
    if kind is None:
        return ChildFailed("child.failed", f"its process failed ({described['kind']})")
    return kind(**described["arguments"])


def _kinds(root: type[NightjarError]) -> dict[str, type[NightjarError]]:
    kinds = {root.__name__: root}
    for kind in root.__subclasses__():
        kinds |= _kinds(kind)
    return kinds


def _describe(error: BaseException) -> Response:
    """Return class and arguments; the text of other exceptions is left out: it may hold raw ids."""
    described: Response = {"kind": type(error).__name__}
    if isinstance(error, NightjarError):
        names = inspect.signature(type(error)).parameters
        described["arguments"] = {name: getattr(error, name) for name in names}
    return described


def _serve() -> None:
    """Serve calls until the parent closes the pipe."""
    responses = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of a library must not mix with the responses
    for line in sys.stdin.buffer:
        call = json.loads(line)
        try:
            module, _, name = call["function"].partition(":")
            response = {"result": getattr(importlib.import_module(module), name)(**call["request"])}
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of a Rust library is not an `Exception`
            response = {"error": _describe(error)}
        responses.write(json.dumps(response).encode() + b"\n")
        responses.flush()


def _main(memory: int, *arguments: str) -> None:
    _limit(memory)
    if not arguments:
        _serve()
    else:
        import runpy

        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), *sys.argv[2:])
