from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dags.local import environment

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
ENDS = "init"


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line.strip()]


def variables() -> dict[str, str]:
    """Variable of compose.yaml -> the text after its name, such as ":?sentence"."""
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"\$\{(\w+)([^}]*)\}", text))


def test_ports_are_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_that_keep_running_report_their_health() -> None:
    running = {name: service for name, service in SERVICES.items() if name != ENDS}
    assert running
    for name, service in running.items():
        assert service["restart"] == "unless-stopped", name
        if "healthcheck" not in service:
            dockerfile = ROOT / service["build"]["dockerfile"]
            assert "HEALTHCHECK" in [word for word, _ in instructions(dockerfile)], name


def test_secrets_come_from_outside_and_none_may_be_empty() -> None:
    secret = re.compile(r"PASSWORD$|SECRET$|KEY$|CONN$|STORE_URI$")
    secrets = [
        value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if secret.search(name)
    ]
    assert len(secrets) >= 6
    for value in secrets:
        assert re.search(r"\$\{\w+:\?", value), value


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^#?(\w+)=(.*)$", example, re.MULTILINE))
    assert variables().keys() <= given.keys()
    required = [name for name, rest in variables().items() if rest.startswith(":?")]
    assert len(required) == 8
    assert not any(given[name] for name in required)


def test_one_scheduler_a_profile() -> None:
    by_profile = {name: s["profiles"] for name, s in SERVICES.items() if "profiles" in s}
    assert by_profile == {"scheduler": ["cpu"], "scheduler-gpu": ["gpu"]}
    gpu = SERVICES["scheduler-gpu"]
    assert gpu["build"]["target"] == "gpu"
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "COMPOSE_PROFILES=cpu" in (DOCKER / ".env.example").read_text(encoding="utf-8")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_install_by_hash_and_run_without_privileges(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    installs = [rest for word, rest in steps if word == "RUN" and "pip" in rest]
    assert installs
    for install in installs:
        assert install.count("--require-hashes") == len(
            re.findall(r"pip (?:install|sync)", install)
        )
    users = [rest for word, rest in steps if word == "USER"]
    assert users and re.fullmatch(r"[1-9]\d+", users[-1])
    assert not [rest for word, rest in steps if word in ("ARG", "ENV") and "PASSWORD" in rest]


DIGEST = re.compile(r"[\w/.-]+:[\w.-]+@sha256:[0-9a-f]{64}")


def test_base_images_are_pinned_by_digest() -> None:
    bases = []
    for dockerfile in DOCKERFILES:
        lines = [rest.split(" ") for word, rest in instructions(dockerfile) if word == "FROM"]
        stages = {line[2] for line in lines if len(line) == 3}
        bases += [line[0] for line in lines if line[0] not in stages]
    pulled = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(bases) == 4 and len(set(bases)) == 1
    assert len(pulled) == 1
    assert all(DIGEST.fullmatch(image) for image in [*bases, *pulled])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_hold_nothing_that_installs_packages(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    # Stages before this one hold pip and uv; this one and those on top of it are the images.
    last = max(number for number, (word, rest) in enumerate(steps) if DIGEST.match(rest))
    first, final = steps[:last], steps[last:]
    assert any("venv --without-pip /opt/venv" in rest for word, rest in first if word == "RUN")
    copied = [rest for word, rest in final if word == "COPY" and rest.startswith("--from")]
    assert copied
    for stage in copied:
        assert re.fullmatch(r"--from=(gpu-)?environment /opt/venv /opt/venv", stage)
    removed = [rest for word, rest in final if word == "RUN"]
    assert any(
        re.search(r"pip uninstall --yes .*\bpip setuptools wheel\b", rest)
        and "rm -rf /usr/local/lib/python3.11/ensurepip" in rest
        for rest in removed
    )


def test_lightfm_is_built_by_its_lock_in_a_stage_that_no_image_contains() -> None:
    steps = instructions(DOCKER / "pipeline.Dockerfile")
    (built,) = [n for n, (word, rest) in enumerate(steps) if word == "RUN" and "gcc" in rest]
    assert "--build-constraints lightfm.lock -r lightfm.lock" in steps[built][1]
    stages = [rest.split(" ")[-1] for word, rest in steps[:built] if word == "FROM"]
    assert stages == ["environment"]
    assert ("COPY", "lightfm.lock ./") in steps[:built]
    assert "!lightfm.lock" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_the_image_for_a_gpu_has_its_tests_and_needs_no_path_to_its_libraries() -> None:
    steps = instructions(DOCKER / "pipeline.Dockerfile")
    at = steps.index(("FROM", "base AS gpu"))
    copied = {rest.split(" ")[0] for word, rest in steps[at : at + 4] if word == "COPY"}
    assert copied == {"--from=gpu-environment", "pyproject.toml", "tests"}
    for file in (DOCKER / "compose.yaml", DOCKER / "pipeline.Dockerfile"):
        assert "LD_LIBRARY_PATH" not in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(service: str) -> None:
    set_here = SERVICES[service]
    assert set_here["cap_drop"] == ["ALL"] and "cap_add" not in set_here
    assert set_here["security_opt"] == ["no-new-privileges:true"]
    assert set_here["read_only"] is True
    assert set_here["ulimits"] == {"core": 0}
    assert re.fullmatch(r"\d+g|\$\{NIGHTJAR_MEMORY:-\d+g\}", set_here["mem_limit"])
    assert all("size=" in folder for folder in set_here["tmpfs"])
    assert "privileged" not in set_here
    if "build" not in set_here:  # our images name their users themselves
        assert set_here["user"] not in ("root", "0")


def networks(service: str) -> set[str]:
    return set(SERVICES[service]["networks"])


@pytest.mark.parametrize("database", ["airflow", "mlflow"])
def test_only_services_with_its_login_reach_a_database(database: str) -> None:
    name = f"{database}-database"
    assert COMPOSE["networks"][name] == {"internal": True}
    with_login = {
        service
        for service, set_here in SERVICES.items()
        if f"@postgres/{database}" in str(set_here["environment"])
    }
    assert with_login
    on_network = {service for service in SERVICES if name in networks(service)}
    assert on_network == with_login | {"postgres"}
    assert networks("postgres") == {"airflow-database", "mlflow-database"}


OPENS_VAULT = {"init", "scheduler", "scheduler-gpu"}


def test_the_vaults_key_is_a_file_of_those_who_open_the_vault() -> None:
    assert "NIGHTJAR_VAULT_KEY:" not in (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert {name for name, service in SERVICES.items() if "secrets" in service} == OPENS_VAULT
    for name in OPENS_VAULT:
        file = SERVICES[name]["environment"]["NIGHTJAR_VAULT_KEY_FILE"]
        assert SERVICES[name]["secrets"] == [Path(file).name]
    assert COMPOSE["secrets"].keys() == {"vault_key"}
    for ignored in (".gitignore", ".dockerignore"):
        assert "vault.key" in (ROOT / ignored).read_text(encoding="utf-8"), ignored


def test_mlflow_asks_for_a_login_that_its_clients_have() -> None:
    server = SERVICES["mlflow"]["environment"]
    assert Path(server["MLFLOW_AUTH_CONFIG_PATH"]).relative_to("/opt/nightjar") == Path(
        "mlflow/login.ini"
    )
    clients = {
        name
        for name, service in SERVICES.items()
        if "NIGHTJAR__REGISTRY__TRACKING_URI" in service["environment"]
    }
    assert clients == OPENS_VAULT
    for client in clients:
        sent = SERVICES[client]["environment"]
        assert sent["MLFLOW_TRACKING_USERNAME"] == server["MLFLOW_AUTH_ADMIN_USERNAME"]
        assert sent["MLFLOW_TRACKING_PASSWORD"] == server["MLFLOW_AUTH_ADMIN_PASSWORD"]
    assert {name for name in SERVICES if "tracking" in networks(name)} == clients | {"mlflow"}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_copy_files_that_exist_and_are_in_the_build_context(dockerfile: Path) -> None:
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = [
        source
        for word, rest in instructions(dockerfile)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source


def test_compose_repeats_no_setting_of_a_single_machine() -> None:
    settings = environment.settings(Path("/workspace"))
    set_here = COMPOSE["x-airflow"]["environment"]
    assert len(set_here) > 6
    assert not [name for name, value in set_here.items() if settings.get(name) == str(value)]


def test_values_of_compose_take_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entrypoint = runpy.run_path(str(DOCKER / "entrypoint.py"))
    given = {"NIGHTJAR_HOME": str(tmp_path), "AIRFLOW__API__HOST": "0.0.0.0"}
    monkeypatch.setattr(os, "environ", given)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda _, command: started.append(command))

    entrypoint["main"](["airflow", "api-server"])

    assert started == [["airflow", "api-server"]]
    assert os.environ["AIRFLOW__API__HOST"] == "0.0.0.0"
    expected = environment.settings(tmp_path)["AIRFLOW__CORE__DAGS_FOLDER"]
    assert os.environ["AIRFLOW__CORE__DAGS_FOLDER"] == expected


def test_the_login_is_readable_by_its_owner_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_login = runpy.run_path(str(DOCKER / "entrypoint.py"))["write_login"]
    file = tmp_path / "login.json"
    monkeypatch.delenv("NIGHTJAR_ADMIN_PASSWORD", raising=False)
    with pytest.raises(SystemExit, match="NIGHTJAR_ADMIN_PASSWORD"):
        write_login(file)
    for password in ("first", "second"):
        monkeypatch.setenv("NIGHTJAR_ADMIN_PASSWORD", password)
        write_login(file)
        assert json.loads(file.read_text()) == {"admin": password}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_compose_reads_its_file(profile: str, tmp_path: Path) -> None:
    filled = "".join(f"{name}=x\n" for name, rest in variables().items() if rest.startswith(":?"))
    (tmp_path / "env").write_text(filled)
    command = ["docker", "compose", "--env-file", str(tmp_path / "env")]
    shown = subprocess.run(
        [*command, "-f", str(DOCKER / "compose.yaml"), "--profile", profile, "config"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name = {"cpu": "scheduler", "gpu": "scheduler-gpu"}[profile]
    assert name in yaml.safe_load(shown)["services"]
