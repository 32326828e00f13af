"""Preprocessing of pixels, fitted on the training images only.

Kinds: ``scale`` to [-1, 1]; ``global`` ([0, 1], then one mean and deviation for all pixels).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness.data.formats import Pixels
from harness.errors import HarnessError

Reals = npt.NDArray[np.float32]
State = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class AffinePixels:
    """x = scale * (2u - 255) + offset for a pixel u in 0..255: odd integers, never zero."""

    scale: float
    offset: float


class Preprocessor(Protocol):
    """A fitted preprocessing: uint8 [n, c, h, w] pixels to float32 of the same shape."""

    kind: str
    affine: AffinePixels | None

    def apply(self, pixels: Pixels) -> Reals:
        """Return the network's input for ``pixels``."""
        ...

    def state(self) -> State:
        """Return what was fitted, as arrays to save."""
        ...


class AffinePreprocessor:
    """An affine map of each pixel, the same for all."""

    def __init__(self, kind: str, affine: AffinePixels) -> None:
        self.kind = kind
        self.affine = affine
        odd = 2.0 * np.arange(256) - 255.0
        self._table = (affine.scale * odd + affine.offset).astype(np.float32)

    def apply(self, pixels: Pixels) -> Reals:
        """Return float32 scale * (2u - 255) + offset for each pixel u."""
        return self._table[pixels]

    def state(self) -> State:
        """Return the scale and the offset, float64."""
        return {
            "scale": np.array(self.affine.scale, np.float64),
            "offset": np.array(self.affine.offset, np.float64),
        }


def _fit_scale(train_pixels: Pixels) -> AffinePreprocessor:
    return AffinePreprocessor("scale", AffinePixels(1.0 / 255.0, 0.0))


def _fit_global(train_pixels: Pixels) -> AffinePreprocessor:
    counts = _histogram(train_pixels)  # integers: exact, and no float copy of the images
    values, total = np.arange(256), int(counts.sum())
    mean = int(counts @ values) / total / 255.0
    deviation = np.sqrt(int(counts @ values**2) / total / 255.0**2 - mean**2)
    if deviation == 0.0:
        raise HarnessError("global preprocessing: all training pixels are equal, deviation 0")
    # (u/255 - mean)/deviation, with u/255 = (2u - 255)/510 + 1/2
    scale = 1.0 / (510.0 * deviation)
    return AffinePreprocessor("global", AffinePixels(float(scale), float((0.5 - mean) / deviation)))


def _histogram(pixels: Pixels) -> npt.NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for first in range(0, len(pixels), 1000):  # bincount makes an int64 copy: 8 times the block
        counts += np.bincount(pixels[first : first + 1000].reshape(-1), minlength=256)
    return counts


_FITS = {"scale": _fit_scale, "global": _fit_global}
KINDS = tuple(_FITS)


def fit(kind: str, train_pixels: Pixels) -> Preprocessor:
    """Fit a preprocessing of the given kind on the training split's uint8 [n, c, h, w] pixels.

    Raises:
        HarnessError: an unknown kind, or pixels that it cannot be fitted on.
    """
    _check_kind(kind)
    if not len(train_pixels):
        raise HarnessError(f"{kind} preprocessing: there are no training images to fit it on")
    return _FITS[kind](train_pixels)


def from_state(kind: str, state: Mapping[str, npt.NDArray[np.generic]]) -> Preprocessor:
    """Rebuild a fitted preprocessing from :meth:`Preprocessor.state`.

    Raises:
        HarnessError: an unknown kind.
    """
    _check_kind(kind)
    return AffinePreprocessor(kind, AffinePixels(float(state["scale"]), float(state["offset"])))


def _check_kind(kind: str) -> None:
    if kind not in _FITS:
        raise HarnessError(f"unknown preprocessing {kind!r}; allowed: {', '.join(KINDS)}")
