"""Lines about the activity in progress: when it begins, every ten seconds, and when it ends.

Guarantees:

* While an activity is in progress, the terminal is silent for `SILENCE` + 1 seconds at most.
* At a terminal the line of an activity replaces the one before it; elsewhere each is a line of its
  own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Final, TextIO

SILENCE: Final = 10.0
"""Seconds without a line after which the activity is shown again."""
_CLEAR: Final = "\r\x1b[K"
_WIDTH: Final = 28


class ActivityDisplay:
    """Writes about one activity after the other.

    Attributes
    ----------
    usual
        Seconds that an activity usually takes, by name; of others nothing is written.
    """

    def __init__(self, stream: TextIO, silence: float = SILENCE) -> None:
        self.usual: Mapping[str, float] = {}
        self._stream, self._silence = stream, silence
        self._in_place = stream.isatty()
        self._lock = threading.RLock()
        self._name, self._start, self._text = "", 0.0, ""
        self._last = time.monotonic()
        threading.Thread(target=self._repeat, daemon=True).start()

    def begin(self, name: str) -> None:
        """Begin an activity; one that has not ended ends without a line."""
        with self._lock:
            self._name, self._start, self._text = name, time.monotonic(), ""
            self._show("begins")

    def note(self, text: str) -> None:
        """Keep the newest text of the activity's progress for its next line."""
        self._text = text

    def end(self, outcome: str, name: str = "") -> None:
        """End the activity.

        Parameters
        ----------
        outcome
            Word for its last line.
        name
            Name of an activity that had no beginning.
        """
        with self._lock:
            seconds = time.monotonic() - self._start if self._name else 0.0
            self.write(f"  {self._name or name:<{_WIDTH}} {outcome:<8} {seconds:5.1f} s")
            self._name = ""

    def write(self, line: str) -> None:
        """Write a line of its own."""
        with self._lock:
            self._put(f"{_CLEAR if self._in_place else ''}{line}\n")

    def write_at_signal(self, line: str) -> None:
        """Write a line in a signal handler: past the lock and buffer that the process may hold."""
        os.write(self._stream.fileno(), f"{_CLEAR if self._in_place else ''}{line}\n".encode())

    def _repeat(self) -> None:
        while True:
            time.sleep(min(1.0, self._silence / 2))
            with self._lock:
                now = time.monotonic()
                if self._name and now - self._last >= self._silence:
                    self._show(f"{now - self._start:6.0f} s")

    def _show(self, state: str) -> None:
        """Show the activity: its state, the usual time, and the newest text of its progress."""
        usual = self.usual.get(self._name)
        parts = [state] if usual is None else [f"{state}, usually {usual:.0f} s"]
        # Texts of a task often begin with its name.
        text = self._text.removeprefix(self._name).removeprefix(": ")
        parts += [text] if text else []
        line = f"  {self._name:<{_WIDTH}} {'  '.join(parts)}"
        if self._in_place:
            # A wrapped line could not be replaced. A terminal without a size has 0 columns.
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._put(_CLEAR + line[: columns - 1])
        else:
            self._put(f"{line}\n")

    def _put(self, text: str) -> None:
        self._last = time.monotonic()
        self._stream.write(text)
        self._stream.flush()
