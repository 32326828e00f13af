"""Every kernel by name. To add one: write its class in its own file and add its line here."""

from collections.abc import Iterable

from kernels.base import Kernel
from kernels.cpu.kernels import Naive, Xnor
from kernels.vendor import VendorBf16, VendorFp32, VendorInt8

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Naive(),
        Xnor(),
        VendorFp32(),
        VendorBf16(),
        VendorInt8(),
    )
}


def get(name: str) -> Kernel:
    """Return the kernel called ``name``.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in KERNELS:
        raise ValueError(f"no kernel {name!r}; allowed: {', '.join(KERNELS)}")
    return KERNELS[name]


def resolve(names: Iterable[str]) -> list[str]:
    """Return kernel names without repeats; ``all`` stands for every kernel.

    Raises:
        ValueError: a name that there is not; the message lists those there are.
    """
    found: list[str] = []
    for name in names:
        found += KERNELS if name == "all" else [get(name).name]
    return list(dict.fromkeys(found))


def baseline() -> Kernel:
    """Return the one kernel that others are compared with."""
    (kernel,) = (kernel for kernel in KERNELS.values() if kernel.baseline)
    return kernel
