"""Serve Airflow's and MLflow's pages for one workspace on this machine: `make ui`.

Guarantees:

* Both servers listen only on loopback, and need the login of this start: a printed address opens
  with one click, and no argument of a process and no log has its password.
* No server has variables that it does not need; files of Airflow are readable by their owner alone.
* If a server does not start, or ends, the error has its name and the end of its log.
* Ctrl-C or a closed terminal stops all servers; the next start resumes their runs.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn
from urllib.request import urlopen

from dags.local import environment, login
from pipeline.errors import NightjarError, RegistryError, ResourceError

if TYPE_CHECKING:
    from pipeline.workspace.workspace import Workspace

_START_TIMEOUT_S = 180
_STOP_TIMEOUT_S = 15
_PLUGINS = Path(__file__).parent / "plugins"


@dataclass(frozen=True)
class Server:
    """Process to start.

    Attributes
    ----------
    env
        Its environment; it never has the variables of this process.
    health
        Address that responds once it is ready; ``None`` if it has no page.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(hash=False, repr=False)
    health: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted; return the exit code."""
    options = _options(arguments)
    try:
        serve(options.home, options.port, options.mlflow_port)
    except KeyboardInterrupt:
        return 0
    except NightjarError as error:
        _write(error.sentence)
        return error.exit_code


def serve(home: Path, port: int, mlflow_port: int) -> NoReturn:
    """Start all servers for a workspace and watch them until an exception ends it.

    Parameters
    ----------
    home
        Folder of the workspace.
    port, mlflow_port
        Ports of Airflow and of MLflow on loopback.

    Raises
    ------
    ConfigError
        `workspace.not_found`: `home` is not a workspace.
    ResourceError
        `ui.port_in_use`: a port is taken; `ui.server_died`: a server did not start, or ended.
    KeyboardInterrupt
        SIGINT, SIGTERM or SIGHUP arrived; all servers have been stopped.
    """
    # Imported here: `--help` does not wait for polars.
    from pipeline.workspace.child_process import keep_private
    from pipeline.workspace.workspace import Workspace

    keep_private()
    ws = Workspace.open(home)  # the servers then create files with its modes
    _require_free(port, "Airflow", "--port")
    _require_free(mlflow_port, "MLflow", "--mlflow-port")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    env = dict(os.environ)
    environment.apply(home, port, to=env)
    logs = environment.airflow_home(home) / "logs"
    logs.mkdir(exist_ok=True)
    _write(f"Starting Airflow and MLflow for {home} (half a minute) ...")
    pages = _mlflow_pages(ws)
    passwords = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    try:
        environment.write_login(environment.login_file(home), passwords[0])
        set_up = Server("set-up", _python("dags.local.environment"), environment.for_airflow(env))
        _run_to_end(set_up, logs)
        with _running(_servers(home, (port, mlflow_port), passwords, env), logs) as processes:
            _wait_until_up(processes, logs)
            airflow, mlflow = (f"?login={password}" for password in passwords)
            _write(f"\n  Airflow  http://127.0.0.1:{port}/{airflow}")
            for name, page in pages.items():
                _write(f"  {name:<7}  http://127.0.0.1:{mlflow_port}/{mlflow}{page}")
            _write("")
            _write("Ctrl-C stops both.")
            while True:
                _require_alive(processes, logs)
                time.sleep(1)
    finally:
        environment.login_file(home).unlink(missing_ok=True)


def _mlflow_pages(ws: Workspace) -> dict[str, str]:
    """Return the pages of the registered model and of the runs, which are created if missing.

    MLflow's own first page is about chats. It is the page if these two cannot be created: the
    server then shows the cause.
    """
    from pipeline.workspace.registry import registry

    client = registry(ws)
    try:
        client.prepare()
        return dict(zip(("MLflow", "runs"), client.pages(), strict=True))
    except RegistryError as error:
        _write(error.sentence)
        return {"MLflow": ""}


def _servers(
    home: Path, ports: tuple[int, int], passwords: tuple[str, str], env: Mapping[str, str]
) -> list[Server]:
    airflow = environment.for_airflow(env)
    # The key of the tokens of tasks, which the scheduler makes; it is stored nowhere.
    tokens = {"AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64)}
    api_server = {
        **_with_login(airflow, passwords[0]),
        **tokens,
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(64),
    }
    mlflow = {
        **_with_login(environment.for_mlflow(env), passwords[1]),
        "MLFLOW_PORT": str(ports[1]),
        "NIGHTJAR_PYTHON": sys.executable,
    }
    serve = ("bash", str(environment.ROOT / "mlflow" / "serve"), str(home))
    addresses = [f"http://127.0.0.1:{port}" for port in ports]
    return [
        Server(
            "api-server",
            _python("airflow", "api-server"),
            api_server,
            f"{addresses[0]}/api/v2/monitor/health",
        ),
        # Its log server would listen on all addresses, and is not needed: logs are files here.
        Server(
            "scheduler",
            _python("airflow", "scheduler", "--skip-serve-logs"),
            {**environment.for_tasks(env), **tokens, "MLFLOW_PORT": str(ports[1])},
        ),
        Server("dag-processor", _python("airflow", "dag-processor"), airflow),
        Server("triggerer", _python("airflow", "triggerer", "--skip-serve-logs"), airflow),
        Server("mlflow", (*serve, "--app-name", "nightjar"), mlflow, f"{addresses[1]}/health"),
    ]


def _with_login(env: Mapping[str, str], password: str) -> dict[str, str]:
    """Return the environment of a server that finds the login's plugin and has its password."""
    path = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), str(_PLUGINS)]))
    return {**env, "PYTHONPATH": path, login.PASSWORD_VARIABLE: password}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _require_free(port: int, server: str, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ResourceError(
                "ui.port_in_use",
                f"port {port}, meant for {server}, is in use on this machine; "
                f'choose another: make ui ARGS="{option} {port + 1}"',
            ) from None


def _run_to_end(server: Server, logs: Path) -> None:
    with (logs / f"{server.name}.log").open("ab") as log:
        process = subprocess.run(
            server.command,
            env=server.env,
            cwd=environment.ROOT,
            stdout=log,
            stderr=log,
            check=False,
        )
    if process.returncode:
        raise _failure(server, logs)


Processes = Mapping[Server, subprocess.Popen[bytes]]


@contextmanager
def _running(servers: Sequence[Server], logs: Path) -> Iterator[Processes]:
    """Start servers, each in its own process group, and stop all of them in the end."""
    processes: dict[Server, subprocess.Popen[bytes]] = {}
    try:
        for server in servers:
            with (logs / f"{server.name}.log").open("ab") as log:
                processes[server] = subprocess.Popen(
                    server.command,
                    env=server.env,
                    cwd=environment.ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        yield processes
    finally:
        _write("\nStopping ...")
        _stop(list(processes.values()))


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + _STOP_TIMEOUT_S
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until - time.monotonic()))
        _signal(process, signal.SIGKILL)  # also ends what is left of its group
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait_until_up(processes: Processes, logs: Path) -> None:
    until = time.monotonic() + _START_TIMEOUT_S
    for server in processes:
        while server.health and not _responds(server.health):
            _require_alive(processes, logs)
            if time.monotonic() > until:
                raise _failure(server, logs)
            time.sleep(0.5)


def _responds(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):  # noqa: S310 - our own loopback address
            return True
    except (OSError, HTTPException):
        return False


def _require_alive(processes: Processes, logs: Path) -> None:
    for server, process in processes.items():
        if process.poll() is not None:
            raise _failure(server, logs)


def _failure(server: Server, logs: Path) -> ResourceError:
    log = logs / f"{server.name}.log"
    tail = log.read_text(errors="replace").splitlines()[-5:]
    lines = "".join(f"\n  {line}" for line in tail)
    return ResourceError(
        "ui.server_died", f"{server.name} is not running; the end of {log}:{lines}"
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make ui", description="Open Airflow and MLflow.")
    default = Path(os.environ.get("NIGHTJAR_HOME") or environment.DEFAULT_HOME)
    parser.add_argument("--home", type=Path, default=default, help="the workspace")
    parser.add_argument("--port", type=int, default=8080, help="port of Airflow")
    parser.add_argument("--mlflow-port", type=int, default=5000, help="port of MLflow")
    return parser.parse_args(arguments)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # stopping takes seconds and starts once
    raise KeyboardInterrupt


def _write(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - output of a command
    except OSError:
        # The terminal is closed. Python would try to flush the line again when it exits, and
        # return 120 if that fails.
        with Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), 2)


if __name__ == "__main__":
    sys.exit(main())
