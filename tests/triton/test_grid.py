"""The whole grid of sizes and operands, on a GPU."""

import pytest
import torch

from kernels.base import Kernel
from kernels.packing import Packed
from kernels.triton.kernels import kernels
from kernels.triton.pack import pack_rows
from tests.operands import OPERANDS, one_hot
from tests.triton.operands import INTERPRETED, on_device

if INTERPRETED:
    reason = "the whole grid needs a CUDA device: the interpreter would take hours"
    pytest.skip(reason, allow_module_level=True)

FULL_ROWS, FULL_OUTPUTS = (0, 1, 3, 17, 100, 10_000), (1, 10, 1000, 4096)
FULL_LENGTHS = (1, 31, 32, 33, 63, 64, 65, 127, 128, 784, 1152, 4096, 8192)


@pytest.fixture(params=kernels(), ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    found: Kernel = request.param
    reason = found.why_not()
    if reason is not None:
        pytest.skip(f"{found.name}: {reason}")
    return found


def packed(x: torch.Tensor) -> Packed:
    return pack_rows(on_device(x))


@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", FULL_LENGTHS, ids="K{}".format)
@pytest.mark.parametrize("kind", OPERANDS)
def test_the_whole_grid(kernel: Kernel, kind: str, k: int) -> None:
    a = OPERANDS[kind](max(FULL_ROWS), k, 1)
    w = OPERANDS["one-hot" if kind == "one-hot" else "random"](max(FULL_OUTPUTS), k, 2)
    exact = on_device(a).double() @ on_device(w).double().T
    for m in FULL_ROWS:
        for n in FULL_OUTPUTS:
            operands = kernel.activations(packed(a[:m])), kernel.weights(packed(w[:n]))
            assert torch.equal(kernel.product(*operands).double(), exact[:m, :n]), f"M={m}, N={n}"


@pytest.mark.gpu
def test_one_hot_bits_at_every_position_of_k(kernel: Kernel) -> None:
    k = 8192
    a, w = one_hot(k, k, 0), one_hot(64, k, 0)
    operands = kernel.activations(packed(a)), kernel.weights(packed(w))
    expected = torch.full((k, 64), k - 4, dtype=torch.int32)
    expected[torch.arange(64), torch.arange(64)] = k
    assert torch.equal(kernel.product(*operands).to("cpu", torch.int32), expected)
