"""Runs commands in this process, and returns exit code, id of the error and output."""

import io
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from pipeline.cli.app import app
from pipeline.stores.disk import expected_failure


class Outcome(NamedTuple):
    """Exit code, id of the error (empty without one), and stdout."""

    code: int
    id: str
    out: str


def outcome(home: Path, *arguments: str) -> Outcome:
    """Run a command on a workspace; any error without an id is raised."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTJAR")}
    with patch.dict(os.environ, clean, clear=True), redirect_stdout(io.StringIO()) as out:
        try:
            code = app([*arguments, "--home", str(home)], standalone_mode=False)
        except Exception as error:
            failure = expected_failure(error)
            if failure is None:
                raise
            return Outcome(failure.exit_code, failure.id, out.getvalue())
    return Outcome(code if isinstance(code, int) else 0, "", out.getvalue())
