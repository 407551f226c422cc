from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from dags.local import ui
from tests.dags.conftest import ROOT
from tests.dags.served import free_port


def test_a_folder_that_is_no_workspace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options()
    assert ui.main([*options, "--home", str(tmp_path)]) == 2
    assert "is not a workspace" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("server", ["Airflow", "MLflow"])
def test_a_port_that_is_taken_is_named_with_a_way_out(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nightjar.toml").touch()
    option = {"Airflow": "--port", "MLflow": "--mlflow-port"}[server]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = {**dict(zip(*[iter(_options())] * 2, strict=True)), option: str(port)}

        code = ui.main([*(x for pair in options.items() for x in pair), "--home", str(tmp_path)])

    assert code == 2
    output = capsys.readouterr().err
    assert f"port {port}, meant for {server}, is in use" in output
    assert f'make ui ARGS="{option} {port + 1}"' in output


def _options() -> list[str]:
    return ["--port", str(free_port()), "--mlflow-port", str(free_port())]


CLOSED = """
import os, sys
from pathlib import Path
from dags.local import ui

with ui._running([ui.Server("one", ("sleep", "600"), os.environ)], Path(sys.argv[1])) as started:
    print(*(process.pid for process in started.values()), flush=True)
    sys.stdin.read()
"""


def test_a_terminal_that_is_gone_keeps_nothing_alive(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLOSED, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Set, it would hide that Python flushes stderr again when it exits.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        server = psutil.Process(int(process.stdout.readline()))
        process.stderr.close()
        process.stdin.close()
        process.wait(30)
    try:
        assert process.returncode == 0
        assert not server.is_running()
    finally:
        with suppress(psutil.NoSuchProcess):
            server.kill()
