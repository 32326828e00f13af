"""One number of threads for torch and numba."""

import os
from importlib.util import find_spec

import torch


def available_threads() -> int:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int) -> None:
    """Let torch and, where it is installed, numba work on ``count`` threads each.

    numba takes its own most where that is fewer. It comes first: its first call starts its pool,
    which sets OpenMP's number of threads, and with it torch's, to numba's default.
    """
    if find_spec("numba") is not None:
        import numba

        most = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(min(count, most))
    torch.set_num_threads(count)


def follow_torch() -> None:
    """Let numba work on as many threads as torch does now."""
    set_threads(torch.get_num_threads())
