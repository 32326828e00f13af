"""Every kernel in turn, poisoned allocations, and thread counts."""

from collections.abc import Callable, Iterator

import numba
import pytest
import torch
from torch import Tensor

from kernels import firstlayer, registry
from kernels.base import Kernel
from kernels.cpu import pixels
from kernels.cpu.threads import set_threads as both
from kernels.cpu.vectors import AVX2, VBMI

POISON = -77_777


@pytest.fixture(params=registry.names_on("cpu"))  # those of a GPU: tests/triton
def kernel(request: pytest.FixtureRequest) -> Kernel:
    found = registry.get(request.param)
    reason = found.why_not()
    if reason is not None:
        pytest.skip(f"{found.name} on {found.device}: {reason}")
    return found


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every empty tensor hold sentinels, so that an element left unwritten shows."""
    empty = torch.empty

    def allocate(*size: int, **options: object) -> Tensor:
        return empty(*size, **options).fill_(POISON)  # type: ignore[call-overload]

    monkeypatch.setattr(torch, "empty", allocate)


@pytest.fixture
def pixel_tables(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets pixels go by tables of 16 or 64, or, for 0, by int8 products."""

    def choose(entries: int) -> None:
        needed = {0: True, 16: AVX2, 64: VBMI}
        if not needed[entries]:
            pytest.skip(f"no tables of {entries} on this processor")
        monkeypatch.setattr(pixels, "VBMI", entries == 64)
        monkeypatch.setattr(firstlayer, "pixels_by_tables", lambda: entries > 0)

    return choose


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Return a function that sizes both thread pools; they are as before at the end."""
    before = torch.get_num_threads(), numba.get_num_threads()

    def set_both(count: int) -> None:
        if count > numba.config.NUMBA_NUM_THREADS:
            pytest.skip(f"this machine has fewer than {count} cores")
        both(count)

    yield set_both
    numba.set_num_threads(before[1])
    torch.set_num_threads(before[0])
