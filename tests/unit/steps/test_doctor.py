from __future__ import annotations

import sys

import pytest

from pipeline.steps.doctor import examine


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
