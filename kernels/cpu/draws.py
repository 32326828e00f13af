"""Numbers and signs drawn from torch's CPU generator, the same bits, by loops of vectors.

torch draws one number after the other: 12 ns a Bernoulli number, 3 a uniform one on Zen 4. The
Mersenne twister under it makes 624 words at a time, none of which takes one nearer than 227 before.

A generator's state holds, after its seed, ``left`` (1 more than the words that wait), a flag, the
``next`` word's place and the words, 64 bits each. A uniform float32 is the lower 24 bits of a word;
a Bernoulli number is 1 where the lower 53 bits of two words, the upper one first, are below ``p``.
"""
# Compiled code is typed by numba, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kernels.cpu.jit import jit
from kernels.cpu.pack import positive_word
from kernels.packing import WORD_BITS

WORDS, MIDDLE = 624, 397
_LEFT, _NEXT, _FIRST = 8, 16, 24  # bytes of a generator's state
_UPPER, _LOWER, _TWIST = np.uint32(0x80000000), np.uint32(0x7FFFFFFF), np.uint32(0x9908B0DF)
_FLOAT, _DOUBLE = np.uint32((1 << 24) - 1), np.uint64((1 << 53) - 1)
PART = 16 * WORDS  # words at a time: 40 KB, in the caches


@jit()
def _twisted(upper, lower):
    return (((upper & _UPPER) | (lower & _LOWER)) >> np.uint32(1)) ^ (
        _TWIST * (lower & np.uint32(1))
    )


@jit()
def _refill(state):
    """Replace the twister's words by the next 624."""
    far = WORDS - MIDDLE
    for j in range(far):
        state[j] = state[j + MIDDLE] ^ _twisted(state[j], state[j + 1])
    for j in range(MIDDLE - 1):
        state[j + far] = state[j] ^ _twisted(state[j + far], state[j + far + 1])
    state[WORDS - 1] = state[MIDDLE - 1] ^ _twisted(state[WORDS - 1], state[0])


@jit()
def _temper(state, out):
    for j in range(out.size):
        y = state[j]
        y ^= y >> np.uint32(11)
        y ^= (y << np.uint32(7)) & np.uint32(0x9D2C5680)
        y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
        out[j] = y ^ (y >> np.uint32(18))


@jit()
def _fill(state, place, out):
    """Write the stream's next words to ``out``; ``place`` is of the next in ``state``."""
    at = 0
    while at < out.size:
        if place == WORDS:
            _refill(state)
            place = 0
        some = min(WORDS - place, out.size - at)
        _temper(state[place : place + some], out[at : at + some])
        place, at = place + some, at + some
    return place


@jit()
def _uniform(state, place, out):
    words = np.empty(PART, dtype=np.uint32)
    for begin in range(0, out.size, PART):
        part = out[begin : begin + PART]
        here = words[: part.size]
        place = _fill(state, place, here)
        for i in range(part.size):
            part[i] = np.float32(np.int32(here[i] & _FLOAT)) * np.float32(2.0**-24)
    return place


@jit(error_model="numpy")
def _signs(state, place, x, out):
    words, line = np.empty(PART, dtype=np.uint32), np.empty(PART, dtype=np.float32)
    for begin in range(0, x.size, PART):
        part = x[begin : begin + PART]
        here, signs = words[: part.size], line[: part.size]
        place = _fill(state, place, here)
        for i in range(part.size):
            # 2 u - 1, as of u: both products and the difference of 24 bits are exact.
            draw = np.float32(np.int32(here[i] & _FLOAT)) * np.float32(2.0**-23) - np.float32(1)
            signs[i] = np.float32(1) if draw < part[i] else np.float32(-1)
        for t in range(part.size // WORD_BITS):
            out[begin // WORD_BITS + t] = positive_word(line, t * WORD_BITS)
    return place


@jit()
def _bernoulli(state, place, bound, out):
    words = np.empty(PART, dtype=np.uint32)
    for begin in range(0, out.size, PART // 2):
        part = out[begin : begin + PART // 2]
        place = _fill(state, place, words[: 2 * part.size])
        pairs = words.view(np.uint64)[: part.size]
        for i in range(part.size):
            both = (pairs[i] << np.uint64(32) | pairs[i] >> np.uint64(32)) & _DOUBLE
            part[i] = np.float32(1) if both < bound else np.float32(0)
    return place


def _advance(generator: torch.Generator, take: Callable[[np.ndarray, int], int]) -> None:
    """Let ``take`` draw: of the twister's words, and the next one's place, it gives the place."""
    kept = generator.get_state()
    state = kept.numpy()
    left, place = state[_LEFT:].view(np.int32)[:1], state[_NEXT:].view(np.int64)[:1]
    words = state[_FIRST : _FIRST + 8 * WORDS].view(np.uint64)
    twister = words.astype(np.uint32)
    place[0] = take(twister, WORDS + 1 - int(left[0]))
    left[0], words[:] = WORDS + 1 - place[0], twister
    generator.set_state(kept)


def _draw(out: Tensor, generator: torch.Generator, p: float | None) -> None:
    flat = out.view(-1).numpy()
    if p is None:
        _advance(generator, lambda twister, begin: _uniform(twister, begin, flat))
    else:
        # x 2^-53 < p for integers x, which is x < p 2^53: exact, and the integer not below it.
        bound = np.uint64(math.ceil(math.ldexp(p, 53)))
        _advance(generator, lambda twister, begin: _bernoulli(twister, begin, bound, flat))


def _as_library(out: Tensor, generator: torch.Generator, p: float | None) -> Tensor:
    return (
        out.uniform_(generator=generator) if p is None else out.bernoulli_(p, generator=generator)
    )


@cache
def known() -> bool:
    """Return whether this torch draws as this module does, and keeps its state so: by trial.

    A build whose library brings random numbers of its own takes these on some processors.
    """
    ours, theirs = (torch.Generator().manual_seed(0) for _ in range(2))
    if ours.get_state().numel() < _FIRST + 8 * WORDS:
        return False
    for p, size in ((None, 999), (0.3, 999)):
        found = torch.empty(size)
        _draw(found, ours, p)
        if not torch.equal(found, _as_library(torch.empty(size), theirs, p)):
            return False
    return torch.equal(ours.get_state(), theirs.get_state())


def draw(out: Tensor, generator: torch.Generator, p: float | None = None) -> Tensor:
    """Fill ``out``, float32 and contiguous, as ``uniform_``, or as ``bernoulli_(p)``, would.

    The generator goes on as after the library's call. Returns ``out``.
    """
    if out.numel() == 0 or not known():
        return _as_library(out, generator, p)
    _draw(out, generator, p)
    return out


def packed_signs(x: Tensor, generator: torch.Generator) -> Tensor | None:
    """Return signs drawn from rows x [M, K], packed int64 [M, K / 64]: +1 where ``2u - 1 < x``.

    u are the numbers that :func:`draw` gives for x, here never in memory. x: float32, contiguous.
    None where K is no multiple of 64, or this torch's stream is another.
    """
    if x.shape[1] % WORD_BITS or x.numel() == 0 or not known():
        return None
    words = torch.empty(len(x), x.shape[1] // WORD_BITS, dtype=torch.int64)
    flat, out = x.detach().view(-1).numpy(), words.view(-1).numpy().view(np.uint64)
    _advance(generator, lambda twister, begin: _signs(twister, begin, flat, out))
    return words
