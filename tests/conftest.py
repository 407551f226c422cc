"""Settings of every test: threads, umask, and tests marked `root`, which run as root.

Opening a workspace and the console script change the umask of the process; each test starts with
that of the caller.

OpenMP's threads spin while they wait for each other. On the small matrices of tests, beside any
other work on the machine, that costs several times the work itself. It is read when the first
library brings OpenMP in, and child processes inherit it; no result depends on it.
"""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
UMASK = os.umask(0o077)
os.umask(UMASK)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    os.umask(UMASK)
    yield
    os.umask(UMASK)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root: `make test-root` runs it"))
