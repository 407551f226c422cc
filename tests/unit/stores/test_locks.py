"""Locks on files."""

import os
import stat

from pipeline.stores.locks import locked


def test_members_of_a_group_cannot_hold_a_lock(tmp_path):
    os.umask(0o027)
    path = tmp_path / "locks" / "ingest.lock"
    for _ in range(2):
        with locked(path, "the lock ingest"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
