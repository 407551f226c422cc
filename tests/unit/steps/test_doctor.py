from __future__ import annotations

import subprocess
import sys

import pytest
from mlflow import MlflowClient

from pipeline.models import device
from pipeline.steps.doctor import examine
from pipeline.steps.maintenance.register_all import register_all
from pipeline.workspace.workspace import Workspace
from tests import gpu_stand_in


def lightfm(home):
    (check,) = (check for check in examine(home) if check.name == "lightfm")
    return check


def test_lightfm_is_named_with_its_version(tmp_path):
    library = pytest.importorskip("lightfm")
    check = lightfm(tmp_path)
    assert check.ok
    assert check.sentence == f"installed {library.__version__} (family lightfm)"


def test_a_missing_lightfm_is_not_a_fault_and_the_line_names_its_target(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightfm", None)
    check = lightfm(tmp_path)
    assert check.ok
    assert check.sentence == "not installed; `make lightfm` builds it (family lightfm)"


@pytest.mark.parametrize(
    ("capability", "sentence"),
    [
        ((9, 0), "NVIDIA Stand-in, compute capability 9.0, is used"),
        ((7, 5), "not used (device.no_kernel): the GPU has compute capability 7.5"),
    ],
)
def test_the_gpu_is_named_or_the_cause_for_which_it_is_not_used(
    capability, sentence, tmp_path, monkeypatch
):
    gpu_stand_in.install(monkeypatch, tmp_path).capability = capability
    (check,) = (check for check in examine(tmp_path) if check.name == "gpu")
    device._checked_gpu.cache_clear()
    assert check.ok
    assert check.sentence.startswith(sentence)


def test_an_experiment_that_a_user_deleted_is_a_fault_with_its_command(tmp_path):
    ws = Workspace.init(tmp_path / "ws")

    def mlflow():
        (check,) = (check for check in examine(ws.home) if check.name == "mlflow store")
        return check

    assert mlflow().ok
    client = MlflowClient(ws.tracking_uri)
    name = ws.config.registry.experiment
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)
    for _ in range(2):  # the check changes nothing
        assert not mlflow().ok
        assert name in mlflow().sentence and "`nightjar register --all`" in mlflow().sentence

    register_all(ws)
    assert mlflow().ok


@pytest.mark.root
def test_a_landing_folder_on_another_file_system_is_reported(tmp_path):
    ws = Workspace.init(tmp_path / "ws")

    def landing():
        (check,) = (check for check in examine(ws.home) if check.name == "landing")
        return check

    assert (landing().ok, "another file system" in landing().sentence) == (True, False)
    folder = ws.home / "landing" / "items"
    command = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert landing().ok
        assert landing().sentence.startswith(f"{folder}: another file system")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
