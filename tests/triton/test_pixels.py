"""8-bit pixels times ±1 weights on the GPU, against int64."""

import pytest
import torch
from torch import Tensor

from kernels import reference
from kernels.base import Kernel
from kernels.triton import pixels
from kernels.triton.pack import pack_rows
from kernels.triton.tensor import XnorTensor
from kernels.triton.xnor import XnorCsa
from tests.operands import signs
from tests.triton.operands import layer, on_device


def operands(m: int, n: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    u = torch.randint(0, 256, (m, k), dtype=torch.uint8, generator=generator)
    u[:1] = 0
    u[1:2] = 255
    w = signs(n, k, k + 1)
    return u, w, (2 * u.to(torch.int64) - 255) @ w.to(torch.int64).T


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    "shape",
    [(0, 3, 27), (1, 1, 1), (17, 10, 27), (2, 33, 64), (33, 5, 65), (3, 10, 300)],
    ids=lambda shape: "x".join(map(str, shape)),
)
def test_dots_equal_int64(shape: tuple[int, int, int]) -> None:
    u, w, expected = operands(*shape)
    found = pixels.PixelsInt8(pack_rows(on_device(w))).product(on_device(u))
    assert found.dtype == torch.int32
    assert torch.equal(found.cpu().to(torch.int64), expected)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("n", [70], ids="N{}".format)
def test_bits_of_the_layer_in_one_pass(n: int) -> None:
    u, w, dots = operands(9, n, 100)
    threshold, flip = layer(n, n, 2000)
    found = pixels.PixelsInt8(pack_rows(on_device(w))).product_words(
        on_device(u), on_device(threshold), on_device(flip)
    )
    words = reference.pack(reference.threshold(dots, threshold, flip)).view(torch.int32)
    assert torch.equal(found[:, : words.shape[1]].cpu(), words)
    assert not found[:, words.shape[1] :].any()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("kernel", [XnorTensor(), XnorCsa()], ids=lambda kernel: kernel.name)
def test_a_network_from_pixels_on(kernel: Kernel) -> None:
    reason = kernel.why_not()
    if reason is not None:
        pytest.skip(reason)
    u, w, dots = operands(5, 35, 90)
    threshold, flip = layer(35, 3, 2000)
    first = kernel.bits_on_pixels(pack_rows(on_device(w)))
    hidden = first(on_device(u), on_device(threshold), on_device(flip))
    last = signs(4, 35, 8)
    found = kernel.product(hidden, kernel.weights(pack_rows(on_device(last))))
    expected = reference.gemm(reference.threshold(dots, threshold, flip), last)
    assert torch.equal(found.cpu(), expected)


def test_wrong_pixels_are_refused() -> None:
    u, w, _ = operands(2, 3, 65)
    product = pixels.PixelsInt8(pack_rows(on_device(w))).product
    with pytest.raises(TypeError, match=r"torch.uint8 tensor, got torch.float32"):
        product(on_device(u.float()))
    with pytest.raises(ValueError, match=r"shape \[rows, 65\], got \[2, 64\]"):
        product(on_device(u[:, :64]))
    with pytest.raises(ValueError, match="on device meta; allowed"):
        product(u.to("meta"))
