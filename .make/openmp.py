"""Give this environment the GNU OpenMP runtime where the machine has none.

`implicit` and LightGBM are linked against `libgomp.so.1` and ship no copy. A machine with a
compiler has it; a bare one with Python, git and make has not, and installing it there takes root.
scikit-learn (MLflow needs it) ships the same library under a name of its own, so `make setup`
copies that one into the environment, gives the copy its plain name back, and has Python load it at
its start.

Does nothing where the machine has the library. Standard library only.
"""

from __future__ import annotations

import ctypes
import re
import sys
import sysconfig
from pathlib import Path

NAME = "libgomp.so.1"
HOOK = "nightjar_openmp.pth"


def on_this_machine() -> bool:
    """Say whether the loader finds the library by itself."""
    try:
        ctypes.CDLL(NAME)
    except OSError:
        return False
    return True


def plain_name(library: bytes) -> bytes:
    """Return `library` with its embedded name cut to `NAME` (same length: NULs fill the rest)."""
    ours = NAME.encode()
    changed, count = re.subn(
        rb"libgomp-[0-9a-f]+\.so\.1[0-9.]*\0",
        lambda found: ours.ljust(len(found[0]), b"\0"),
        library,
    )
    if count != 1:
        raise SystemExit(f"scikit-learn's libgomp names itself {count} times, not once")
    return changed


def install(site: Path, target: Path) -> None:
    """Write the library to `target` and the start-up hook to `site`."""
    found = sorted(site.glob("scikit_learn.libs/libgomp-*.so*"))
    if not found:
        raise SystemExit(
            f"{NAME} is missing on this machine; install it "
            "(Debian, Ubuntu: libgomp1; Fedora: libgomp) and run make setup again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(plain_name(found[0].read_bytes()))
    (site / HOOK).write_text(f"import ctypes; ctypes.CDLL({str(target)!r}, ctypes.RTLD_GLOBAL)\n")


def main() -> None:
    """Act on the environment that runs this file."""
    site = Path(sysconfig.get_path("purelib"))
    if not sys.platform.startswith("linux") or (site / HOOK).exists() or on_this_machine():
        return
    install(site, Path(sys.prefix) / "lib" / NAME)


if __name__ == "__main__":
    main()
