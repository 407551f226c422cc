"""Folders that can be a workspace, and processes that can open its lake."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.workspace.memory import free_memory
from pipeline.workspace.workspace import Workspace
from tests.raising import raises

ROOT = Path(__file__).resolve().parents[3]
MISREAD = ["a%20b", "a%c3b", "a\nb", "a\tb", "a\x7fb", os.fsdecode(b"a\xffb")]
MISREAD += [f"a{char}b" for char in "\\[]^|="]
FINE = ["a b", "100%", "a%zzb", "ü", "a#b", "a?b", "a*b", "a{b}", "a&b"]


@pytest.mark.parametrize("name", MISREAD)
def test_a_path_that_the_lake_would_misread_is_refused(tmp_path, name):
    with raises("workspace.path_unusable"):
        Workspace.init(tmp_path / name)
    assert not (tmp_path / name).exists()
    Workspace.init(tmp_path / "ws").home.rename(tmp_path / name)
    with raises("workspace.path_unusable"):
        Workspace.open(tmp_path / name)


@pytest.mark.parametrize("name", FINE)
def test_any_other_path_is_fine(tmp_path, name):
    assert Workspace.open(Workspace.init(tmp_path / name).home).lake.version("events") is None


def test_a_small_address_space_is_refused_before_the_lake_is_opened(tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "ws")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2_600_000 << 10, resource.RLIM_INFINITY))
    with raises("memory.address_space") as caught:
        _ = ws.lake
    assert caught.value.exit_code == 2


def test_the_rest_of_the_address_space_bounds_a_training(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 62, resource.RLIM_INFINITY))
    unbounded = free_memory()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, resource.RLIM_INFINITY))
    assert (unbounded > 0, free_memory()) == (True, 0)


@pytest.mark.parametrize("kilobytes", [1_200_000, 2_600_000])
def test_a_command_with_little_address_space_ends_with_one_sentence(tmp_path, kilobytes):
    ws = Workspace.init(tmp_path / "ws")
    command = ["pipeline.cli", "nightly", "--as-of", "2024-01-01T00:00:00Z", "--home", str(ws.home)]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (kilobytes << 10,) * 2),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert [line[:10] for line in done.stderr.splitlines()] == ["nightjar: "]
