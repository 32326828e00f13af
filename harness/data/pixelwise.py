"""Preprocessing for the prior systems: centred by the mean image, and bipolar pixels."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from harness.data.formats import Pixels
from harness.errors import HarnessError

Reals = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[np.generic]]
_BLOCK = 5000
_HALF = 128  # the first pixel value above the middle of 0..255


class PixelMeanPreprocessor:
    """x = (u - mean image) / deviation, one deviation for all pixels.

    Where a pixel is constant x is exactly 0, so that weights without evidence add nothing.
    """

    kind = "pixel-mean"
    affine = None

    def __init__(self, mean: Reals, deviation: float) -> None:
        self._mean, self._deviation = mean, np.float32(deviation)

    def apply(self, pixels: Pixels) -> Reals:
        """Return float32 of the shape of ``pixels`` [n, c, h, w]."""
        centred = pixels.astype(np.float32)
        centred -= self._mean
        centred /= self._deviation
        return centred

    def state(self) -> State:
        """Return ``mean`` float32 [c, h, w] and ``deviation`` float32 []."""
        return {"mean": self._mean, "deviation": np.array(self._deviation, np.float32)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[np.generic]]) -> "PixelMeanPreprocessor":
        """Rebuild from :meth:`state`."""
        return cls(state["mean"].astype(np.float32), float(state["deviation"]))


def fit_pixel_mean(train_pixels: Pixels) -> PixelMeanPreprocessor:
    """Fit the mean image and the root mean square of all centred pixels, biased.

    Raises:
        HarnessError: all images are equal.
    """
    mean = train_pixels.mean(axis=0, dtype=np.float64).astype(np.float32)
    blocks = (train_pixels[i : i + _BLOCK] for i in range(0, len(train_pixels), _BLOCK))
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks)
    if squares == 0:
        raise HarnessError("pixel-mean preprocessing: expected training images that differ")
    return PixelMeanPreprocessor(mean, float(np.sqrt(squares / train_pixels.size)))


class BipolarPreprocessor:
    """x = +1 for pixels of 128 and above, else -1: nothing is fitted."""

    kind = "bipolar"
    affine = None

    def apply(self, pixels: Pixels) -> Reals:
        """Return float32 ±1 of the shape of ``pixels``."""
        return np.where(pixels >= _HALF, np.float32(1), np.float32(-1))

    def state(self) -> State:
        """Return nothing."""
        return {}
