from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(Path(sysconfig.get_path("purelib")).glob("scikit_learn.libs/libgomp-*.so*"))

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not SHIPPED,
    reason="only Linux wheels of scikit-learn ship the library",
)


@pytest.fixture(scope="module")
def openmp() -> ModuleType:
    spec = importlib.util.spec_from_file_location("openmp", ROOT / ".make/openmp.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_copy_answers_to_the_plain_name(openmp: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "site packages"
    (site / "scikit_learn.libs").mkdir(parents=True)
    (site / "scikit_learn.libs" / SHIPPED[0].name).write_bytes(SHIPPED[0].read_bytes())
    target = tmp_path / "lib" / openmp.NAME

    openmp.install(site, target)

    # The library loaded by path also serves loads by name, such as those of implicit's loader.
    code = "; ".join(
        (
            (site / openmp.HOOK).read_text().strip(),
            f"ctypes.CDLL({openmp.NAME!r}).omp_get_max_threads()",
            "print(open('/proc/self/maps').read())",
        )
    )
    maps = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = {line[line.index("/") :] for line in maps.splitlines() if "libgomp" in line}
    assert loaded == {str(target)}


def test_lightgbm_is_content_with_the_copy(openmp: ModuleType, tmp_path: Path) -> None:
    purelib = Path(sysconfig.get_path("purelib"))
    (tmp_path / "scikit_learn.libs").mkdir()
    (tmp_path / "scikit_learn.libs" / SHIPPED[0].name).write_bytes(SHIPPED[0].read_bytes())
    target = tmp_path / "lib" / openmp.NAME

    openmp.install(tmp_path, target)

    # All that it is linked against is resolved at once, so that a missing symbol fails here.
    code = "; ".join(
        (
            (tmp_path / openmp.HOOK).read_text().strip(),
            "import os",
            f"ctypes.CDLL({str(purelib / 'lightgbm/lib/lib_lightgbm.so')!r}, os.RTLD_NOW)",
            "print(open('/proc/self/maps').read())",
        )
    )
    maps = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "lib_lightgbm.so" in maps
    loaded = {line[line.index("/") :] for line in maps.splitlines() if "libgomp" in line}
    assert loaded == {str(target)}


def test_without_a_library_to_copy_the_sentence_names_the_package(
    openmp: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="libgomp1"):
        openmp.install(tmp_path, tmp_path / "lib" / openmp.NAME)


def test_a_library_of_another_build_is_refused(openmp: ModuleType) -> None:
    with pytest.raises(SystemExit, match="0 times"):
        openmp.plain_name(b"\x7fELF no such name")
