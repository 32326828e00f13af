"""Signs, bits and thresholds into 64-bit words: one vector comparison makes one word."""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc"

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.vectors import splat

_WORD = 64
_POSITIONS = (
    1024  # of a map at once: read in order, 1.2 ms for 50 x 128 x 32 x 32; by 64 3.8 (Zen 4)
)
_MOST = np.int32(np.iinfo(np.int32).max)  # no dot reaches it


def _load(context: Any, builder: Any, array_type: Any, array: Any, at: Any, element: Any) -> Any:
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [at])
    vector = ir.VectorType(element, _WORD)
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=1), vector


def _word(compare: Callable[[Any, Any, Any], Any], element: Any) -> Any:
    """Return code that compares 64 elements of the first array and gives the mask as a word."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values, vector = _load(context, builder, sig.args[0], args[0], args[1], element)
        if len(args) == 4:
            other, _ = _load(context, builder, sig.args[2], args[2], args[3], element)
        else:
            other = ir.Constant(vector, [0] * _WORD)
        return builder.bitcast(compare(builder, values, other), ir.IntType(64))

    return generate


@intrinsic
def positive_word(typingctx, values, at):
    """Return 64 bits ``values[at + j] >= 0``, float32."""
    compare = _word(lambda builder, x, zero: builder.fcmp_ordered(">=", x, zero), ir.FloatType())
    return types.uint64(values, types.intp), compare


@intrinsic
def _set_word(typingctx, values, at):
    compare = _word(lambda builder, x, zero: builder.icmp_unsigned("!=", x, zero), ir.IntType(8))
    return types.uint64(values, types.intp), compare


@intrinsic
def reached_word(typingctx, values, at, threshold, threshold_at):
    """Return 64 bits ``values[at + j] >= threshold[threshold_at + j]``, both int32."""
    compare = _word(lambda builder, x, t: builder.icmp_signed(">=", x, t), ir.IntType(32))
    return types.uint64(values, types.intp, threshold, types.intp), compare


@intrinsic
def _plane_word(typingctx, values, at, bit):
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        values, vector = _load(context, builder, sig.args[0], args[0], args[1], byte)
        mask = splat(builder, builder.trunc(args[2], byte), vector)
        picked = builder.icmp_unsigned("!=", builder.and_(values, mask), vector([0] * _WORD))
        return builder.bitcast(picked, ir.IntType(64))

    return types.uint64(values, types.intp, types.intp), generate


@jit(parallel=True)
def _reals(x, k, words):
    whole = k // _WORD
    for row in numba.prange(words.shape[0]):
        for t in range(whole):
            words[row, t] = positive_word(x, row * k + t * _WORD)
        if k % _WORD:
            word = np.uint64(0)
            for j in range(whole * _WORD, k):
                word |= np.uint64(x[row * k + j] >= 0) << np.uint64(j % _WORD)
            words[row, whole] = word


@jit()
def _columns(x, first, step, channels, words, at, t):
    """Pack up to 64 channels of some positions: ``x[first + c*step + p]`` is bit c of p."""
    count = min(_POSITIONS, step - at)
    tile = np.zeros(_POSITIONS, dtype=np.uint64)
    for c in range(channels):
        values, bit = x[first + c * step + at : first + c * step + at + count], np.uint64(c)
        bits = tile[:count]
        for p in range(count):
            bits[p] |= np.uint64(values[p] >= np.float32(0)) << bit
    for p in range(count):
        words[at + p, t] = tile[p]


@jit(parallel=True)
def _maps(x, channels, positions, words):
    width = words.shape[1]
    for task in numba.prange(words.shape[0] // positions * width):
        image, t = task // width, task % width
        some = min(_WORD, channels - t * _WORD)
        first = (image * channels + t * _WORD) * positions
        rows = words[image * positions : (image + 1) * positions]
        for at in range(0, positions, _POSITIONS):
            _columns(x, first, positions, some, rows, at, t)


@jit(parallel=True)
def _bools(x, k, words):
    whole = k // _WORD
    for row in numba.prange(words.shape[0]):
        for t in range(whole):
            words[row, t] = _set_word(x, row * k + t * _WORD)
        if k % _WORD:
            word = np.uint64(0)
            for j in range(whole * _WORD, k):
                word |= np.uint64(x[row * k + j] != 0) << np.uint64(j % _WORD)
            words[row, whole] = word


@jit()
def _bounds(threshold, flip, bounds, flips):
    n, whole = threshold.size, threshold.size // _WORD
    bounds[:n] = threshold
    bounds[n:] = _MOST
    for t in range(whole):
        flips[t] = _set_word(flip, t * _WORD)
    if n % _WORD:
        word = np.uint64(0)
        for j in range(whole * _WORD, n):
            word |= np.uint64(flip[j]) << np.uint64(j % _WORD)
        flips[whole] = word


@jit(parallel=True)
def _thresholds(x, threshold, flips, words):
    n = threshold.size
    whole = n // _WORD
    for row in numba.prange(words.shape[0]):
        for t in range(whole):
            words[row, t] = reached_word(x, row * n + t * _WORD, threshold, t * _WORD) ^ flips[t]
        if n % _WORD:
            word = np.uint64(0)
            for j in range(whole * _WORD, n):
                word |= np.uint64(x[row * n + j] >= threshold[j]) << np.uint64(j % _WORD)
            words[row, whole] = word ^ flips[whole]


@jit(parallel=True)
def _planes(u, rows, k, words):
    whole = k // _WORD
    for row in numba.prange(rows):
        for plane in range(8):
            at = plane * rows + row
            for t in range(whole):
                words[at, t] = _plane_word(u, row * k + t * _WORD, 1 << plane)
            if k % _WORD:
                word = np.uint64(0)
                for j in range(whole * _WORD, k):
                    word |= np.uint64((u[row * k + j] >> plane) & 1) << np.uint64(j % _WORD)
                words[at, whole] = word


@jit(parallel=True)
def _weigh_planes(dots, out):
    rows = out.shape[0]
    for row in numba.prange(rows):
        for n in range(out.shape[1]):
            total = np.int32(0)
            for plane in range(8):
                total += dots[plane * rows + row, n] << np.int32(plane)
            out[row, n] = total


def reals(x: np.ndarray, words: np.ndarray) -> None:
    """``words`` (int64 [M, ceil(K/64)]) = bits of ``x >= 0``, float32 [M, K] contiguous."""
    _reals(x.reshape(-1), x.shape[1], words.view(np.uint64))


def maps(x: np.ndarray, words: np.ndarray) -> None:
    """``words[b*P + p]`` = bits of ``x[b, :, p] >= 0``, float32 [B, C, P] contiguous, P >= 1."""
    _maps(x.reshape(-1), x.shape[1], x.shape[2], words.view(np.uint64))


def bools(x: np.ndarray, words: np.ndarray) -> None:
    """``words`` (int64 [M, ceil(K/64)]) = bits of ``x != 0``, uint8 [M, K] contiguous."""
    _bools(x.reshape(-1), x.shape[1], words.view(np.uint64))


def bounds(threshold: np.ndarray, flip: np.ndarray, bounds: np.ndarray, flips: np.ndarray) -> None:
    """Pad int32 thresholds [N] with the greatest int32, and pack bool flips [N] with zeros.

    Args:
        threshold, flip: contiguous.
        bounds: int32 [ceil(N/64) * 64], written.
        flips: int64 [ceil(N/64)], written.
    """
    _bounds(threshold, flip.view(np.uint8), bounds, flips.view(np.uint64))


def thresholds(x: np.ndarray, threshold: np.ndarray, flips: np.ndarray, words: np.ndarray) -> None:
    """``words`` = bits of ``x >= threshold``, xor ``flips`` (packed); x int32 [M, N] contiguous."""
    _thresholds(x.reshape(-1), threshold, flips.view(np.uint64), words.view(np.uint64))


def planes(u: np.ndarray, words: np.ndarray) -> None:
    """``words[b*M + m]`` = bits of plane b (``u >> b & 1``) of row m, uint8 [M, K] contiguous."""
    _planes(u.reshape(-1), u.shape[0], u.shape[1], words.view(np.uint64))


def weigh_planes(dots: np.ndarray, out: np.ndarray) -> None:
    """``out[m, n] = sum_b 2^b * dots[b*M + m, n]``: int32 [8*M, N] -> [M, N]."""
    _weigh_planes(dots, out)
