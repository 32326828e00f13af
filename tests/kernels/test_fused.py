"""A hidden layer in one call: product, integer threshold and flip, packed; against float64."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import reference, registry
from kernels.base import Kernel
from kernels.packing import Packed, pack_rows, unpack_rows
from tests.operands import signs


def on(kernel: Kernel, x: Tensor) -> Packed:
    return pack_rows(x).to(kernel.device)


def fold64(gamma: Tensor, beta: Tensor, mean: Tensor, std: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return threshold and flip of sign(gamma * (dot - mean) / std + beta), float64 throughout."""
    dots = torch.arange(-k - 1, k + 2, dtype=torch.float64)[:, None]
    fires = gamma * (dots - mean) / std + beta >= 0
    flip = fires[0] & ~fires[-1]
    changed = fires ^ flip  # False below the threshold, True from it on
    first = torch.where(changed.any(0), changed.to(torch.int8).argmax(0) - k - 1, k + 1)
    return first.to(torch.int32), flip


def signs_of(kernel: Kernel, a: Tensor, w: Tensor, threshold: Tensor, flip: Tensor) -> Tensor:
    """Return what the layer hands on, seen through a product with the identity's rows."""
    n = len(w)
    bits = kernel.product_bits(
        kernel.activations(on(kernel, a)),
        kernel.weights(on(kernel, w)),
        threshold.to(kernel.device),
        flip.to(kernel.device),
    )
    # Against all +1 and all +1 but the i-th: the dots differ by twice the i-th value.
    probe = 1 - 2 * torch.cat([torch.zeros(1, n), torch.eye(n)]).to(torch.int8)
    dots = kernel.product(bits, kernel.weights(on(kernel, probe))).to("cpu", torch.int32)
    return (dots[:, :1] - dots[:, 1:]) // 2


@pytest.mark.parametrize("k", [1, 63, 64, 65, 127, 784], ids="K{}".format)
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 130], ids="N{}".format)
def test_a_layer_equals_float64_batch_norm_and_sign(kernel: Kernel, n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n + k)
    a, w = signs(13, k, 1), signs(n, k, 2)
    gamma = torch.randn(n, generator=generator, dtype=torch.float64)
    gamma[::5] = 0.0
    beta = torch.randn(n, generator=generator, dtype=torch.float64)
    beta[::2] = 0.0  # the crossing is the mean itself, an integer: ties
    mean = torch.randint(-3, 4, (n,), generator=generator).double()
    std = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    threshold, flip = fold64(gamma, beta, mean, std, k)
    dots = reference.gemm(a, w).double()
    expected = 2 * (gamma * (dots - mean) / std + beta >= 0).int() - 1
    assert torch.equal(signs_of(kernel, a, w, threshold, flip), expected)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("m", [0, 1, 7, 100])
def test_two_layers_in_a_chain(
    kernel: Kernel, set_threads: Callable[[int], None], m: int, threads: int
) -> None:
    set_threads(threads)
    generator = torch.Generator().manual_seed(m)
    x: Tensor = signs(m, 200, 3)
    bits = kernel.activations(on(kernel, x)) if m else None
    for n, k, seed in ((130, 200, 4), (65, 130, 5)):
        w = signs(n, k, seed)
        threshold = torch.randint(-9, 10, (n,), dtype=torch.int32, generator=generator)
        flip = torch.randint(0, 2, (n,), generator=generator).bool()
        if bits is None:
            bits = kernel.activations(Packed(torch.empty(0, 4, dtype=torch.int64), 200))
        bits = kernel.product_bits(
            bits, kernel.weights(on(kernel, w)), threshold.to(kernel.device), flip.to(kernel.device)
        )
        x = reference.threshold(reference.gemm(x, w), threshold, flip)
    last = signs(10, 65, 6)
    found = kernel.product(bits, kernel.weights(on(kernel, last)))
    assert torch.equal(found.to("cpu", torch.int32), reference.gemm(x, last))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("n", [1, 9, 64, 70, 200], ids="N{}".format)
@pytest.mark.parametrize("m", [1, 3, 8, 17])
def test_packed_output_has_no_bit_beyond_its_row(m: int, n: int) -> None:
    xnor = registry.get("xnor-cpu")
    a, w = signs(m, 70, 7), signs(n, 70, 8)
    threshold = torch.full((n,), -99, dtype=torch.int32)  # every bit is 1 before the flip
    flip = torch.arange(n) % 3 == 0
    found = xnor.product_bits(pack_rows(a), xnor.weights(pack_rows(w)), threshold, flip)
    expected = reference.threshold(reference.gemm(a, w), threshold, flip)
    assert torch.equal(found.words, reference.pack(expected))
    assert torch.equal(unpack_rows(found, torch.int8), expected)


def test_wrong_thresholds_are_refused() -> None:
    xnor, a = registry.get("xnor-cpu"), pack_rows(signs(2, 65, 1))
    w, flip = xnor.weights(a), torch.zeros(2, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"threshold has dtype torch.int64; allowed: torch.int32"):
        xnor.product_bits(a, w, torch.zeros(2, dtype=torch.int64), flip)
    with pytest.raises(ValueError, match=r"flip must have shape \[2\] on cpu, got \[3\]"):
        zeros = torch.zeros(2, dtype=torch.int32)
        xnor.product_bits(a, w, zeros, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(TypeError, match="weights must be what xnor-cpu prepares, got Packed"):
        xnor.product_bits(a, a, torch.zeros(2, dtype=torch.int32), flip)
