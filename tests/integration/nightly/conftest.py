from __future__ import annotations

import pytest

from pipeline.workspace.workspace import Workspace
from tests.worlds import copy_of


@pytest.fixture
def shop(two_nights):
    """The workspace after two nights, to read from, and their results."""
    return two_nights


@pytest.fixture
def copy(shop, tmp_path):
    """A copy of it, to change."""
    return Workspace.open(copy_of(shop[0], tmp_path / "home"))


@pytest.fixture
def third(third_landed, tmp_path):
    """A copy in which the events of the third night have landed."""
    return Workspace.open(copy_of(third_landed, tmp_path / "home"))


@pytest.fixture
def decided(third_decided, tmp_path):
    """A copy in which the third night has come to its decision, and its run's id."""
    home, run_id, decision = third_decided
    assert decision.kind == "refresh"
    return Workspace.open(copy_of(home, tmp_path / "home")), run_id
