"""Where the Triton kernels run: a CUDA device, or the CPU under Triton's interpreter.

``TRITON_INTERPRET=1``, set before the first import of triton, runs each kernel as NumPy on CPU
tensors: slow, and exact. What the interpreter lacks (inline assembly, tensor cores) takes another
path there, chosen by ``INTERPRETED``.
"""

from dataclasses import dataclass
from functools import cache

import torch
import triton

INTERPRETED = bool(triton.knobs.runtime.interpret)
DEVICE = "cpu" if INTERPRETED else "cuda"
HOPPER = (9, 0)


@dataclass(frozen=True)
class Gpu:
    """What kernels are compiled for: a compute capability, and a number of multiprocessors."""

    capability: tuple[int, int]
    processors: int


_elsewhere: Gpu | None = None


def compile_for(gpu: Gpu | None) -> None:
    """Take ``gpu`` for the one that is here, in a process that compiles and launches nothing."""
    global _elsewhere
    _elsewhere = gpu
    why_no_gpu.cache_clear()
    processors.cache_clear()


def gpu_here() -> Gpu:
    """Return what torch says of the GPU of this machine."""
    found = torch.cuda.get_device_properties("cuda")
    return Gpu((int(found.major), int(found.minor)), int(found.multi_processor_count))


@cache
def why_no_gpu(capability: tuple[int, int] | None = None, exactly: bool = False) -> str | None:
    """Return why no kernel that needs ``capability`` runs here; None if it does.

    Args:
        capability: the lowest compute capability, or with ``exactly`` the only one.
        exactly: instructions of one architecture, which later ones dropped.
    """
    if INTERPRETED:
        return None
    if _elsewhere is None and not torch.cuda.is_available():
        return "torch finds no CUDA device"
    found = (_elsewhere or gpu_here()).capability
    if capability is None or (found == capability if exactly else found >= capability):
        return None
    major, minor = capability
    more = "" if exactly else " or higher"
    return f"needs compute capability {major}.{minor}{more}, this GPU has {found[0]}.{found[1]}"


@cache
def processors() -> int:
    """Return the number of streaming multiprocessors (1 under the interpreter)."""
    if INTERPRETED:
        return 1
    return (_elsewhere or gpu_here()).processors
