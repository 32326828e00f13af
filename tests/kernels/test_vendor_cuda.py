"""The GPU's vendor lines: their operands on any machine, their products where a device can."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from kernels import reference
from kernels.packing import Packed, pack_rows
from kernels.precision import float32_precision
from kernels.vendor_cuda import (
    Values,
    VendorCuda,
    VendorInt8,
    vendor_kernels,
)
from tests.operands import signs

KERNELS = {kernel.name: kernel for kernel in vendor_kernels() if isinstance(kernel, VendorCuda)}
SHAPES = ((0, 3, 5), (1, 1, 1), (3, 10, 31), (17, 33, 784))
FP8 = ("vendor-fp8", "vendor-fp8-fast")
ON_CPU = ("vendor-fp32", "vendor-tf32", "vendor-int8", *FP8)  # torch multiplies so there
OLD = {"vendor-tf32": (7, 5), "vendor-bf16": (7, 5), "vendor-int8": (7, 0)}
OLD |= dict.fromkeys(FP8, (8, 6))


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let the kernels take operands of the CPU where there is no GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(VendorCuda, "device", device)
    yield device


def packed(x: Tensor, device: str) -> Packed:
    return pack_rows(x).to(device)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_adds_nothing(name: str, shape: tuple[int, int, int], anywhere: str) -> None:
    m, n, k = shape
    kernel = KERNELS[name]
    a, w = signs(m, k, 1), signs(n, k, 2)
    left, right = kernel.activations(packed(a, anywhere)), kernel.weights(packed(w, anywhere))
    assert (left.rows, left.k, right.rows, right.k) == (m, k, n, k)
    assert left.padded.dtype == right.padded.dtype == kernel.dtype
    assert len(left.padded) >= kernel.least_rows
    assert left.padded.shape[1] % kernel.step == len(right.padded) % kernel.step == 0
    sums = reference.gemm(left.padded.float().cpu(), right.padded.float().cpu())
    assert torch.equal(sums[:m, :n], reference.gemm(a, w))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_the_reference(
    name: str, shape: tuple[int, int, int], anywhere: str
) -> None:
    if anywhere == "cpu" and name not in ON_CPU:
        pytest.skip("torch gives this product a float32 output on CUDA alone")
    reason = KERNELS[name].why_not() if anywhere == "cuda" else None
    if reason is not None:
        pytest.skip(reason)
    m, n, k = shape
    kernel, a, w = KERNELS[name], signs(m, k, 1), signs(n, k, 2)
    right = kernel.weights(packed(w, anywhere))
    real = kernel.activations_from_real(a.float().to(anywhere))
    for left in (kernel.activations(packed(a, anywhere)), real):
        dots = kernel.product(left, right)
        assert dots.dtype in (torch.int32, torch.float32)
        assert torch.equal(dots.to("cpu", torch.int32), reference.gemm(a, w))
    threshold = torch.zeros(n, dtype=torch.int32)
    flip = torch.arange(n) % 2 == 0
    hidden = kernel.product_bits(real, right, threshold.to(anywhere), flip.to(anywhere))
    expected = reference.threshold(reference.gemm(a, w), threshold, flip)
    assert torch.equal(hidden.padded[:m, :n].float().cpu(), expected.float())


@pytest.mark.parametrize("name", KERNELS)
def test_torch_takes_the_call_where_only_shapes_are_computed(name: str) -> None:
    """The calls are torch's own for CUDA: on the device meta they are checked and not computed."""
    kernel = KERNELS[name]
    a, w = (torch.empty(rows, 64, dtype=kernel.dtype, device="meta") for rows in (48, 32))
    dots = kernel._multiply(a, w)
    kind = torch.int32 if kernel.dtype == torch.int8 else torch.float32
    assert (tuple(dots.shape), dots.dtype) == ((48, 32), kind)


def test_pixels_by_int8(anywhere: str) -> None:
    generator = torch.Generator().manual_seed(3)
    u = torch.randint(0, 256, (5, 784), dtype=torch.uint8, generator=generator)
    w = signs(10, 784, 4)
    found = VendorInt8().on_pixels(packed(w, anywhere))(u.to(anywhere))
    expected = (2 * u.to(torch.int64) - 255) @ w.to(torch.int64).T
    assert torch.equal(found.cpu().to(torch.int64), expected)


@pytest.mark.parametrize("name", KERNELS)
def test_each_says_why_it_cannot_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = KERNELS[name]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernel.why_not() == "torch finds no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    assert kernel.why_not() is None
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "triton is not installed" in str(kernel.why_not()), "it unpacks the operands"
    if name in OLD:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: OLD[name])
        major, minor = OLD[name]
        assert f"or higher, this GPU has {major}.{minor}" in str(kernel.why_not())


def test_the_precision_of_float32_is_as_before_afterwards() -> None:
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    with float32_precision("tf32"):
        assert settings.fp32_precision == "tf32"
        with float32_precision("ieee"):
            assert settings.fp32_precision == "ieee"
        assert settings.fp32_precision == "tf32"
    assert settings.fp32_precision == before


def test_wrong_operands_are_refused(anywhere: str) -> None:
    def make(k: int) -> Values:
        return VendorInt8().weights(packed(signs(2, k, 1), anywhere))

    with pytest.raises(ValueError, match="activations have K=64, the weights K=65"):
        VendorInt8().product(make(64), make(65))
    with pytest.raises(TypeError, match="activations must be what vendor-fp32's"):
        KERNELS["vendor-fp32"].product(make(64), make(64))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="weights must be Packed"):
        VendorInt8().weights(torch.ones(1, 1))  # type: ignore[arg-type]
