"""Search for an NVIDIA GPU that implicit can use, with the cause if there is none.

Guarantees: a cause is a `GpuError` whose id names it; the driver is asked before any package is
imported, so a machine without a GPU loads nothing; no variable of the environment is needed, since
CUDA's libraries are loaded from their packages. Nothing but `pipeline.errors` of this project is
imported, so `benchmarks/gpu.py` runs where the pipeline's other libraries are missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import struct
import warnings
from collections.abc import Iterator
from ctypes import byref, c_int, c_size_t
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ResourceError

_LIBRARIES: Final = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10")
"""Libraries that implicit is linked against and does not find by itself, each after its own."""
_CUDA: Final = 13000
"""Oldest CUDA version of a driver, as the driver writes it: 1,000 times 13, plus 10 times 0."""
_RMM: Final = ((26, 2), (26, 4))
"""First and last version of RMM whose functions implicit 0.7.3 is linked against."""
_NO_DEVICE, _NO_MEMORY = 100, 2
"""Results of CUDA's functions."""
_MAJOR, _MINOR = 75, 76
"""Attributes of a device: the two parts of its compute capability."""
_DEV, _PCI = Path("/dev"), Path("/sys/bus/pci/devices")


class GpuError(ResourceError):
    """The cause for which no GPU can be used."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that passed all checks.

    Attributes
    ----------
    capability
        Compute capability: major and minor version.
    runtime
        CUDA's runtime library.
    """

    name: str
    capability: tuple[int, int]
    runtime: Any

    def memory(self) -> tuple[int, int]:
        """Return the free and the total memory in bytes.

        Raises
        ------
        GpuError
            `device.lost`: the GPU does not answer.
        """
        free, total = c_size_t(), c_size_t()
        code = self.runtime.cudaMemGetInfo(byref(free), byref(total))
        if code not in (0, _NO_MEMORY):  # without memory for a context nothing is free
            raise lost(f"cudaMemGetInfo returned {code}")
        return free.value, total.value


def find_gpu() -> tuple[str, tuple[int, int]]:
    """Return the name and the compute capability of the driver's first GPU.

    Raises
    ------
    GpuError
        `device.no_card`, `device.no_driver`, `device.hidden`, `device.no_access`,
        `device.driver_failed` or `device.driver_too_old`.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        if not _has_card():
            raise _no_card() from None
        raise GpuError(
            "device.no_driver",
            "the machine has an NVIDIA GPU, but libcuda.so.1 of its driver is missing; install "
            "driver 580 or later (a container needs the option --gpus)",
        ) from None
    version, device, count = c_int(), c_int(), c_int()
    code = driver.cuInit(0) or driver.cuDeviceGetCount(byref(count))
    if code or not count.value:
        raise _unreachable(code or _NO_DEVICE)
    driver.cuDriverGetVersion(byref(version))
    if version.value < _CUDA:
        raise GpuError(
            "device.driver_too_old",
            f"the driver of the GPU supports CUDA {_cuda(version.value)}, but implicit needs CUDA "
            f"{_cuda(_CUDA)}; install driver 580 or later",
        )
    driver.cuDeviceGet(byref(device), 0)
    name, major, minor = ctypes.create_string_buffer(96), c_int(), c_int()
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(byref(minor), _MINOR, device)
    return name.value.decode(errors="replace"), (major.value, minor.value)


def _unreachable(code: int) -> GpuError:
    """Return the reason for which the driver starts with no GPU."""
    # What the driver returns for a file that it may not open differs between its versions.
    for file in (_DEV / "nvidiactl", _DEV / "nvidia0", _DEV / "nvidia-uvm"):
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            return GpuError(
                "device.no_access",
                f"{file} may not be opened; give this user read and write access to it",
            )
        except OSError:
            continue
    if code != _NO_DEVICE:
        return GpuError(
            "device.driver_failed",
            f"the driver of the GPU does not start (cuInit returned {code}); run `nvidia-smi`, and "
            "restart the machine if the driver was updated",
        )
    if not _has_card():
        return _no_card()
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return GpuError(
            "device.hidden",
            f"CUDA_VISIBLE_DEVICES is '{hidden}', which names no GPU; unset it, or set it to the "
            "number of a GPU, such as 0",
        )
    return GpuError(
        "device.no_access",
        "the driver finds no GPU, although the machine has one; run `nvidia-smi` (a container "
        "needs the option --gpus)",
    )


def _has_card() -> bool:
    """Return True if an NVIDIA display controller is on the bus, or the driver made its file."""
    if (_DEV / "nvidia0").exists():
        return True
    for vendor in _PCI.glob("*/vendor"):
        with contextlib.suppress(OSError):
            kind = vendor.with_name("class").read_text()
            if vendor.read_text().strip() == "0x10de" and kind.startswith("0x03"):
                return True
    return False


def check_kernels(capability: tuple[int, int]) -> None:
    """Refuse a GPU for which implicit was not compiled: on it, a fit would end without an error.

    Raises
    ------
    GpuError
        `device.no_kernel`.
    """
    package = importlib.util.find_spec("implicit")
    folders = [] if package is None else package.submodule_search_locations or []
    files = [file for folder in folders for file in Path(folder, "gpu").glob("_cuda*.so")]
    kernels = {kernel for file in files for kernel in compiled_kernels(file.read_bytes())}
    major, minor = capability
    # A binary runs on its major version from its minor version on; PTX is compiled for any later.
    if not any(
        arch <= 10 * major + minor and (text or arch // 10 == major) for text, arch in kernels
    ):
        listed = ", ".join(f"{arch / 10}" for arch in sorted({arch for _, arch in kernels}))
        raise GpuError(
            "device.no_kernel",
            f"the GPU has compute capability {major}.{minor}, but implicit is compiled for "
            f"{listed or 'no GPU'}; use a GPU of capability 8.0 (Ampere) or later",
        )


def compiled_kernels(library: bytes) -> Iterator[tuple[bool, int]]:
    """Yield the kernels of a library: True for PTX, and the architecture, such as 80 for 8.0."""
    # CUDA's container: a header of 16 bytes, then per architecture a header and the code.
    at = -1
    while (at := library.find(b"\x50\xed\x55\xba\x01\x00\x10\x00", at + 1)) >= 0:
        (size,) = struct.unpack_from("<Q", library, at + 8)
        part, end = at + 16, at + 16 + size
        while part < end:
            kind, header, code = struct.unpack_from("<H2xIQ", library, part)
            (arch,) = struct.unpack_from("<I", library, part + 28)
            yield kind == 1, arch
            part += header + code


def load_libraries() -> Any:
    """Load CUDA's libraries from their packages, else from the system; return the runtime.

    implicit leaves them to the loader, which does not search packages. A library that the process
    has loaded by its name is not searched again, so no variable is needed.

    Raises
    ------
    GpuError
        `device.library_missing`.
    """
    package = importlib.util.find_spec("nvidia")
    folders = [] if package is None else package.submodule_search_locations or []
    loaded = []
    for name in _LIBRARIES:
        paths = [path for folder in folders if (path := Path(folder, "cu13", "lib", name)).exists()]
        try:
            loaded.append(ctypes.CDLL(str(paths[0]) if paths else name, mode=ctypes.RTLD_GLOBAL))
        except OSError as error:
            raise GpuError(
                "device.library_missing",
                f"a library of CUDA 13 cannot be loaded: {error}; run `make gpu`",
            ) from error
    return loaded[0]


def import_implicit() -> None:
    """Import implicit for the CPU.

    implicit warns if RMM is installed and its CUDA part cannot be loaded. For the CPU this does
    not matter, and a recipe that wants the GPU gets the cause.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("implicit")


def load_implicit() -> None:
    """Import implicit with its CUDA part.

    Raises
    ------
    GpuError
        `device.rmm_missing`, `device.rmm_version` or `device.no_extension`.
    """
    try:
        rmm = importlib.import_module("rmm")
    except ImportError as error:
        raise GpuError(
            "device.rmm_missing", f"RMM cannot be imported: {error}; run `make gpu`"
        ) from error
    first, last = _RMM
    version: str = rmm.__version__
    if not first <= tuple(int(part) for part in version.split(".")[:2]) <= last:
        raise GpuError(
            "device.rmm_version",
            f"RMM has version {version}, but implicit needs {first[0]}.{first[1]} to "
            f"{last[0]}.{last[1]}; run `make gpu`",
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import implicit.gpu

        # Imported before its libraries were loaded (by BPR, for example), it found no GPU.
        if not implicit.gpu.HAS_CUDA:
            importlib.reload(implicit.gpu)
    if not implicit.gpu.HAS_CUDA:
        reasons = "; ".join(str(warning.message) for warning in caught[-1:])
        raise GpuError(
            "device.no_extension",
            f"implicit does not use the GPU: {reasons or 'it was compiled without CUDA'}; run "
            "`make gpu`, or set device to 'cpu'",
        )


def _no_card() -> GpuError:
    return GpuError(
        "device.no_card", "no NVIDIA GPU was found; set device to 'auto' or 'cpu' to train without"
    )


def too_little(facts: str) -> GpuError:
    """Return the error of a GPU without enough free memory."""
    return GpuError(
        "device.no_memory",
        f"the GPU has too little free memory: {facts}; end the other processes that `nvidia-smi` "
        "lists, or choose fewer factors",
    )


def lost(reason: object) -> GpuError:
    """Return the error of a GPU that does not answer any more."""
    return GpuError(
        "device.lost",
        f"the GPU stopped working: {reason}; run `nvidia-smi` to see whether it is still there, "
        "and start the command again",
    )


def megabytes(size: int) -> str:
    """Return a number of bytes in 2^20 bytes."""
    return f"{size / (1 << 20):,.0f} MB"


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
