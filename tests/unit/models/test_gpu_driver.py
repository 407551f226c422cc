"""Search for a GPU and each cause for which none can be used, on a stand-in for the driver."""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import implicit.gpu
import pytest

from pipeline.models import device, gpu_driver
from pipeline.models.device import usable_gpu
from pipeline.models.gpu_driver import GpuError, compiled_kernels, load_libraries
from tests import gpu_stand_in
from tests.gpu_stand_in import CUDA, MB, GpuStandIn
from tests.raising import raises

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GpuStandIn]:
    yield gpu_stand_in.install(monkeypatch, tmp_path)
    device._checked_gpu.cache_clear()


def test_a_usable_gpu_has_a_name_and_a_compute_capability(gpu: GpuStandIn) -> None:
    usable = usable_gpu()
    assert (usable.name, usable.capability) == ("NVIDIA Stand-in", (9, 0))
    assert usable.memory() == (gpu.free, gpu.total)


def test_libraries_are_loaded_from_their_packages_each_after_its_own(
    gpu: GpuStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    for name in CUDA[:3]:
        (folder / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_libraries() is gpu
    paths = [path for path, _ in gpu.opened]
    assert [Path(path).name for path in paths] == list(CUDA)
    assert paths[:3] == [str(folder / name) for name in CUDA[:3]]
    assert {mode for _, mode in gpu.opened} == {ctypes.RTLD_GLOBAL}


def test_libraries_without_a_package_are_those_of_the_system(
    gpu: GpuStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver.importlib.util, "find_spec", lambda _: None)
    load_libraries()
    assert [path for path, _ in gpu.opened] == list(CUDA)


def no_card(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.missing = {"libcuda.so.1"}
    (gpu.pci / "0000:01:00.0/vendor").write_text("0x8086\n")


def no_card_but_a_driver(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.code = 100
    (gpu.pci / "0000:01:00.0/class").write_text("0x020000\n")


def no_driver(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.missing = {"libcuda.so.1"}


def no_driver_in_a_container(gpu: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    no_card(gpu, monkeypatch)
    (gpu.dev / "nvidia0").touch()


def hidden(gpu: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.code = 100
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def no_device(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.count = 0


def no_permission(gpu: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.code = 999
    (gpu.dev / "nvidiactl").touch()
    opened = os.open

    def refuse(path: object, *arguments: int) -> int:
        if path == gpu.dev / "nvidiactl":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refuse)


def driver_failed(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.code = 803


def driver_too_old(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.version = 12080


def turing(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.capability = (7, 5)


def library_missing(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.missing = {"libcublas.so.13"}


def rmm_missing(_: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rmm", None)


def rmm_older(_: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rmm", SimpleNamespace(__version__="25.12.00"))


def rmm_newer(_: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rmm", SimpleNamespace(__version__="26.06.00"))


def no_extension(_: GpuStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implicit.gpu, "HAS_CUDA", False)
    monkeypatch.setattr(gpu_driver.importlib, "reload", lambda module: module)


def memory_held_by_another_process(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.free = 100 * MB


def no_memory_for_a_context(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.memory_code = 2


def lost(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.memory_code = 999


def not_launched(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.launched = False


def differs(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.noise = 0.01


def not_finite(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.noise = float("nan")


def lost_in_the_canary(gpu: GpuStandIn, _: pytest.MonkeyPatch) -> None:
    gpu.fails_at = 3


CAUSES: list[tuple[Callable[[GpuStandIn, pytest.MonkeyPatch], None], str, tuple[str, ...]]] = [
    (no_card, "device.no_card", ()),
    (no_card_but_a_driver, "device.no_card", ()),
    (no_driver, "device.no_driver", ("580",)),
    (no_driver_in_a_container, "device.no_driver", ()),
    (hidden, "device.hidden", ("CUDA_VISIBLE_DEVICES",)),
    (no_device, "device.no_access", ()),
    (no_permission, "device.no_access", ("nvidiactl",)),
    (driver_failed, "device.driver_failed", ("803",)),
    (driver_too_old, "device.driver_too_old", ("12.8", "13.0")),
    (turing, "device.no_kernel", ("7.5", "8.0, 8.6, 9.0, 10.0, 12.0")),
    (library_missing, "device.library_missing", ("libcublas.so.13", "make gpu")),
    (rmm_missing, "device.rmm_missing", ("make gpu",)),
    (rmm_older, "device.rmm_version", ("25.12", "26.2", "26.4")),
    (rmm_newer, "device.rmm_version", ("26.06",)),
    (no_extension, "device.no_extension", ()),
    (memory_held_by_another_process, "device.no_memory", ("100 MB", "80,000 MB")),
    (no_memory_for_a_context, "device.no_memory", ("0 MB",)),
    (lost, "device.lost", ("999",)),
    (not_launched, "device.canary_failed", ("32 factors",)),
    (differs, "device.canary_failed", ("0.0",)),
    (not_finite, "device.canary_failed", ("nan",)),
    (lost_in_the_canary, "device.lost", ("launch failure",)),
]


@pytest.mark.parametrize(
    ("wrong", "cause", "values"), CAUSES, ids=[case[0].__name__ for case in CAUSES]
)
def test_a_gpu_that_cannot_be_used_has_a_cause(
    wrong: Callable[[GpuStandIn, pytest.MonkeyPatch], None],
    cause: str,
    values: tuple[str, ...],
    gpu: GpuStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong(gpu, monkeypatch)
    with raises(cause) as raised:
        usable_gpu()
    assert isinstance(raised.value, GpuError)
    assert raised.value.exit_code == 2
    for value in values:
        assert value in raised.value.sentence


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (9, 0), (10, 3), (11, 0), (12, 1)])
def test_a_gpu_of_the_wheel_or_later_than_its_portable_code(
    capability: tuple[int, int], gpu: GpuStandIn
) -> None:
    gpu.capability = capability
    assert usable_gpu().capability == capability


def test_the_wheel_has_the_kernels_that_the_page_names() -> None:
    library = next(Path(str(implicit.gpu.__file__)).parent.glob("_cuda*.so"))
    expected = {(text, arch) for text in (False, True) for arch in (80, 86, 90, 100, 120)}
    assert set(compiled_kernels(library.read_bytes())) == expected


@pytest.mark.parametrize("broken", [False, True])
def test_the_gpu_is_checked_once_per_process(gpu: GpuStandIn, broken: bool) -> None:
    gpu.fails_at = 1 if broken else -1
    for _ in range(2):
        if broken:
            with raises("device.lost"):
                usable_gpu()
        else:
            usable_gpu()
    assert [Path(path).name for path, _ in gpu.opened] == ["libcuda.so.1", *CUDA]


def test_the_extension_is_loaded_again_if_it_was_imported_before_its_libraries(
    gpu: GpuStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implicit.gpu, "HAS_CUDA", False)

    def reload(module: object) -> None:
        assert len(gpu.opened) == 5
        monkeypatch.setattr(module, "HAS_CUDA", True)

    monkeypatch.setattr(gpu_driver.importlib, "reload", reload)
    assert usable_gpu().name == "NVIDIA Stand-in"


@pytest.mark.skipif(
    importlib.util.find_spec("rmm") is None, reason="`make gpu` installs what this test loads"
)
def test_the_installed_packages_load_without_a_variable() -> None:
    code = (
        "import implicit.cpu.als\n"  # before its libraries are loaded, as BPR does
        "from pipeline.models import gpu_driver\n"
        "gpu_driver.load_libraries()\n"
        "try:\n"
        "    gpu_driver.load_implicit()\n"
        "except gpu_driver.GpuError as cause:\n"
        "    print(cause.sentence)\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    # Without a driver the compiled part ends at its first call, after all libraries.
    assert not done.stdout or "Cuda Error" in done.stdout


def test_the_files_that_the_benchmark_takes_along_import_nothing_else_of_the_project() -> None:
    for name, allowed in (("device", "models.gpu_driver"), ("gpu_driver", "errors")):
        tree = ast.parse((ROOT / "pipeline" / "models" / f"{name}.py").read_text("utf-8"))
        own = {
            str(node.module)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("pipeline")
        }
        assert own == {f"pipeline.{allowed}"}
    page = (ROOT / "docs" / "GPU.md").read_text("utf-8")
    ids = {cause for _, cause, _ in CAUSES} | {"device.not_trained"}
    assert not [cause for cause in sorted(ids) if f"`{cause}`" not in page]
