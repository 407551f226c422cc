"""Ends an ingest at the n-th step of its protocol, by an exception or by the process's death."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline.steps.feedback import feedback as step
from pipeline.steps.ingest import landing
from pipeline.steps.ingest.read_file import parse
from pipeline.stores.batches import Batches
from pipeline.stores.lake.commit_integrity import CommitIntegrity
from pipeline.stores.vault import Vault
from pipeline.workspace.child_process import Child
from pipeline.workspace.workspace import Workspace
from tests.ingesting import AT

STEPS = (
    (Vault, "pseudonyms"),
    (Batches, "_spool_frames"),
    (CommitIntegrity, "acknowledge"),  # between a commit and its acknowledgement, and after it
    (Batches, "_remove_orphans"),
    (landing, "_move"),
)


class Died(BaseException):
    pass


def by_exception() -> None:
    raise Died


@contextmanager
def dying_at(point: int, die: Callable[[], None]) -> Iterator[list[str]]:
    """Kill before or after the `point`-th half step; yield those passed, in order."""
    passed: list[str] = []

    def pass_(name: str) -> None:
        if len(passed) == point:
            die()
        passed.append(name)

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            pass_(f"before {name}")
            result = function(*args, **kwargs)
            pass_(f"after {name}")
            return result

        return call

    patches = [
        mock.patch.object(owner, name, wrapped(name, getattr(owner, name))) for owner, name in STEPS
    ]
    for patch in patches:
        patch.start()
    try:
        yield passed
    finally:
        for patch in patches:
            patch.stop()


def parsed_here(self: Child, function: str, **request: Any) -> dict[str, Any]:
    """Replace `Child.call` in tests that do not test its process."""
    return parse(**request)


def main(home: str, point: str) -> None:
    with dying_at(int(point), lambda: os._exit(9)):
        step.feedback(Workspace.open(Path(home)), AT)


if __name__ == "__main__":
    main(*sys.argv[1:])
