"""Where a number comes from: commit, versions and machine."""

import hashlib
import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What a GPU's driver puts there: NVIDIA's on Linux, below Windows (WSL), and AMD's.
GPU_DRIVERS = ("/proc/driver/nvidia", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_PACKAGES = ("torch", "triton", "numpy", "numba", "scipy", "safetensors", "bnn-harness")
_FLAGS = ("avx2", "avx512f", "avx512_vpopcntdq", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd")


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # a changed file may be in any encoding
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether tracked files differ from it (None: no checkout).

    ``BNN_COMMIT`` names the commit of a copy that has no checkout, or the checkout of another
    commit; whether files differ from it is not known.
    """
    if named := os.environ.get("BNN_COMMIT"):
        return named, None
    head = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    return head, None if status is None else bool(status)


@cache
def uncommitted() -> str | None:
    """Return a digest of what tracked files differ in from the commit; None where nothing does.

    As of the first call: later edits are not of the code that this process has loaded.
    """
    if os.environ.get("BNN_COMMIT"):
        return None
    found = _git("diff", "HEAD")
    return hashlib.sha256(found.encode()).hexdigest()[:12] if found else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_facts() -> tuple[str, list[str]]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), []
    text = info.read_text()
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    name = model.group(1).strip() if model else platform.machine()
    return name, [flag for flag in _FLAGS if flag in present]


def gpu_name() -> str | None:
    """Return the name of the GPU that torch runs on, None without one.

    Every process must say the same of a machine. Where no driver is, torch, which takes a second to
    import, is not asked.
    """
    if "torch" not in sys.modules and not any(Path(path).exists() for path in GPU_DRIVERS):
        return None
    torch = import_module("torch")
    if not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


def _memory_gb() -> float | None:
    try:
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return round(pages * page / 2**30, 1)


def machine_name() -> str:
    """Return a short slug for this machine, such as ``amd-epyc-2c`` or ``nvidia-h200``.

    Virtual processors of several generations call themselves alike, and kernels differ by their
    vectors: with AVX-512 it is ``amd-epyc-avx512-2c``. ``BNN_MACHINE`` overrides it.
    """
    given = os.environ.get("BNN_MACHINE")
    gpu = gpu_name()
    cpu, flags = _cpu_facts()
    wide = "-avx512" if "avx512f" in flags else ""
    name = given or gpu or f"{cpu}{wide}-{os.cpu_count()}c"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def machine() -> dict[str, Any]:
    """Return processor, cores, memory (GiB), instruction-set flags, GPU and operating system."""
    cpu, flags = _cpu_facts()
    return {
        "name": machine_name(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": _memory_gb(),
        "flags": flags,
        "gpu": gpu_name(),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


@cache
def _fixed() -> dict[str, Any]:
    head, dirty = commit()
    return {"commit": head, "dirty": dirty, "versions": versions()}


def provenance() -> dict[str, Any]:
    """Return commit, dirty flag, versions and machine as plain data for a result file."""
    return {**_fixed(), "machine": machine()}
