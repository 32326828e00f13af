"""Every kernel by name and device. To add one: write its class in its own file and its line here.

A name may exist on several devices (``naive`` on the CPU and on a GPU); each device has exactly one
baseline.
"""

from collections.abc import Iterable

from kernels.base import Kernel
from kernels.cpu.kernels import Naive, XnorCpu
from kernels.cuda.shared import NaiveShared, NaiveSharedXnor
from kernels.gpu import gpu_kernels
from kernels.vendor import VendorBf16, VendorFp32, VendorInt8
from kernels.vendor_cuda import vendor_kernels

DEVICES = ("cpu", "cuda")
KERNELS: dict[tuple[str, str], Kernel] = {
    (kernel.name, kernel.device): kernel
    for kernel in (
        Naive(),
        XnorCpu(),
        VendorFp32(),
        VendorBf16(),
        VendorInt8(),
        *gpu_kernels(),
        NaiveShared(),
        NaiveSharedXnor(),
        *vendor_kernels(),
    )
}


def names_on(device: str) -> list[str]:
    """Return the names of the kernels of a device, in the registry's order."""
    return [name for name, place in KERNELS if place == device]


def get(name: str, device: str = "cpu") -> Kernel:
    """Return the kernel called ``name`` on ``device``.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if device not in DEVICES:
        raise ValueError(f"no device {device!r}; allowed: {', '.join(DEVICES)}")
    if (name, device) in KERNELS:
        return KERNELS[name, device]
    elsewhere = [place for known, place in KERNELS if known == name]
    hint = f" (it runs on {', '.join(elsewhere)})" if elsewhere else ""
    allowed = ", ".join(names_on(device)) or "none"
    raise ValueError(f"no kernel {name!r} on {device}{hint}; allowed: {allowed}")


def resolve(names: Iterable[str], device: str = "cpu") -> list[str]:
    """Return kernel names of ``device`` without repeats; ``all`` stands for every one it has.

    Raises:
        ValueError: a name that the device does not have; the message lists those it has.
    """
    found: list[str] = []
    for name in names:
        found += names_on(device) if name == "all" else [get(name, device).name]
    return list(dict.fromkeys(found))


def device_for(names: Iterable[str], wanted: str = "auto") -> str:
    """Return the device to run ``names`` on: ``wanted``, or for ``auto`` the first that has all.

    ``auto`` tries the GPU first where torch sees one, and last where it sees none.

    Raises:
        ValueError: an unknown device or name, or no device that has all the names.
    """
    named = [name for name in names if name != "all"]
    if wanted != "auto":
        if wanted not in DEVICES:
            raise ValueError(f"no device {wanted!r}; allowed: auto, {', '.join(DEVICES)}")
        resolve(named, wanted)
        return wanted
    import torch

    order = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu", "cuda")
    for device in order:
        if all((name, device) in KERNELS for name in named):
            return device
    known = {name for name, _ in KERNELS}
    unknown = [name for name in named if name not in known]
    if unknown:
        allowed = ", ".join(dict.fromkeys(name for name, _ in KERNELS))
        raise ValueError(f"no kernel {unknown[0]!r}; allowed: all, {allowed}")
    raise ValueError(f"no device has all of {', '.join(named)}; name kernels of one device")


def baseline(device: str = "cpu") -> Kernel:
    """Return the one kernel of ``device`` that its others are compared with."""
    (kernel,) = (k for (_, place), k in KERNELS.items() if place == device and k.baseline)
    return kernel
