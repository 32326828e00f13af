"""Global, then local contrast normalisation: the released Torch7 code's preprocessing of SVHN."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from harness.data.formats import Pixels

# The released code's arguments.
GCN_BIAS = 10.0
LCN_TAPS, LCN_SIGMA, LCN_FLOOR = 9, 2.0, 1e-4
_BLOCK = 2000

Reals = npt.NDArray[np.float32]


class ContrastPreprocessor:
    """Both normalisations, divided by the largest value that they take on the training images.

    The released code divides each set by its own largest value; ours is fitted on training alone.
    """

    kind = "gcn-lcn"
    affine = None

    def __init__(self, largest: float) -> None:
        self._largest = np.float32(largest)

    def apply(self, pixels: Pixels) -> Reals:
        """Return the normalised images, float32 of the shape of ``pixels`` [n, c, h, w]."""
        normalised = np.empty(pixels.shape, np.float32)
        for first in range(0, len(pixels), _BLOCK):
            part = slice(first, first + _BLOCK)
            normalised[part] = _normalise(pixels[part])
            normalised[part] /= self._largest
        return normalised

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return ``largest``, float32 []."""
        return {"largest": np.array(self._largest, np.float32)}

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[np.generic]]) -> "ContrastPreprocessor":
        """Rebuild from :meth:`state`."""
        return cls(float(state["largest"]))


def fit_gcn_lcn(train_pixels: Pixels) -> ContrastPreprocessor:
    """Find the largest normalised value of the training images (1 if all images are flat)."""
    blocks = (train_pixels[i : i + _BLOCK] for i in range(0, len(train_pixels), _BLOCK))
    return ContrastPreprocessor(max(float(_normalise(block).max()) for block in blocks) or 1.0)


def global_contrast(images: Reals) -> Reals:
    """Return (x - mean) / sqrt(10 + mean((x - mean)^2)) over all pixels of each image [n, ...]."""
    axes = tuple(range(1, images.ndim))
    centred = images - images.mean(axis=axes, keepdims=True)
    power = np.square(centred).mean(axis=axes, keepdims=True)
    normalised: Reals = centred / np.sqrt(np.float32(GCN_BIAS) + power)
    return normalised


def local_contrast(images: Reals) -> Reals:
    """Subtract from each pixel of float32 [n, c, h, w] its neighbourhood, divide by the deviation.

    The neighbourhood is a 9 x 9 Gaussian of deviation 2 within the channel, zeros beyond the
    border. The deviation is that of the centred channel of the image (unbiased), plus 1e-4.
    """
    from scipy.ndimage import correlate1d

    kernel = gaussian_kernel()
    # The two-dimensional Gaussian is the product of its rows and columns.
    blurred = correlate1d(images, kernel, axis=-1, mode="constant")
    blurred = correlate1d(blurred, kernel, axis=-2, mode="constant")
    centred = images - blurred
    deviation = centred.std(axis=(-2, -1), ddof=1, keepdims=True)
    normalised: Reals = centred / (deviation + np.float32(LCN_FLOOR))
    return normalised


def gaussian_kernel() -> npt.NDArray[np.float64]:
    """Return the 9 taps of the one-dimensional Gaussian of deviation 2, summing to 1."""
    offsets = np.arange(LCN_TAPS) - LCN_TAPS // 2
    taps = np.exp(-np.square(offsets) / (2.0 * LCN_SIGMA**2))
    kernel: npt.NDArray[np.float64] = taps / taps.sum()
    return kernel


def _normalise(pixels: Pixels) -> Reals:
    images = pixels.astype(np.float32) / np.float32(255.0)
    return local_contrast(global_contrast(images))
