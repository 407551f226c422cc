from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from dags import ui
from tests.dags.conftest import ROOT


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_folder_that_is_no_workspace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = _options()
    assert ui.main([*options, "--home", str(tmp_path)]) == 2
    assert "is no workspace" in capsys.readouterr().err
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
    said = capsys.readouterr().err
    assert f"port {port}, meant for {server}, is taken" in said
    assert f'make ui ARGS="{option} {port + 1}"' in said


def _options() -> list[str]:
    return ["--port", str(_free_port()), "--mlflow-port", str(_free_port())]


@pytest.mark.slow
def test_both_pages_open_on_loopback_alone_and_an_interrupt_stops_everything(
    tmp_path: Path,
) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    (home / "nightjar.toml").touch()
    options = _options()
    with subprocess.Popen(
        [sys.executable, "dags/ui.py", *options, "--home", str(home)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "Ctrl-C" in line:
                break
        family = psutil.Process(process.pid).children(recursive=True)
        try:
            assert process.poll() is None, said
            for port in (options[1], options[3]):
                assert f"http://127.0.0.1:{port}" in said
                with urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                    assert page.status == 200
            listening = {
                (c.laddr.ip, str(c.laddr.port))
                for child in family
                for c in child.net_connections("tcp")
                if c.status == psutil.CONN_LISTEN
            }
            assert listening == {("127.0.0.1", options[1]), ("127.0.0.1", options[3])}
        finally:
            process.send_signal(signal.SIGINT)
            said += process.stderr.read()
    assert process.returncode == 0, said
    time.sleep(1)
    assert [child for child in family if child.is_running()] == []
