import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.data.sources.config import MappingError
from pipeline.workspace.child_process import Child, ChildFailed, run_child
from tests.raising import raises

ME = "tests.unit.workspace.child_cases"
GIB = 1 << 30


@pytest.fixture(scope="module")
def child():
    with Child(max_memory_bytes=GIB, max_seconds=20) as running:
        yield running


def test_a_child_answers_and_stays(child):
    first = child.call(f"{ME}:echo", text="é", number=1)
    second = child.call(f"{ME}:echo", text="again", number=2)
    assert (first["text"], second["number"]) == ("é", 2)
    assert first["pid"] == second["pid"] != os.getpid()


def test_printed_text_is_not_a_result(child, capfd):
    assert child.call(f"{ME}:chatter") == {"said": True}
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_it_ends_when_its_caller_is_killed(tmp_path):
    code = f"""
from pipeline.workspace.child_process import Child
with Child(max_memory_bytes={GIB}, max_seconds=20) as child:
    child.call("{ME}:count_into", path={str(tmp_path / "count")!r})
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    count = tmp_path / "count"
    while not count.exists():
        assert caller.poll() is None
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    time.sleep(0.2)
    size = count.stat().st_size
    time.sleep(0.3)
    assert count.stat().st_size == size


SECRETS = ("NIGHTJAR_VAULT_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY")


def test_it_gets_no_secrets(child, monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, "s3cret")
    with Child(max_memory_bytes=GIB, max_seconds=20) as fresh:
        assert "s3cret" not in json.dumps(fresh.call(f"{ME}:environment"))
        assert "s3cret" not in json.dumps(fresh.call(f"{ME}:place"))
    place = run_child(ME, ["place"])
    assert "s3cret" not in place and json.loads(place)["arguments"][-2:] == ["place", ""]


def test_it_leaves_no_core_dump(child):
    assert child.call(f"{ME}:place")["core"] == 0
    assert json.loads(run_child(ME, ["place"]))["core"] == 0


@pytest.mark.parametrize("name", ["ctypes", "json", "polars"])
def test_it_imports_nothing_from_the_current_folder(tmp_path, monkeypatch, name):
    ran = tmp_path / "ran"
    (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('x')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as for `python -c`
    monkeypatch.syspath_prepend("relative")
    for entry in (tmp_path, tmp_path / "relative"):  # as for the PYTHONPATH below
        monkeypatch.syspath_prepend(str(entry))
    monkeypatch.setenv("PYTHONPATH", ":relative")
    monkeypatch.setenv("PATH", f":relative:{os.environ['PATH']}:")

    with Child(max_memory_bytes=GIB, max_seconds=20) as fresh:
        places = [fresh.call(f"{ME}:place"), json.loads(run_child(ME, ["place"]))]
        environments = [fresh.call(f"{ME}:environment"), places[1]["environment"]]

    assert not ran.exists()
    for place, environment in zip(places, environments, strict=True):
        assert place["cwd"] == "/"
        assert not any(entry.startswith(str(tmp_path)) for entry in place["path"])
        for variable in ("PATH", "PYTHONPATH"):
            assert all(map(os.path.isabs, environment[variable].split(os.pathsep)))


def test_its_errors_arrive_as_they_were(child):
    with pytest.raises(MappingError) as caught:
        child.call(f"{ME}:fail", kind="mapping")
    assert str(caught.value) == "a.csv: is odd (3 rows, first at line 1, 2)"
    assert caught.value.positions == (1, 2)
    with raises("config.odd"):
        child.call(f"{ME}:fail", kind="config")
    with raises("data.odd"):
        child.call(f"{ME}:fail", kind="data")


def test_a_bug_is_logged_by_its_name_and_not_its_words(child):
    with pytest.raises(ChildFailed) as caught:
        child.call(f"{ME}:fail", kind="bug")
    assert "ZeroDivisionError" in str(caught.value)
    assert "anna" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "sentence"),
    [("crash", "ended .signal 6"), ("leave", "ended .exit code 3"), ("hoard", "MemoryError|ended")],
)
def test_its_death_is_an_error_and_the_next_call_starts_another(child, function, sentence):
    before = child.call(f"{ME}:echo", text="", number=0)["pid"]
    with pytest.raises(ChildFailed, match=sentence):
        child.call(f"{ME}:{function}")
    assert child.call(f"{ME}:echo", text="", number=0)["pid"] != before


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_that_was_killed_from_outside_is_named_as_that(child, signal_number):
    before = child.call(f"{ME}:echo", text="", number=0)["pid"]
    with raises("resource.child_killed"):
        child.call(f"{ME}:die", signal_number=signal_number)
    assert child.call(f"{ME}:echo", text="", number=0)["pid"] != before


KILLED = "resource.child_killed"


@pytest.mark.parametrize(
    ("signal_number", "deaths", "calls", "error"),
    [
        (signal.SIGKILL, 1, 2, None),
        (signal.SIGTERM, 2, 2, KILLED),
        (signal.SIGHUP, 1, 2, None),
        (signal.SIGINT, 1, 2, None),
        (signal.SIGQUIT, 1, 2, None),
        (signal.SIGUSR1, 2, 2, KILLED),
        (signal.SIGSEGV, 1, 1, "child.failed child.died"),
        (signal.SIGXCPU, 1, 1, "child.failed child.died"),
    ],
)
@pytest.mark.parametrize("kind", ["call", "run"])
def test_a_child_that_was_killed_from_outside_is_started_once_more(
    child, tmp_path, signal_number, deaths, calls, error, kind
):
    path = tmp_path / "calls"

    def start():
        if kind == "call":
            return child.call(
                f"{ME}:die_at_first", path=str(path), deaths=deaths, signal_number=signal_number
            )
        return run_child(ME, ["die", str(path), str(deaths), str(int(signal_number))])

    if error is None:
        assert start()
    else:
        with raises(*error.split()):
            start()
    assert path.stat().st_size == calls


@pytest.mark.parametrize("kind", ["call", "run"])
def test_a_child_that_cannot_be_started_is_one_sentence(monkeypatch, kind):
    def refuse(*_, **__):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with (
        raises("resource.child_not_started"),
        Child(max_memory_bytes=GIB, max_seconds=20) as child,
    ):
        child.call(f"{ME}:echo", text="", number=0) if kind == "call" else run_child(ME, [])


def test_it_may_not_take_longer_than_it_was_given(tmp_path):
    with Child(max_memory_bytes=GIB, max_seconds=20) as slow:
        slow.call(f"{ME}:echo", text="", number=0)  # its start may take longer on a busy machine
        slow._seconds = 3
        start = time.monotonic()
        with raises("child.timeout"):
            slow.call(f"{ME}:sleep", seconds=30, note=str(tmp_path / "pid"))
        assert time.monotonic() - start < 20
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_module_runs_in_a_fresh_process():
    assert run_child(ME, ["a", "b c"]) == '["a", "b c"]'
    with raises("child.failed"):
        run_child(ME, ["fail"])
    assert Path(__file__).exists()
