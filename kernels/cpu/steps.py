"""Optimizer steps and signs in one pass over memory, in float32.

A step moves 28 bytes a weight: gradient, weight and two moments in, weight and moments out. Each
rule rounds where torch's CPU kernels round, fused multiply-adds included, so that whole runs keep
their numbers (``harness.nn.fused`` chooses between the two). Loops run over slices from their
first element: an index that might be negative keeps the compiler from vectors.
"""
# Compiled code is typed by numba, not by mypy; intrinsics drop their first argument.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, misc, var-annotated"

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from kernels.cpu.jit import jit
from kernels.cpu.threads import set_threads

LANES = 8  # torch's last elements, short of a vector of AVX2, are rounded by scalar code
CHUNK = 1 << 14  # elements a task: 64 KiB of each array
ROUND_UP = 0x800000 - 0x3504F4  # AP2: see harness.nn.shift
POWER = -0x800000  # sign and exponent


@intrinsic
def _fma(typingctx, a, b, c):
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


@intrinsic
def _bits(typingctx, x):
    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def float_of(typingctx, bits):
    """Return the float32 with these bits, int32."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


@jit(error_model="numpy")
def ap2(x):
    """Return AP2 of one float32, as ``harness.nn.shift.ap2``."""
    power = float_of(np.int32(np.int32(_bits(x) + np.int32(ROUND_UP)) & np.int32(POWER)))
    return power if abs(x) < np.float32(np.inf) else x


@jit(error_model="numpy")
def _clipped(x, bound):
    x = -bound if x < -bound else x
    return bound if x > bound else x


@jit(error_model="numpy")
def adam_part(w, g, m, v, begin, end, c):
    """Adam's step on elements ``begin`` to ``end``, whole vectors of 8 (:func:`adam_numbers`)."""
    w, g, m, v = w[begin:end], g[begin:end], m[begin:end], v[begin:end]
    rest1, beta2, rest2, correction, eps, rate, bound = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for i in range(w.size):
        first = _fma(rest1, g[i] - m[i], m[i])
        second = _fma(rest2 * g[i], g[i], v[i] * beta2)
        m[i] = first
        v[i] = second
        w[i] = _clipped(w[i] + rate * first / (np.sqrt(second) / correction + eps), bound)


@jit(error_model="numpy")
def _adam_last(w, g, m, v, begin, end, c):
    w, g, m, v = w[begin:end], g[begin:end], m[begin:end], v[begin:end]
    rest1, beta2, rest2, correction, eps, rate, bound = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
    for i in range(w.size):
        first = _fma(rest1, g[i] - m[i], m[i])
        second = _fma(v[i], beta2, rest2 * g[i] * g[i])
        m[i] = first
        v[i] = second
        w[i] = _clipped(w[i] + rate * first / (np.sqrt(second) / correction + eps), bound)


@jit(error_model="numpy")
def adamax_part(w, g, m, v, begin, end, c):
    """Shift-based AdaMax's step on elements ``begin`` to ``end`` (:func:`adamax_numbers`)."""
    w, g, m, v = w[begin:end], g[begin:end], m[begin:end], v[begin:end]
    rest1, beta2, eps, stored, rate, bound = c[0], c[1], c[2], c[3] != 0, c[4], c[5]
    for i in range(w.size):
        first = _fma(rest1, g[i] - m[i], m[i])
        decayed, newest = v[i] * beta2, abs(g[i]) + eps
        second = decayed if decayed > newest or decayed != decayed else newest
        second = ap2(second) if stored else second
        m[i] = first
        v[i] = second
        w[i] = _clipped(w[i] + rate * first * ap2(np.float32(1) / second), bound)


@jit(error_model="numpy")
def _sign(x, out, begin, end):
    x, out = x[begin:end], out[begin:end]
    for i in range(x.size):
        out[i] = np.float32(1) if x[i] >= np.float32(0) else np.float32(-1)


@jit(error_model="numpy")
def _drawn_sign(x, draws, begin, end):
    x, draws = x[begin:end], draws[begin:end]
    for i in range(x.size):
        positive = np.float32(2) * draws[i] - np.float32(1) < x[i]
        draws[i] = np.float32(1) if positive else np.float32(-1)


@jit(parallel=True, error_model="numpy")
def _adam_threads(w, g, m, v, c):
    for task in numba.prange((w.size + CHUNK - 1) // CHUNK):
        adam_part(w, g, m, v, task * CHUNK, min((task + 1) * CHUNK, w.size), c)


@jit(parallel=True, error_model="numpy")
def _adamax_threads(w, g, m, v, c):
    for task in numba.prange((w.size + CHUNK - 1) // CHUNK):
        adamax_part(w, g, m, v, task * CHUNK, min((task + 1) * CHUNK, w.size), c)


@jit(parallel=True, error_model="numpy")
def _sign_threads(x, out):
    for task in numba.prange((x.size + CHUNK - 1) // CHUNK):
        _sign(x, out, task * CHUNK, min((task + 1) * CHUNK, x.size))


@jit(parallel=True, error_model="numpy")
def _drawn_sign_threads(x, draws):
    for task in numba.prange((x.size + CHUNK - 1) // CHUNK):
        _drawn_sign(x, draws, task * CHUNK, min((task + 1) * CHUNK, x.size))


def _parallel(size: int, threads: int) -> bool:
    if threads == 1 or size <= 2 * CHUNK:
        return False
    set_threads(threads)
    return True


def adam_numbers(
    betas: tuple[float, float], eps: float, lr: float, step: int, bound: float
) -> np.ndarray:
    """Return what :func:`adam` takes of step number ``step`` (from 1)."""
    correction = (1 - betas[1] ** step) ** 0.5
    rate = -(lr / (1 - betas[0] ** step))
    numbers = (1 - betas[0], betas[1], 1 - betas[1], correction, eps, rate, bound)
    return np.array(numbers, dtype=np.float32)


def adamax_numbers(
    betas: tuple[float, float], eps: float, rate: float, stored: bool, bound: float
) -> np.ndarray:
    """Return what :func:`shift_adamax` takes of a step."""
    return np.array((1 - betas[0], betas[1], eps, stored, -rate, bound), dtype=np.float32)


def adam(
    w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, c: np.ndarray, threads: int
) -> None:
    """A step of Adam in torch's form (:func:`adam_numbers`), in place; all float32 [size].

    ``m += (1-b1)(g-m)``; ``v = b2 v + (1-b2) g^2``;
    ``w -= lr/(1-b1^t) m / (sqrt(v)/sqrt(1-b2^t) + eps)``, then clipped to ``[-bound, bound]``.
    """
    whole = w.size // LANES * LANES
    if _parallel(w.size, threads):
        _adam_threads(w[:whole], g, m, v, c)
    else:
        adam_part(w, g, m, v, 0, whole, c)
    _adam_last(w, g, m, v, whole, w.size, c)


def shift_adamax(
    w: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, c: np.ndarray, threads: int
) -> None:
    """A step of shift-based AdaMax (:func:`adamax_numbers`), in place; all float32 [size].

    Paper, Algorithm 4: ``m += (1-b1)(g-m)``; ``v = max(b2 v, |g| + eps)``, its AP2 if ``stored``;
    ``w -= rate m AP2(1/v)``, then clipped to ``[-bound, bound]``.
    """
    if _parallel(w.size, threads):
        _adamax_threads(w, g, m, v, c)
    else:
        adamax_part(w, g, m, v, 0, w.size, c)


def sign(x: np.ndarray, out: np.ndarray, threads: int) -> None:
    """``out = +1 where x >= 0, else -1`` (NaN too), float32 [size]."""
    if _parallel(x.size, threads):
        _sign_threads(x, out)
    else:
        _sign(x, out, 0, x.size)


def drawn_sign(x: np.ndarray, draws: np.ndarray, threads: int) -> None:
    """``draws = +1 where 2 draws - 1 < x, else -1`` (NaN too), in place, float32 [size].

    ``draws`` are uniform on [0, 1): +1 comes with the probability of the hard sigmoid of x.
    """
    if _parallel(x.size, threads):
        _drawn_sign_threads(x, draws)
    else:
        _drawn_sign(x, draws, 0, x.size)
