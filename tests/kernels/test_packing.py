"""The bit convention: values, tails, -0.0, NaN, dtypes, thresholds, and what is refused."""

from typing import Any

import pytest
import torch

from kernels import reference
from kernels.packing import Packed, pack_rows, pack_threshold, unpack_rows, words_for

LENGTHS = (1, 31, 32, 33, 63, 64, 65, 127, 128, 784)
INFINITY = float("inf")


def reals(rows: int, k: int) -> torch.Tensor:
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(k))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
def test_words_equal_the_reference_and_come_back(k: int) -> None:
    x = reals(5, k)
    p = pack_rows(x)
    assert torch.equal(p.words, reference.pack(x))
    assert (p.rows, p.k, p.words.shape[1]) == (5, k, words_for(k))
    signs = 2 * (x >= 0).to(torch.float32) - 1
    assert torch.equal(unpack_rows(p), signs)
    assert torch.equal(unpack_rows(p, torch.int8), signs.to(torch.int8))


@pytest.mark.parametrize("k", LENGTHS, ids="K{}".format)
def test_pad_bits_are_0(k: int) -> None:
    last = pack_rows(torch.ones(3, k)).words[:, -1]
    used = (k - 1) % 64 + 1
    expected = -1 if used == 64 else 2**used - 1
    assert last.tolist() == [expected] * 3


@pytest.mark.parametrize("k", [4, 64, 68])
def test_zeros_nan_and_infinities(k: int) -> None:
    x = torch.tensor([0.0, -0.0, float("nan"), -INFINITY]).repeat(1, k // 4)
    assert unpack_rows(pack_rows(x)).tolist() == [[1, 1, -1, -1] * (k // 4)]
    assert torch.equal(pack_rows(x).words, reference.pack(x))


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32],
    ids=str,
)
def test_every_dtype_packs_alike(dtype: torch.dtype) -> None:
    x = reals(3, 70).mul(5).round()
    assert torch.equal(pack_rows(x.to(dtype)).words, pack_rows(x).words)


def test_bools_are_bits_and_strides_do_not_matter() -> None:
    x = reals(6, 130)
    assert torch.equal(pack_rows(x >= 0).words, pack_rows(x).words)
    assert torch.equal(pack_rows(x.T[::2]).words, pack_rows(x.T[::2].contiguous()).words)
    assert pack_rows(torch.empty(0, 65)).words.shape == (0, 2)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("n", [1, 63, 64, 65, 200], ids="N{}".format)
@pytest.mark.parametrize("dtype", [torch.int32, torch.float32], ids=str)
def test_thresholds_equal_the_reference(n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    dots = torch.randint(-9, 10, (17, n), dtype=torch.int32, generator=generator)
    threshold = torch.randint(-9, 10, (n,), dtype=torch.int32, generator=generator)
    flip = torch.randint(0, 2, (n,), generator=generator).bool()
    packed = pack_threshold(dots.to(dtype), threshold, flip)
    signs = reference.threshold(dots, threshold, flip)
    assert torch.equal(packed.words, reference.pack(signs))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "x must be a torch tensor, got list"),
        (torch.zeros(2, 2, dtype=torch.uint8), TypeError, "torch.uint8; allowed: torch.float16"),
        (torch.zeros(2), ValueError, r"\[rows, K\] with K >= 1, got \[2\]"),
        (torch.zeros(2, 0), ValueError, r"got \[2, 0\]"),
        (
            torch.zeros(2, 2, device="meta"),
            ValueError,
            "on device meta; packing runs on: cpu, cuda",
        ),
    ],
    ids=["list", "uint8", "vector", "no-columns", "device"],
)
def test_pack_rows_refuses(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pack_rows(x)


@pytest.mark.parametrize(
    ("words", "k", "segments", "error", "message"),
    [
        (torch.zeros(1, 1), 1, 1, TypeError, "torch.int64 tensor, got torch.float32"),
        (torch.zeros(1, 1, dtype=torch.int64), 65, 1, ValueError, r"\[rows, 2\], got \[1, 1\]"),
        (torch.zeros(1, 9, dtype=torch.int64), 10, 9, ValueError, "multiple of segments"),
        (torch.zeros(2, 2, dtype=torch.int64).T, 65, 1, ValueError, "contiguous"),
    ],
    ids=["dtype", "width", "segments", "strides"],
)
def test_packed_refuses(
    words: torch.Tensor, k: int, segments: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Packed(words, k, segments)


def test_pack_threshold_refuses() -> None:
    dots, flip = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"threshold has dtype torch.float32; allowed: torch.int32"):
        pack_threshold(dots, torch.zeros(3), flip)
    with pytest.raises(ValueError, match=r"threshold must have shape \[3\] on cpu, got \[2\]"):
        pack_threshold(dots, torch.zeros(2, dtype=torch.int32), flip)
