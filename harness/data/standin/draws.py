"""Random draws that are the same bytes on every machine and NumPy version.

Only PCG64's raw 64-bit output is used, whose stream NumPy guarantees (its ``Generator`` methods
may change). What follows is integer arithmetic and single, correctly rounded float32 operations
(+ - * / sqrt): no libm, no sums of floats, no matrix products, whose bits vary by platform.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float32]

# Part of every stand-in's identity: another version gives other images and other digests.
VERSION = 1


class Draws:
    """A stream of draws, seeded by a name such as ``mnist/train``."""

    def __init__(self, name: str) -> None:
        seed = hashlib.sha256(f"bnn stand-in {VERSION}: {name}".encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(seed[:16], "little"))

    def _raw(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint64]:
        return self._bits.random_raw(int(np.prod(shape))).reshape(shape)

    def uniform(self, low: float, high: float, *shape: int) -> Reals:
        """Return float32 draws from [low, high), on a grid of 2^24 steps."""
        steps = (self._raw(shape) >> np.uint64(40)).astype(np.float32)
        return steps * np.float32((high - low) / 2**24) + np.float32(low)

    def integers(self, count: int, *shape: int) -> npt.NDArray[np.int64]:
        """Return int64 draws from 0 to count - 1."""
        high = self._raw(shape) >> np.uint64(32)
        return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.int64)

    def noise(self, *shape: int) -> Reals:
        """Return float32 draws of about the normal distribution: sums of four uniform bytes."""
        total = int(np.prod(shape))
        raw = self._raw((-(-total // 2),)).astype("<u8")
        sums = raw.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32)[:total]
        normal: Reals = (sums - 510).astype(np.float32) * np.float32(1 / 147.8)
        return normal.reshape(shape)
