"""The checks that a bench runs before any clock, on the GPU kernels and bounds."""

import pytest

from harness.bench import ceilings_gpu, correctness
from harness.bench.gate import NoTimeError
from kernels.base import Kernel
from kernels.triton import peaks
from kernels.triton.device import DEVICE, processors
from kernels.triton.kernels import kernels
from kernels.triton.naive import NaiveXnor
from tests.triton.operands import HOPPER_REASON, INTERPRETED

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


@pytest.mark.skipif(HOPPER_REASON is not None, reason=str(HOPPER_REASON))
def test_the_bound_of_single_bits_is_checked_against_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ceilings_gpu, "BIT_REPEATS", 3)
    bound = ceilings_gpu._tensor_bits()
    bound.run()
    assert bound.check is not None
    bound.check()
    assert bound.ops == peaks.bit_ops(processors(), 3)
    monkeypatch.setattr(ceilings_gpu, "BIT_REPEATS", 4)
    with pytest.raises(NoTimeError, match="popcounts differ"):
        bound.check()


@pytest.mark.parametrize("form", ceilings_gpu.WORDS.values())
def test_the_bounds_of_words_run(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(ceilings_gpu, "WORD_REPEATS", 2)
    monkeypatch.setattr(ceilings_gpu, "PROGRAMS_A_PROCESSOR", 1)
    bound = ceilings_gpu._words(form)
    bound.run()
    assert bound.ops == 64 * processors() * peaks.LANES * peaks.STEPS * 2
