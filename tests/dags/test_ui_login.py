"""Attacks of another user of the machine, and of a page in the browser, on a real `make ui`."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
import pytest

from pipeline.workspace.workspace import Workspace
from tests.dags.conftest import ROOT
from tests.dags.served import Served, serve

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

PLANTED = "PLANTED"
KEY, STRANGE = f"{PLANTED}keykeykeykeykeykeykeykeykeykeykeykec=", f"{PLANTED}-STRANGE"
HOOK = f"http://{PLANTED}-LOGIN:{PLANTED}-TOKEN@127.0.0.1:9/{PLANTED}-PATH"
EXPERIMENTS = "/api/2.0/mlflow/experiments/create"
UNIQUE = (f"experiment {number}" for number in itertools.count())


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("login") / "a home"
    Workspace.init(home)
    delivered = home / "landing" / "events" / "events.csv"
    delivered.write_text("user_id,item_id,kind,timestamp\nu,i,view,2024-03-01T10:00:00Z\n")
    os.utime(delivered, (0, 0))
    planted = {
        "NIGHTJAR_VAULT_KEY": KEY,
        "AIRFLOW_CONN_NIGHTJAR_WEBHOOK": HOOK,
        "MLFLOW_TRACKING_PASSWORD": STRANGE,
        "AWS_SECRET_ACCESS_KEY": STRANGE,
        "A_STRANGE_TOKEN": STRANGE,
    }
    with serve(home, planted) as served:
        yield served


class Answer:
    """A response, read to its end; redirects are not followed."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()

    @property
    def cookie(self) -> str:
        return str(self.headers["set-cookie"]).partition(";")[0]


def ask(port: int, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        content = json.dumps(body) if body is not None else None
        connection.request(method, path, content, named)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def ports(ui: Served) -> tuple[int, int]:
    return ui.port, ui.mlflow_port


def basic(ui: Served, user: str = "admin") -> str:
    pair = f"{user}:{ui.passwords[1]}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def create(ui: Served, **fields: Any) -> Answer:
    body = {"name": next(UNIQUE), **fields}
    return ask(ui.mlflow_port, EXPERIMENTS, "POST", body, Authorization=basic(ui))


def test_airflow_gives_no_token_without_the_password(ui: Served) -> None:
    assert ask(ui.port, "/auth/token").status == 403
    wrong = {"username": "admin", "password": "wrong"}
    assert ask(ui.port, "/auth/token", "POST", wrong).status == 401
    assert ask(ui.port, "/ui/auth/me").status == 401
    assert ask(ui.port, "/api/v2/dags").status == 401
    assert ask(ui.port, "/api/v2/dags", Authorization=f"Bearer {ui.token}").status == 200


def test_mlflow_answers_nothing_without_the_password(ui: Served) -> None:
    port = ui.mlflow_port
    search = "/api/2.0/mlflow/experiments/search?max_results=1"
    for path in ("/", search, f"/ajax-api/{search[5:]}", "/graphql", "/static-files/"):
        assert ask(port, path).status == 401, path
    for path in (EXPERIMENTS, "/graphql", "/v1/traces"):
        assert ask(port, path, "POST", {"name": "x"}).status == 401, path
    assert ask(port, search, Authorization=basic(ui, "root")).status == 401
    assert ask(port, search, Authorization="Basic %%%").status == 401
    assert ask(port, search, Cookie="nightjar_mlflow=").status == 401
    assert ask(port, search, Authorization=basic(ui)).status == 200
    assert ask(port, "/health").status == 200


CLIENT = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
run = client.create_run(client.create_experiment("of a program")).info.run_id
client.log_text(run, "text", "file.txt")
print([file.path for file in client.list_artifacts(run)])
"""


def test_a_program_logs_in_with_user_and_password(ui: Served) -> None:
    env = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW")}
    env |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    address = f"http://127.0.0.1:{ui.mlflow_port}"
    for password in (ui.passwords[1], ui.passwords[0]):
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, address],
            cwd=ROOT,
            env={**env, "MLFLOW_TRACKING_PASSWORD": password},
            capture_output=True,
            text=True,
            check=False,
        )
        if password == ui.passwords[1]:
            assert done.stdout.splitlines()[-1] == "['file.txt']", done.stderr
        else:
            assert done.returncode != 0
            assert "401" in done.stderr


@pytest.mark.parametrize("server", [0, 1])
def test_a_printed_address_opens_with_one_click(ui: Served, server: int) -> None:
    port, password = ports(ui)[server], ui.passwords[server]
    page = ("/ui/auth/me", "/ajax-api/2.0/mlflow/experiments/search?max_results=1")[server]

    clicked = ask(port, f"/?login={password}&a=b%20c")

    assert (clicked.status, clicked.headers["location"]) == (303, "/?a=b+c")
    name = ("nightjar_airflow", "nightjar_mlflow")[server]
    assert clicked.cookie.startswith(f"{name}=") and password not in clicked.cookie
    assert {"HttpOnly", "SameSite=Lax"} <= set(clicked.headers["set-cookie"].split("; "))
    assert ask(port, page, Cookie=f"_token=old; {clicked.cookie}").status == 200
    assert ask(port, page, Cookie=f"{clicked.cookie}x").status == 401
    assert (
        ask(port, page, Cookie=ask(port, f"/?login={ui.passwords[1 - server]}").cookie).status
        == 401
    )
    assert ask(port, "/?login=wrong").status == 401
    assert ask(port, f"//evil.example/?login={password}").headers["location"] == "/evil.example/"


def test_a_logout_of_airflow_removes_the_cookie(ui: Served) -> None:
    clicked = ask(ui.port, f"/?login={ui.passwords[0]}")
    left = ask(ui.port, "/api/v2/auth/logout", Cookie=clicked.cookie)
    removed = [line for line in left.headers.get_all("set-cookie", []) if "Max-Age=0" in line]
    assert any(line.startswith("nightjar_airflow=;") for line in removed)


@pytest.mark.parametrize("server", [0, 1])
def test_other_hosts_and_pages_of_other_origins_are_refused(ui: Served, server: int) -> None:
    port = ports(ui)[server]
    cookie = ask(port, f"/?login={ui.passwords[server]}").cookie
    for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "[::1]"):
        assert ask(port, "/", Host=host, Cookie=cookie).status == 403, host
        assert ask(port, "/auth/token", Host=host).status == 403, host
    assert ask(port, "/", Host=f"localhost:{port}", Cookie=cookie).status == 200
    own = f"http://127.0.0.1:{port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"{own}.evil"):
        for method in ("GET", "POST"):
            assert ask(port, "/", method, Origin=origin, Cookie=cookie).status == 403, origin
    assert ask(port, "/", Origin=own, Cookie=cookie).status == 200


@pytest.mark.parametrize("server", [0, 1])
def test_no_page_may_be_shown_in_a_frame(ui: Served, server: int) -> None:
    port = ports(ui)[server]
    cookie = ask(port, f"/?login={ui.passwords[server]}").cookie
    for answer in (ask(port, "/", Cookie=cookie), ask(port, "/?login=wrong")):
        assert answer.headers.get_all("x-frame-options") == ["DENY"]
        policies = answer.headers.get_all("content-security-policy", [])
        assert "frame-ancestors 'none'" in policies


def test_the_servers_listen_on_two_ports_of_loopback_only(ui: Served) -> None:
    listening = set()
    for process in ui.family():
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("inet")
            listening |= {one.laddr for one in connections if one.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", port) for port in ports(ui)}


def test_airflow_takes_json_only_and_allows_no_other_origin(ui: Served) -> None:
    cookie = ask(ui.port, f"/?login={ui.passwords[0]}").cookie
    runs = "/api/v2/dags/feedback_ingest/dagRuns"
    for kind in ({"Content-Type": "text/plain"}, {"Content-Type": ""}):
        answer = ask(ui.port, runs, "POST", {"logical_date": None}, Cookie=cookie, **kind)
        assert answer.status == 422, kind
    evil = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    for method, more in (("GET", {}), ("GET", evil), ("OPTIONS", evil)):
        answer = ask(ui.port, runs, method, Cookie=cookie, **more)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_airflow_shows_no_config_and_takes_no_run_id_with_script(ui: Served) -> None:
    with pytest.raises(HTTPError, match="403"):
        ui.get("/config")
    file = ui.home / "airflow" / "airflow.cfg"
    assert "fernet_key" in file.read_text() and file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HTTPError, match=r"4(00|22)"):
        path = "/api/v2/dags/feedback_ingest/dagRuns"
        ui.call("POST", path, logical_date=None, dag_run_id="inj<script>")


def test_artifacts_are_read_in_their_folder_and_html_is_sent_as_a_file(ui: Served) -> None:
    login = {"Authorization": basic(ui)}
    made = {"experiment_id": "0", "start_time": 1}
    answer = ask(ui.mlflow_port, "/api/2.0/mlflow/runs/create", "POST", made, **login)
    run = json.loads(answer.text)["run"]["info"]["run_id"]
    place = f"run_uuid={run}&path=page.html"
    upload = f"/ajax-api/2.0/mlflow/upload-artifact?{place}"
    assert ask(ui.mlflow_port, upload, "POST", "<script>", **login).status == 200
    page = ask(ui.mlflow_port, f"/get-artifact?{place}", **login)
    assert (page.status, page.headers.get_content_disposition()) == (200, "attachment")
    for path in ("../../vault.key", "../../../../secrets/vault.key", "%2e%2e/%2e%2e/vault.key"):
        for get in ("/get-artifact?run_uuid=", "/api/2.0/mlflow/artifacts/list?run_id="):
            read = ask(ui.mlflow_port, f"{get}{run}&path={path}", **login)
            assert read.status in (400, 404), (path, read.text)


def test_artifacts_outside_their_folder_are_refused(ui: Served) -> None:
    dags, inside = ROOT / "dags", ui.home / "mlflow" / "artifacts"
    (ui.home / "mlflow" / "artifacts" / "link").symlink_to(dags)
    for place in (
        f"file://{dags}",
        str(dags),
        f"file://localhost{dags}",
        f"FILE:{dags}",
        f"file://{ui.home}/secrets",
        f"{inside}/../../secrets",
        f"{inside}/%2e%2e/%2e%2e/secrets",
        f"{inside}/link/x",
        "dags",
        "s3://bucket/x",
        "http://127.0.0.1:1/x",
        "mlflow-artifacts:/../x",
        "mlflow-artifacts://127.0.0.1:1/x",
    ):
        assert create(ui, artifact_location=place).status == 400, place
        assert create(ui, artifactLocation=place).status == 400, place
    assert not list(dags.glob("*/artifacts"))
    assert create(ui, artifact_location=f"file://{inside}/own").status == 200
    assert create(ui).status == 200


def test_no_other_request_names_a_place_outside(ui: Served) -> None:
    outside = f"file://{ROOT}/dags"
    tag = {"key": "mlflow.artifactLocation", "value": outside}
    trace = {"trace": {"trace_info": {"tags": {"mlflow.artifactLocation": outside}}}}
    named: list[tuple[str, str, Any]] = [
        ("POST", "/api/2.0/mlflow/model-versions/create", {"name": "x", "source": outside}),
        ("POST", "/ajax-api/2.0/mlflow/model-versions/create", {"name": "x", "source": "../x"}),
        ("POST", "/ajax-api/2.0/mlflow/experiments/create", {"artifact_location": outside}),
        ("POST", EXPERIMENTS, json.dumps({"name": "x", "artifact_location": outside})),
        ("POST", "/api/3.0/mlflow/traces", trace),
        ("PATCH", "/api/3.0/mlflow/traces/x/tags", tag),
        ("POST", "/api/2.0/mlflow/runs/set-tag", {"run_id": "x", **tag}),
        ("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0", "tags": [tag]}),
    ]
    for method, path, body in named:
        refused = ask(ui.mlflow_port, path, method, body, Authorization=basic(ui))
        assert refused.status == 400, (path, refused.text)
        assert "is outside the folder" in refused.text, (path, refused.text)


def test_only_processes_that_run_tasks_get_the_key_and_the_webhook(ui: Served) -> None:
    planted_by_server: dict[str, set[str]] = {}
    for process in ui.family():
        try:
            # Airflow's processes that change their name thereby clear what can be read here.
            line, env = " ".join(process.cmdline()), str(process.environ())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        planted = {text for text in (KEY, HOOK, STRANGE) if text in env}
        planted_by_server.setdefault(_server(line), set()).update(planted)
        assert not any(secret in line for secret in (PLANTED, *ui.passwords))
        assert "A_STRANGE_TOKEN" not in env, line
    assert set(planted_by_server) >= {
        "scheduler",
        "api-server",
        "dag-processor",
        "triggerer",
        "mlflow",
    }
    assert planted_by_server.pop("scheduler") == {KEY, HOOK, STRANGE}
    assert all(planted == set() for planted in planted_by_server.values()), planted_by_server


def _server(line: str) -> str:
    names = ("scheduler", "api.server", "dag.processor", "triggerer", "mlflow|uvicorn")
    for name in names:
        if re.search(name, line):
            return name.replace(".", "-").partition("|")[0]
    return line


def test_only_the_server_itself_has_its_password(ui: Served) -> None:
    airflow, mlflow = ui.passwords
    for process in ui.family():
        try:
            server, env = _server(" ".join(process.cmdline())), process.environ()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        assert server == "api-server" or airflow not in env.values()
        assert (mlflow in env.values()) == (server == "mlflow"), server


def test_no_run_writes_a_secret_into_a_store_or_a_log(ui: Served) -> None:
    """The night is red for want of events, so that it calls the webhook."""
    conf = {"feedback_ingest": {}, "nightly_retrain": {"as_of": "2024-03-02T09:00:00Z"}}
    states = {}
    for dag, params in {**conf, "maintenance": {}}.items():
        ui.wait(lambda dag=dag: dag in str(ui.get("/dags")) or None, lambda: "DAGs")
        ui.unpause(dag)
        states[dag] = ui.end(dag, ui.trigger(dag, **params))["state"]
    assert states == {"feedback_ingest": "success", "nightly_retrain": "failed"} | {
        "maintenance": "success"
    }
    assert any(b"webhook cannot be reached" in path.read_bytes() for path in ui.logs.rglob("*.log"))
    assert len(Workspace.open(ui.home).lake.read("events")) == 1
    files = [path for path in ui.home.rglob("*") if path.is_file()]
    assert [path for path in files if PLANTED.encode() in path.read_bytes()] == []
    assert PLANTED not in ui.output


def test_files_are_closed_to_others_and_have_no_password(ui: Served) -> None:
    made = [ui.home / "airflow", ui.home / "mlflow" / "mlflow.db"]
    made += (ui.home / "airflow").rglob("*")
    files = [path for path in made if not path.is_symlink() and path.exists()]
    assert len(files) > 10
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    for path in ui.home.rglob("*"):
        if path.is_file() and path.name != "login.json":
            content = path.read_bytes()
            assert not any(text.encode() in content for text in ui.passwords), path
    logs = "".join(path.read_text() for path in ui.logs.glob("*.log"))
    assert "InsecureKeyLengthWarning" not in logs
    assert "GET /?a=b+c" in logs  # the click is logged, without the password


def test_no_server_leaves_a_core_dump(ui: Served) -> None:
    limits = []
    for process in ui.family():
        with suppress(FileNotFoundError):  # a process that has ended meanwhile
            limits.append(Path(f"/proc/{process.pid}/limits").read_text())
    assert len(limits) >= 5
    assert all(re.search(r"Max core file size +0 +0 ", text) for text in limits)


def test_the_password_file_ends_with_the_servers(ui: Served) -> None:
    file = ui.home / "airflow" / "login.json"
    assert file.is_file()
    assert ui.stop() == 0, ui.output
    assert not file.exists()
