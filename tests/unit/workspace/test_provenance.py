import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

from pipeline.workspace import provenance


def test_libraries_are_named_with_their_versions():
    versions = provenance.libraries()
    assert versions["numpy"] == version("numpy") and versions["implicit"] == version("implicit")
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(versions["blas"].split()) == 3  # library, version, kernels
    assert versions == provenance.libraries()


def test_missing_libraries_are_left_out(monkeypatch):
    def missing(name):
        if name == "lightgbm":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(provenance, "version", missing)
    versions = provenance.libraries()
    assert "lightgbm" not in versions and versions["numpy"] == "1"


@pytest.mark.parametrize("answer", ["", None])
def test_code_outside_a_checkout_is_unknown(monkeypatch, answer):
    def run(*_, **__):
        if answer is None:
            raise FileNotFoundError("git")
        return subprocess.CompletedProcess([], 128, answer, "")

    monkeypatch.setattr(provenance.subprocess, "run", run)
    assert provenance.commit() == "unknown"
