"""Every GPU kernel equals the plain reference, element by element; so do its fused layers."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import reference
from kernels.base import Kernel
from kernels.packing import Packed
from kernels.triton.kernels import kernels
from kernels.triton.pack import pack_rows
from tests.operands import OPERANDS, signs
from tests.triton.operands import INTERPRETED, layer, on_device

SLOW_HERE = ("naive", "naive-xnor")  # under the interpreter: a program for each 16 x 16 outputs
LENGTHS = (1, 31, 33, 64, 65, 128) if INTERPRETED else (1, 31, 32, 33, 63, 64, 65, 127, 128)
# The largest is two tiles each way: of 64 x 64 outputs, or 32 x 64; of 16 x 16 for the naive ones.
STRADDLING = ((0, 5, 70), (65, 66, 5)) if INTERPRETED else ((0, 5, 70), (17, 18, 33), (65, 66, 5))
SHAPES = st.tuples(st.integers(1, 16), st.integers(1, 16), st.integers(1, 70))


@pytest.fixture(params=kernels(), ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    found: Kernel = request.param
    reason = found.why_not()
    if reason is not None:
        pytest.skip(f"{found.name}: {reason}")
    return found


def packed(x: Tensor) -> Packed:
    return pack_rows(on_device(x))


def multiply(kernel: Kernel, a: Tensor, w: Tensor) -> Tensor:
    dots = kernel.product(kernel.activations(packed(a)), kernel.weights(packed(w)))
    assert dots.dtype in (torch.int32, torch.float32)
    return dots.to("cpu", torch.int32)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
def test_product_equals_the_reference(kernel: Kernel, k: int) -> None:
    kinds = list(OPERANDS) if not INTERPRETED else [list(OPERANDS)[LENGTHS.index(k) % 4]]
    for kind in kinds:
        a = OPERANDS[kind](5, k, 1)
        w = OPERANDS["one-hot" if kind == "one-hot" else "random"](7, k, 2)
        assert torch.equal(multiply(kernel, a, w), reference.gemm(a, w)), kind


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", STRADDLING, ids=lambda shape: "x".join(map(str, shape)))
def test_rows_and_columns_straddle_tiles(kernel: Kernel, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    a, w = signs(m, k, 3), signs(n, k, 4)
    assert torch.equal(multiply(kernel, a, w), reference.gemm(a, w))


def test_long_rows(kernel: Kernel) -> None:
    k = 130 if kernel.name in SLOW_HERE and INTERPRETED else 784
    a, w = signs(3, k, 5), signs(2, k, 6)
    assert torch.equal(multiply(kernel, a, w), reference.gemm(a, w))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("n", [1, 33], ids="N{}".format)
def test_two_layers_in_a_chain(kernel: Kernel, n: int) -> None:
    a, w, next_w = signs(4, 40, 7), signs(n, 40, 8), signs(3, n, 9)
    threshold, flip = layer(n, n)
    threshold[1:3] = torch.tensor([-(2**31), 2**31 - 1])[: n - 1]  # all and none, but for flips
    dots = reference.gemm(a, w)
    expected = reference.gemm(reference.threshold(dots, threshold, flip), next_w)
    operands = kernel.activations(packed(a)), kernel.weights(packed(w))
    bits = on_device(threshold), on_device(flip)
    second = kernel.weights(packed(next_w))
    ways = {
        "fused": kernel.product_bits(*operands, *bits),
        "from dots": kernel.activations_from_dots(kernel.product(*operands), *bits),
    }
    for way, hidden in ways.items():
        found = kernel.product(hidden, second).to("cpu", torch.int32)
        assert torch.equal(found, expected), way
        rows = packed(reference.threshold(dots, threshold, flip))
        assert torch.equal(kernel.packed_rows(hidden).words, rows.words), way


def batch_norm_sign(dots: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the ±1 values of sign(BN(dots)) in float64, sign(0) = +1."""
    values = gamma * (dots.double() - mean) / std + beta
    return 2 * (values >= 0).to(torch.int8) - 1


def test_fused_thresholds_equal_float64_batch_norm_and_sign(kernel: Kernel) -> None:
    """With powers of two float64 is exact, so that ties are ties."""
    n, k = 12, 9
    a, w, probe = signs(6, k, 10), signs(n, k, 11), torch.eye(n, dtype=torch.int8) * 2 - 1
    gamma = torch.tensor([1.0, -1.0, 0.0, 0.0, 0.5, -2.0], dtype=torch.float64).repeat(n // 6)
    beta = torch.tensor([0.0, 0.0, 1.0, -1.0, -1.0, 2.0], dtype=torch.float64).repeat(n // 6)
    dots = reference.gemm(a, w)
    mean, std = dots[0].double(), torch.full((n,), 2.0, dtype=torch.float64)  # ties in row 0
    c = mean - beta * std / torch.where(gamma == 0, 1.0, gamma)
    threshold = torch.where(gamma < 0, c.floor() + 1, c.ceil())
    threshold = torch.where(gamma == 0, torch.where(beta >= 0, -k - 1.0, k + 1.0), threshold)
    hidden = kernel.product_bits(
        kernel.activations(packed(a)),
        kernel.weights(packed(w)),
        on_device(threshold.to(torch.int32)),
        on_device(gamma < 0),
    )
    expected = batch_norm_sign(dots, gamma, beta, mean, std)
    assert (dots == c).any(), "no tie was tried"
    found = kernel.product(hidden, kernel.weights(packed(probe))).to("cpu", torch.int32)
    assert torch.equal(found, reference.gemm(expected, probe))


@settings(
    max_examples=1 if INTERPRETED else 50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(shape=SHAPES, seed=st.integers(0, 2**31))
def test_dots_are_bounded_have_k_parity_and_change_sign_with_an_operand(
    kernel: Kernel, shape: tuple[int, int, int], seed: int
) -> None:
    m, n, k = shape
    a, w = signs(m, k, seed), signs(n, k, seed + 1)
    dots = multiply(kernel, a, w)
    assert torch.equal(dots, reference.gemm(a, w))
    assert int(dots.abs().max()) <= k
    assert torch.equal(dots % 2, torch.full_like(dots, k % 2))
    assert torch.equal(multiply(kernel, -a, w), -dots)


def test_operands_are_left_as_they_were(kernel: Kernel) -> None:
    a, w = packed(signs(3, 70, 1)), packed(signs(2, 70, 2))
    before = a.words.clone(), w.words.clone()
    operands = kernel.activations(a), kernel.weights(w)
    assert torch.equal(kernel.product(*operands), kernel.product(*operands))
    assert torch.equal(a.words, before[0])
    assert torch.equal(w.words, before[1])


def test_real_activations_meet_the_same_dots(kernel: Kernel) -> None:
    a, w = signs(3, 65, 12), signs(4, 65, 13)
    operand = kernel.activations_from_real(on_device(a.to(torch.float32)))
    dots = kernel.product(operand, kernel.weights(packed(w)))
    assert torch.equal(dots.to("cpu", torch.int32), reference.gemm(a, w))


def test_wrong_operands_are_refused_by_name(kernel: Kernel) -> None:
    a, w = signs(4, 64, 1), signs(3, 65, 2)
    with pytest.raises(TypeError, match="activations must be Packed .* got Tensor"):
        kernel.activations(a)
    with pytest.raises(TypeError, match="weights must be Packed .* got list"):
        kernel.weights([])
    with pytest.raises(ValueError, match="on device meta; allowed"):
        kernel.weights(Packed(torch.empty(1, 1, dtype=torch.int64, device="meta"), 9))
    with pytest.raises(ValueError, match=r"K=64|\[rows, 65\], got \[4, 64\]"):
        multiply(kernel, a, w)
    operand = kernel.activations(packed(a))
    with pytest.raises(TypeError, match="got"):
        kernel.product(operand, "weights")
    same = kernel.weights(packed(a))
    wrong_flip = on_device(torch.zeros(4, dtype=torch.uint8))
    if kernel.fused:
        threshold = on_device(torch.zeros(4, dtype=torch.int32))
        with pytest.raises(TypeError, match=r"flip must be a torch.bool tensor, got torch.uint8"):
            kernel.product_bits(operand, same, threshold, wrong_flip)
        with pytest.raises(ValueError, match=r"threshold must have shape \[4\] on .*, got \[3\]"):
            kernel.product_bits(operand, same, threshold[:3], wrong_flip.bool())
