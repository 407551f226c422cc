"""Functions that tests call in a child."""

import json
import os
import re
import resource
import signal
import sys
import time
from pathlib import Path

from pipeline.data.sources.config import MappingError
from pipeline.errors import ConfigError, DataError
from pipeline.steps.ingest.read_file import parse


def echo(text, number):
    return {"text": text, "number": number, "pid": os.getpid()}


def chatter():
    print("anna bought bread")
    os.write(1, b"anna\n")
    return {"said": True}


def count_into(path):
    for _ in range(1000):
        with Path(path).open("a") as stream:
            stream.write(".")
        time.sleep(0.01)


def environment():
    return dict(os.environ)


def place():
    core, _ = resource.getrlimit(resource.RLIMIT_CORE)
    arguments = Path("/proc/self/cmdline").read_text().split("\0")
    return {"cwd": str(Path.cwd()), "path": sys.path, "core": core, "arguments": arguments}


def fail(kind):
    if kind == "mapping":
        raise MappingError("mapping.odd", "is odd", where="a.csv", count=3, positions=(1, 2))
    if kind == "data":
        raise DataError("data.odd", "is odd", where="a.csv")
    if kind == "config":
        raise ConfigError("config.odd", "no good")
    raise ZeroDivisionError("anna")


def die(signal_number):
    # A child inherits signals that are ignored, as below nohup.
    if signal.getsignal(signal_number) == signal.SIG_IGN:
        signal.signal(signal_number, signal.SIG_DFL)
    os.kill(os.getpid(), signal_number)


def die_at_first(path, deaths, signal_number):
    """Die in the first calls; `path` has a byte for each call."""
    with Path(path).open("a") as calls:
        calls.write(".")
    if Path(path).stat().st_size <= deaths:
        die(signal_number)
    return {"pid": os.getpid()}


def crash():
    os.abort()


def parse_or_die(path, out, **request):
    """Read a file; one with a number of deaths in its name kills its first readers."""
    match = re.search(r"dies-(\d)", path)
    attempts = Path(path).parents[2] / f"attempts-{Path(path).name}"
    if match is not None:
        attempts.touch()
        with attempts.open("a") as stream:
            stream.write(".")
        if len(attempts.read_text()) <= int(match[1]):
            os.kill(os.getpid(), signal.SIGKILL)
    return parse(path=path, out=out, **request)


def leave():
    os._exit(3)


def hoard():
    return {"bytes": len(bytearray(8 << 30))}


def sleep(seconds, note):
    Path(note).write_text(str(os.getpid()))
    time.sleep(seconds)
    return {}


if __name__ == "__main__":
    if sys.argv[1] == "fail":
        raise ValueError("on purpose")
    if sys.argv[1] == "die":
        die_at_first(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    if sys.argv[1] == "place":
        sys.stdout.write(json.dumps(place() | {"environment": environment()}))
        sys.exit(0)
    sys.stdout.write(json.dumps(sys.argv[1:]))
