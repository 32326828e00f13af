"""Fresh memory for large results, in huge pages where the system has them.

A result of 32 MiB and more is mapped anew at each call, and the system hands it out page by page:
at 4 KiB a page that takes longer than a product of K = 1024.
"""

import ctypes
import mmap
from functools import cache
from typing import Any

import torch

LARGE_BYTES = 1 << 25  # glibc keeps and reuses what is smaller


@cache
def _madvise() -> Any:
    """Return the C library's ``madvise``, or None where there are no huge pages to ask for."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    found = ctypes.CDLL(None).madvise
    found.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found


def empty(rows: int, columns: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Return an uninitialized tensor [rows, columns]."""
    out = torch.empty(rows, columns, dtype=dtype)
    size = out.numel() * out.element_size()
    if size >= LARGE_BYTES and _madvise() is not None:
        begin = -(-out.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (out.data_ptr() + size) // mmap.PAGESIZE * mmap.PAGESIZE
        # Advice: a system without huge pages says no, and small ones serve.
        _madvise()(begin, end - begin, mmap.MADV_HUGEPAGE)
    return out
