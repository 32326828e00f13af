"""What a GPU can do at most: copies, the library's products, and the rates of its bit units."""

from functools import partial

import torch

from harness.bench.ceilings import Bound, Ceiling, copy
from harness.bench.gate import NoTimeError
from harness.bench.operands import random_signs
from harness.bench.subject import nbytes
from kernels import registry

SIZE = 8192  # M, N and K of the library's products
PRODUCTS = {
    "fp32-product": "vendor-fp32",
    "bf16-product": "vendor-bf16",
    "int8-product": "vendor-int8",
    "fp8-product": "vendor-fp8-fast",
}
# About a millisecond a call, in which the operands' first load and the result's store are lost.
BIT_REPEATS, WORD_REPEATS = 1024, 256
PROGRAMS_A_PROCESSOR = 16  # of ``peaks.words``: all threads that a processor holds
WORDS = {"xor+popcount": "popc", "xor": "lop3"}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _product(kernel_name: str) -> Bound:
    """Return a product of random ±1: what is multiplied decides the power, and so the clock."""
    kernel = registry.get(kernel_name, "cuda")
    reason = kernel.why_not(SIZE, SIZE, SIZE)
    if reason is not None:
        raise NoTimeError("unavailable", reason)
    generator = _generator()
    a, w = (random_signs(SIZE, SIZE, generator).to("cuda") for _ in range(2))
    operands = kernel.activations(a), kernel.weights(w)
    run = partial(kernel.product, *operands)
    return Bound(run, nbytes([*operands, run()]), 2 * SIZE**3)


def _check_triton(hopper: bool) -> None:
    """Raise ``NoTimeError`` where triton or the GPU is missing, or no Hopper if that is needed."""
    try:
        from kernels.triton.device import HOPPER, why_no_gpu
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "triton":
            raise
        raise NoTimeError("unavailable", "triton is not installed") from error
    reason = why_no_gpu(HOPPER, exactly=True) if hopper else why_no_gpu()
    if reason is not None:
        raise NoTimeError("unavailable", reason)


def _tensor_bits() -> Bound:
    _check_triton(hopper=True)
    from kernels.triton import peaks
    from kernels.triton.device import DEVICE, processors

    tile, generator = peaks.TILE, _generator()
    a, b = (
        torch.randint(0, 256, (rows, tile.bytes), dtype=torch.uint8, generator=generator)
        for rows in (tile.m, tile.n)
    )
    programs = processors()
    out = torch.empty(programs, tile.m, tile.n, dtype=torch.int32, device=DEVICE)
    run = partial(peaks.bits, a.to(DEVICE), b.to(DEVICE), out, BIT_REPEATS)

    def check() -> None:
        bits = [((x[:, :, None] >> torch.arange(8)) & 1).flatten(1).double() for x in (a, b)]
        expected = peaks.products(BIT_REPEATS) * bits[0] @ bits[1].T
        wrong = int((out.cpu().double() != expected).sum())
        if wrong:
            raise NoTimeError("wrong", f"{wrong} of {out.numel()} popcounts differ")

    return Bound(run, 0, peaks.bit_ops(programs, BIT_REPEATS), check)


def _words(form: str) -> Bound:
    _check_triton(hopper=False)
    from kernels.triton import peaks
    from kernels.triton.device import DEVICE, processors

    programs, generator = PROGRAMS_A_PROCESSOR * processors(), _generator()
    x, y = (
        torch.randint(0, 1 << 31, (programs * peaks.LANES,), dtype=torch.int32, generator=generator)
        for _ in range(2)
    )
    out = torch.empty(len(x), dtype=torch.int32, device=DEVICE)
    run = partial(peaks.words, x.to(DEVICE), y.to(DEVICE), out, form, WORD_REPEATS)
    return Bound(run, 0, peaks.word_ops(programs, WORD_REPEATS))


def gpu_ceilings() -> list[Ceiling]:
    """Return the bounds of a GPU.

    - ``copy``: one read and one write of 256 MiB.
    - ``fp32-``, ``bf16-``, ``int8-``, ``fp8-product``: the library's of random ±1, 8192³.
    - ``1-bit-tensor``: 1-bit ``wgmma`` on operands that stay in shared memory.
    - ``xor+popcount``: a LOP3, a POPC and an addition a word of 32 products, in registers.
    - ``xor``: a LOP3 a word, in registers: what any form on CUDA cores needs at least.
    """
    found = [Ceiling("copy", lambda: copy("cuda"))]
    found += [Ceiling(name, partial(_product, kernel)) for name, kernel in PRODUCTS.items()]
    return found + units()


def units() -> list[Ceiling]:
    """Return the bounds that kernels of ours measure."""
    words = [Ceiling(name, partial(_words, form)) for name, form in WORDS.items()]
    return [Ceiling("1-bit-tensor", _tensor_bits), *words]
