"""The checks that a bench runs before any clock, on the GPU kernels."""

import pytest

from harness.bench import correctness
from kernels.base import Kernel
from kernels.triton.device import DEVICE
from kernels.triton.kernels import kernels
from kernels.triton.naive import NaiveXnor
from tests.triton.operands import INTERPRETED

SMALL = ((1, 10, 33), (3, 17, 65))  # under the interpreter, a program at a time


@pytest.fixture(autouse=True)
def where_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        monkeypatch.setattr(correctness, "SHAPES", SMALL)
        monkeypatch.setattr(correctness, "BITS_SHAPE", SMALL[-1])
        monkeypatch.setattr(correctness, "first_wrong_position", lambda kernel: None)
    for kernel in kernels():
        monkeypatch.setattr(type(kernel), "device", DEVICE)


@pytest.mark.parametrize("kernel", kernels(), ids=lambda kernel: kernel.name)
def test_every_kernel_is_sound(kernel: Kernel) -> None:
    reason = kernel.why_not()
    if reason is not None:
        pytest.skip(reason)
    verdict = correctness.check_kernel(kernel)
    assert (verdict.status, verdict.reason) == ("ok", None)
    assert verdict.products == len(correctness.SHAPES) * len(correctness.KINDS) + 1


def test_a_kernel_that_loses_packed_output_is_found() -> None:
    class Loses(NaiveXnor):
        def product_bits(self, a, w, threshold, flip):  # type: ignore[no-untyped-def]
            return super().product_bits(a, w, threshold, ~flip)

    verdict = correctness.check_kernel(Loses())
    assert verdict.status == "wrong"
    assert str(verdict.reason).startswith("bits of ")
