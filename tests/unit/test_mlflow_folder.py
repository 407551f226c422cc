from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "mlflow"
SETTINGS = {
    name: value
    for name, _, value in (
        line.partition("=")
        for line in (FOLDER / "server.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


def serve(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run mlflow/serve with a Python that only prints its environment and arguments."""
    spy = cwd / "python spy"
    spy.write_text('#!/bin/sh\nenv | grep ^MLFLOW_ | sort\necho "ARGUMENTS $*"\n')
    spy.chmod(0o755)
    clean = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    clean.pop("NIGHTJAR_HOME", None)
    return subprocess.run(
        [FOLDER / "serve", *arguments],
        env={**clean, "NIGHTJAR_PYTHON": str(spy), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def settings_of(process: subprocess.CompletedProcess[str], *arguments: str) -> dict[str, str]:
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[-1].split() == ["ARGUMENTS", "-m", "mlflow", "server", *arguments]
    return dict(line.split("=", 1) for line in lines[:-1])


def library() -> Path:
    """Return the file that `import mlflow` loads in a fresh process at the repository's root."""
    asked = "import importlib.util as u; print(u.find_spec('mlflow').origin)"
    process = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return Path(process.stdout.strip())


def test_the_folder_does_not_shadow_the_library() -> None:
    assert not list(FOLDER.rglob("__init__.py"))
    assert library().name == "__init__.py"
    assert library().parent.parent.name == "site-packages"


def test_the_settings_keep_the_server_to_itself() -> None:
    assert SETTINGS["MLFLOW_HOST"] == "127.0.0.1"
    assert SETTINGS["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert SETTINGS["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert SETTINGS["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_every_setting_is_one_that_mlflow_reads() -> None:
    where = ("environment_variables.py", "utils/cli_args.py", "cli/__init__.py")
    known = "".join((library().parent / file).read_text() for file in where)
    assert SETTINGS
    assert [name for name in SETTINGS if f'"{name}"' not in known] == []


def test_over_a_workspace(tmp_path: Path) -> None:
    home = tmp_path / "work space"
    home.mkdir()
    (home / "nightjar.toml").write_text("")
    for environment in (
        settings_of(serve("work space", cwd=tmp_path)),
        settings_of(serve(cwd=tmp_path, NIGHTJAR_HOME="work space")),
    ):
        assert environment == {
            **SETTINGS,
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{home}/mlflow/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": f"{home}/mlflow/artifacts",
        }
    assert (home / "mlflow" / "artifacts").is_dir()


def test_over_postgresql(tmp_path: Path) -> None:
    given = {
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg2://mlflow:secret@postgres/mlflow",
        "MLFLOW_ARTIFACTS_DESTINATION": "/artifacts",
        "MLFLOW_HOST": "0.0.0.0",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow:5000",
    }
    assert settings_of(serve(cwd=tmp_path, **given)) == {**SETTINGS, **given}
    del given["MLFLOW_ARTIFACTS_DESTINATION"]
    refused = serve(cwd=tmp_path, **given)
    assert refused.returncode != 0
    assert "names the folder or bucket of artifacts" in refused.stderr


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_is_not_a_workspace_is_an_error(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "var").mkdir()
    refused = serve(cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr == ("mlflow/serve: var is no workspace; `nightjar init` makes one\n")
    assert not (tmp_path / "var" / "mlflow").exists()


LOGIN = {
    "MLFLOW_AUTH_ADMIN_USERNAME": "nightjar",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "a password of a test",
}


def test_a_login_is_asked_for_where_one_is_set(tmp_path: Path) -> None:
    given = {
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///m.db",
        "MLFLOW_ARTIFACTS_DESTINATION": "/artifacts",
        "MLFLOW_AUTH_CONFIG_PATH": str(FOLDER / "login.ini"),
        **LOGIN,
    }
    keys = set()
    for _ in range(2):
        environment = settings_of(serve(cwd=tmp_path, **given), "--app-name", "basic-auth")
        keys.add(environment.pop("MLFLOW_FLASK_SERVER_SECRET_KEY"))
        assert environment == {**SETTINGS, **given}
    assert len(keys) == 2 and all(len(base64.b64decode(key)) == 32 for key in keys)


def status(url: str, login: str = "", data: bytes | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as got:
            return int(got.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except OSError:
        return 0


@pytest.mark.servers
def test_without_the_login_the_server_answers_nothing(tmp_path: Path) -> None:
    ini = (FOLDER / "login.ini").read_text()
    assert "sqlite:////tmp/mlflow-login.db" in ini
    (tmp_path / "login.ini").write_text(ini.replace("/tmp/mlflow-login.db", f"{tmp_path}/login.db"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")},
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(tmp_path / "artifacts"),
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "login.ini"),
        "MLFLOW_PORT": str(port),
        "NIGHTJAR_PYTHON": sys.executable,
        **LOGIN,
    }
    server = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [FOLDER / "serve"], env=environment, cwd=tmp_path, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "log").read_text()
            if status(f"{server}/health") == 200:  # the health check of the image has no login
                break
            time.sleep(0.5)
        search = f"{server}/api/2.0/mlflow/experiments/search"
        body = b'{"max_results": 1}'
        good = ":".join(LOGIN.values())
        assert status(search, good, body) == 200
        assert status(f"{server}/", good) == 200
        for login in ("", "nightjar:wrong", "admin:password"):
            assert status(search, login, body) == 401
            assert status(f"{server}/", login) == 401
        for path in (
            "api/2.0/mlflow/experiments/create",
            "ajax-api/2.0/mlflow/upload-artifact?run_uuid=x&path=y",
            "api/2.0/mlflow/users/create",
            "graphql",
            "v1/traces",
        ):
            assert status(f"{server}/{path}", data=b"{}") == 401, path
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
