import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from pipeline.workspace import provenance


def test_what_computes_is_named_with_its_version():
    found = provenance.libraries()
    assert found["numpy"] == version("numpy") and found["implicit"] == version("implicit")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(found["blas"].split()) == 3  # library, version, kernels
    assert found == provenance.libraries()


def test_what_is_not_installed_is_left_out(monkeypatch):
    def missing(name):
        if name == "lightgbm":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(provenance, "version", missing)
    found = provenance.libraries()
    assert "lightgbm" not in found and found["numpy"] == "1"


@pytest.mark.parametrize("answer", ["", None])
def test_code_outside_a_checkout_is_unknown(monkeypatch, answer):
    def run(*_, **__):
        if answer is None:
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess([], 128, answer, "")

    monkeypatch.setattr(provenance.subprocess, "run", run)
    assert provenance.commit() == "unknown"
