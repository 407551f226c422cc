"""A night that is killed after each of its commits ends in the state of an undisturbed run.

Each process does one durable thing (a step's folder, a commit of the lake, a line of the ledger, a
call that changes MLflow) and is killed; the next one resumes the night. The last one has nothing
left to do. All are forked from one that has imported the libraries and done nothing, as
`fork_server` does.
"""

import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from pipeline import columns as c
from pipeline.steps.feedback.feedback import feedback
from pipeline.steps.lists import history, lists
from pipeline.steps.nightly.nightly import nightly
from pipeline.stores.registry.connection import registry_errors
from pipeline.testing.chaos.fork_server import _WARM
from pipeline.workspace.registry import registry
from pipeline.workspace.workspace import Workspace
from tests.worlds import CONFIG, NIGHTS, catalogue, copy_of, land, purchases

DIED = 9
PATIENCE = 45
"""More deaths than there are things to commit."""


def outcome(ws):
    """State that must be equal: decisions, ledger, lists, generations, versions, aliases."""
    publications = ws.lake.read("publications").sort(c.GENERATION)
    return {
        "publications": publications.rows(),
        "lists": lists(ws, None).rows(),
        "ledger": history(ws),
        "events": ws.lake.read("events").sort(c.EVENT_ID).rows(),
        "aliases": registry(ws).aliases(),
        "versions": _versions(ws),
    }


def _versions(ws):
    from mlflow import MlflowClient

    client = MlflowClient(ws.tracking_uri, ws.tracking_uri)
    experiment = client.get_experiment_by_name("nightjar")
    runs = client.search_runs([experiment.experiment_id])
    names = sorted((run.info.run_name, run.info.status) for run in runs)
    return len(client.search_model_versions("name = 'nightjar'")), names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_after_every_commit(tmp_path):
    undisturbed = Workspace.init(tmp_path / "calm", CONFIG)
    events = purchases(users=260, items=80, days=85)
    catalogue(undisturbed.home, items=80)
    land(undisturbed.home, events, NIGHTS[0])
    feedback(undisturbed, NIGHTS[0])
    nightly(undisturbed, NIGHTS[0])
    land(undisturbed.home, events, NIGHTS[1], NIGHTS[0])
    feedback(undisturbed, NIGHTS[1])
    copy_of(undisturbed.home, tmp_path / "killed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.crash.test_night_crash",
            undisturbed.home,
            tmp_path / "killed",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "OPENBLAS_NUM_THREADS": "1"},
    )
    passed = done.stdout.split()
    assert done.returncode == 0, (passed, done.stderr)
    assert {"draft", "commit", "append", "mirror_night", "move_aliases"} <= set(passed)
    assert len(passed) > 15
    expected, actual = outcome(undisturbed), outcome(Workspace.open(tmp_path / "killed"))
    for name, value in expected.items():
        assert actual[name] == value, name


def _die_after_one() -> None:
    """Let this process do one durable thing, and kill it directly afterwards."""
    from pipeline.stores.lake.commit_integrity import CommitIntegrity
    from pipeline.stores.ledger import Ledger
    from pipeline.stores.registry.client import Registry

    def dying(owner, method, name):
        original = getattr(owner, method)

        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            print(name, flush=True)
            os._exit(DIED)
            return result

        setattr(owner, method, call)

    rename = Path.rename

    def renamed(self, target):
        result = rename(self, target)
        if self.name.startswith(".draft-"):
            print("draft", flush=True)
            os._exit(DIED)
        return result

    Path.rename = renamed
    dying(CommitIntegrity, "acknowledge", "commit")
    dying(Ledger, "_write", "append")
    for method in ("mirror_night", "move_aliases"):
        original = getattr(Registry, method)
        setattr(Registry, method, _once(original, method))


def _once(original, name):
    """Kill after the first call only: these calls leave no record in the workspace."""

    def call(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        mark = Path(os.environ["NIGHTJAR_TEST_MARKS"]) / name
        if not mark.exists():
            mark.touch()
            print(name, flush=True)
            os._exit(DIED)
        return result

    return call


def _forked(home: str, prepare: Callable[[], None] = lambda: None) -> int:
    """Resume the night in its own process; return its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # see `fork_server`
        child = os.fork()
    if child == 0:
        try:
            prepare()
            nightly(Workspace.open(Path(home)), NIGHTS[1])
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(undisturbed: str, killed: str) -> int:
    with registry_errors("sqlite:///none"):
        for name in _WARM:
            import_module(name)
    os.environ["NIGHTJAR_TEST_MARKS"] = killed
    assert _forked(undisturbed) == 0
    for _ in range(PATIENCE):
        code = _forked(killed, _die_after_one)
        if code != DIED:
            return code
    return DIED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
