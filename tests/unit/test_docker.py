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
    """Variable of compose.yaml -> what follows its name, such as ":?sentence"."""
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    return dict(re.findall(r"\$\{(\w+)([^}]*)\}", text))


def test_ports_are_bound_to_loopback() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_runs_on_reports_its_health() -> None:
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
    assert len(required) == 7
    assert not any(given[name] for name in required)


def test_one_scheduler_a_profile() -> None:
    by_profile = {name: s["profiles"] for name, s in SERVICES.items() if "profiles" in s}
    assert by_profile == {"scheduler": ["cpu"], "scheduler-gpu": ["gpu"]}
    gpu = SERVICES["scheduler-gpu"]
    assert gpu["build"]["args"] == {"LOCK": "gpu"}
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
    assert all(re.match(r"[\w/.-]+:[\w.-]+", rest) for word, rest in steps if word == "FROM")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_copy_what_is_there_and_what_the_build_may_see(dockerfile: Path) -> None:
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = [
        source
        for word, rest in instructions(dockerfile)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.replace("${LOCK}", "gpu").split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_in, source


def test_compose_repeats_no_setting_of_a_single_machine() -> None:
    settings = environment.settings(Path("/workspace"))
    set_here = COMPOSE["x-airflow"]["environment"]
    assert len(set_here) > 8
    assert not [name for name, value in set_here.items() if settings.get(name) == str(value)]


def test_what_compose_sets_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
