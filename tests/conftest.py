"""Settings of every test: waiting threads do not keep a core busy; tests marked `root` run as root.

OpenMP's threads spin while they wait for each other. On the small matrices of tests, beside any
other work on the machine, that costs several times the work itself. It is read when the first
library brings OpenMP in, and child processes inherit it; no result depends on it.
"""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root: `make test-root` runs it"))
