"""Correctness first: every kernel on a compact grid of products, before anything is clocked.

What a kernel can do wrong and random squares would not show: a bit taken from another place of K
(one-hot bits, every position), tails of M, N and K that a tile or a word does not divide, sums at
both ends of their range (all ones, all minus ones), and packed output.
"""

import time
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from harness.bench.gate import NoTimeError, check_dots
from harness.bench.positions import POSITIONS, first_wrong_position
from harness.text import said
from kernels import reference
from kernels.base import Kernel
from kernels.packing import pack_rows

# Few classes of sizes (1, odd, multiples of 16), for each of which Triton compiles anew; K
# straddles words of 32 and 64 bits and steps of 64 bytes, M and N tiles of 16, 64, 128 and 256.
SHAPES = (
    (1, 10, 784), (3, 33, 1), (17, 33, 31), (17, 33, 33), (17, 33, 63), (129, 257, 65),
    (17, 33, 127), (17, 129, 1153), (64, 128, 64), (64, 128, 1152), (64, 128, 4096),
)  # fmt: skip
KINDS = ("random", "ones", "minus-ones", "one-hot")
BITS_SHAPE = (129, 257, 65)  # of the product whose packed output is compared
PROBES = 33  # rows that it is multiplied with: odd, as all sizes of that shape


@dataclass(frozen=True)
class Verdict:
    """What the stage found of one kernel.

    Attributes:
        kernel: its name.
        device: its device.
        status: "ok", "wrong", "failed" or "unavailable".
        reason: why not "ok".
        products: that were compared element by element.
        positions: of a one-hot bit along K that were compared.
        seconds: the check took, compilation among them.
    """

    kernel: str
    device: str
    status: str
    reason: str | None
    products: int
    positions: int
    seconds: float

    @property
    def row(self) -> dict[str, object]:
        """The verdict as a row of the file."""
        return asdict(self)


def signs(kind: str, rows: int, k: int, seed: int) -> Tensor:
    """Return int8 ±1 [rows, k] of one of ``KINDS``; one-hot: one +1 a row, from the last place."""
    if kind == "random":
        generator = torch.Generator().manual_seed(seed)
        return 2 * torch.randint(0, 2, (rows, k), generator=generator, dtype=torch.int8) - 1
    if kind != "one-hot":
        return torch.full((rows, k), 1 if kind == "ones" else -1, dtype=torch.int8)
    found = torch.full((rows, k), -1, dtype=torch.int8)
    found[torch.arange(rows), (k - 1 - torch.arange(rows) - seed) % k] = 1
    return found


def _check(what: str, dots: Tensor, expected: Tensor) -> None:
    try:
        check_dots(dots, expected)
    except NoTimeError as error:
        raise NoTimeError("wrong", f"{what}: {error.reason}") from error


def _check_shape(kernel: Kernel, shape: tuple[int, int, int]) -> int:
    """Compare the products of one shape; return how many."""
    m, n, k = shape
    others = "one-hot", "random"
    for kind in KINDS:
        a, w = signs(kind, m, k, 1), signs(others[kind != "one-hot"], n, k, 2)
        operands = [pack_rows(x).to(kernel.device) for x in (a, w)]
        dots = kernel.product(kernel.activations(operands[0]), kernel.weights(operands[1]))
        _check(f"{kind} operands of {m} x {n} x {k}", dots, reference.gemm(a, w))
    return len(KINDS)


def _check_bits(kernel: Kernel, shape: tuple[int, int, int]) -> int:
    """Compare packed output, through a product with a few rows more; return how many products."""
    m, n, k = shape
    a, w, probe = signs("random", m, k, 3), signs("random", n, k, 4), signs("random", PROBES, n, 5)
    generator = torch.Generator().manual_seed(6)
    threshold = (k**0.5 * torch.randn(n, generator=generator)).round().int()
    flip = torch.randint(0, 2, (n,), generator=generator).bool()
    packed = [pack_rows(x).to(kernel.device) for x in (a, w, probe)]
    hidden = kernel.product_bits(
        kernel.activations(packed[0]),
        kernel.weights(packed[1]),
        threshold.to(kernel.device),
        flip.to(kernel.device),
    )
    expected = reference.threshold(reference.gemm(a, w), threshold, flip)
    dots = kernel.product(hidden, kernel.weights(packed[2]))
    _check(f"bits of {m} x {n} x {k}", dots, reference.gemm(expected, probe))
    return 1


def check_kernel(kernel: Kernel) -> Verdict:
    """Hold ``kernel`` against the reference on the whole grid; stop at the first difference.

    Whatever the kernel raises is its verdict.
    """
    began, products, positions = time.perf_counter(), 0, 0
    status, reason = "ok", None
    try:
        for shape in SHAPES:
            why = kernel.why_not(*shape)
            if why is not None:
                raise NoTimeError("unavailable", why)
            products += _check_shape(kernel, shape)
        products += _check_bits(kernel, BITS_SHAPE)
        wrong = first_wrong_position(kernel)
        if wrong is not None:
            raise NoTimeError("wrong", wrong)
        positions = POSITIONS
    except NoTimeError as error:
        status, reason = error.status, error.reason
    except Exception as error:  # a verdict: every failure is an answer
        status, reason = "failed", said(error)
    seconds = round(time.perf_counter() - began, 3)
    return Verdict(kernel.name, kernel.device, status, reason, products, positions, seconds)
