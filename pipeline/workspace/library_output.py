"""Output that libraries write to file descriptor 2, past Python: kept back, shown only for a bug.

A thread of a Rust library that panics, such as on a full disk, prints its position and a hint on
backtraces, before or after the error reaches Python. No setting of the libraries prevents it.

Guarantees:

* While the output is hidden, `sys.stderr` writes where file descriptor 2 wrote before.
* A message that cannot be written there (a full disk, a reader that has ended) is dropped: it must
  not stop the work that it reports.
* No file of a store gets a descriptor on which libraries print.
"""

from __future__ import annotations

import faulthandler
import io
import os
import sys
from contextlib import suppress
from typing import Any


class _Lenient(io.FileIO):
    """A file that drops what it cannot write."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return len(data) if written is None else written


def open_closed_descriptors() -> None:
    """Open descriptors 0 to 2 on `/dev/null` if the caller has closed them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


class HiddenOutput:
    """Redirection of file descriptor 2, from its creation until `restore`.

    Nothing is redirected if `sys.stderr` does not write to it, as under a test runner.
    """

    def __init__(self) -> None:
        self._python = sys.stderr
        self._active = _writes_to_2(self._python)
        if not self._active:
            return
        self._python.flush()
        self._shown = os.dup(2)
        # In memory on Linux: a full disk must not prevent it.
        self._hidden = os.memfd_create("stderr") if sys.platform == "linux" else _temporary()
        os.dup2(self._hidden, 2)
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Lenient(os.dup(self._shown), "w")),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        # A library that aborts the process prints its reason into the hidden output.
        faulthandler.enable(file=self._shown)

    def show(self) -> None:
        """Write the hidden output where it would have been written."""
        if self._active:
            os.lseek(self._hidden, 0, os.SEEK_SET)
            with suppress(OSError):
                while data := os.read(self._hidden, 1 << 16):
                    os.write(self._shown, data)

    def restore(self) -> None:
        """End the redirection."""
        if self._active:
            faulthandler.disable()
            os.dup2(self._shown, 2)
            sys.stderr.close()
            sys.stderr = self._python
            os.close(self._shown)
            os.close(self._hidden)


def _writes_to_2(stream: object) -> bool:
    try:
        return isinstance(stream, io.TextIOBase) and stream.fileno() == 2
    except (OSError, ValueError):  # a stream of a test runner has no descriptor
        return False


def _temporary() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
