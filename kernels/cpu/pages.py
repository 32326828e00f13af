"""Memory for large results, in huge pages where the system has them, and used again.

A result of 32 MiB and more would be mapped anew at each call, one of half of that whenever the
allocator has given its memory back. The system hands fresh memory out page by page, as zeros: 64
MiB take 10 to 20 ms at 4 KiB a page and 7 at 2 MiB, beside 57 for the product of 4096 x 4096 x 4096
that fills them; the 25 MiB of a ConvNet's first gradient 7.5 beside 4 (Zen 4). What a result that
nobody holds any more lay in is therefore kept for the next of its size.
"""

import mmap
import weakref
from contextlib import suppress

import numpy as np
import torch

LARGE_BYTES = 1 << 24  # the allocator mostly reuses what is smaller
KEPT_BYTES = 1 << 28  # at most so much lies idle
_idle: list[mmap.mmap] = []  # the longest idle first


def _map(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # advice: a system without huge pages says no, small ones serve
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _take(size: int) -> mmap.mmap:
    """Return memory of ``size`` bytes: idle if there is some, else fresh."""
    for memory in list(_idle):
        if len(memory) == size:
            try:
                _idle.remove(memory)
            except ValueError:  # another thread was faster
                continue
            return memory
    return _map(size)


def _give_back(memory: mmap.mmap) -> None:
    if len(memory) <= KEPT_BYTES:
        _idle.append(memory)
        while sum(map(len, list(_idle))) > KEPT_BYTES:
            _idle.pop(0)


def empty(rows: int, columns: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Return an uninitialized tensor [rows, columns]."""
    size = rows * columns * dtype.itemsize
    if size < LARGE_BYTES:
        return torch.empty(rows, columns, dtype=dtype)
    memory = _take(size)
    octets = np.frombuffer(memory, dtype=np.uint8)  # torch holds it as long as a view lives
    weakref.finalize(octets, _give_back, memory).atexit = False
    return torch.frombuffer(octets, dtype=dtype).view(rows, columns)
