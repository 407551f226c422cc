"""Groups of the machine, for tests of a workspace that has one."""

import grp
import os

import pytest


def own_group() -> str:
    """Return a group that this process can give files to, not that of its new files if possible."""
    own = os.getegid()
    if os.geteuid() == 0:
        return next(group.gr_name for group in grp.getgrall() if group.gr_gid != own)
    numbers = sorted({own, *os.getgroups()}, key=lambda number: number == own)
    names = {group.gr_gid: group.gr_name for group in grp.getgrall()}
    named = [names[number] for number in numbers if number in names]
    return named[0] if named else pytest.skip("no group of this user has a name")


def foreign_group(number: int) -> str:
    """Return a group other than that with this number."""
    return next(group.gr_name for group in grp.getgrall() if group.gr_gid != number)
