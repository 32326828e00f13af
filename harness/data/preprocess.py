"""Preprocessing of pixels, fitted on the training images only.

Kinds: ``scale`` to [-1, 1]; ``global`` ([0, 1], then one mean and deviation for all pixels);
``zca`` (whitening); ``gcn-lcn`` (global, then local contrast normalisation); ``gcn-zca`` (each
image's contrast, then whitening); ``pixel-mean`` (minus the mean image, over one deviation);
``bipolar`` (±1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from harness.data.contrast import ContrastPreprocessor, fit_gcn_lcn
from harness.data.formats import Pixels
from harness.data.pixelwise import BipolarPreprocessor, PixelMeanPreprocessor, fit_pixel_mean
from harness.data.whitening import ZcaPreprocessor, fit_gcn_zca, fit_zca
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

    @property
    def kind(self) -> str:
        """Its name, one of :data:`KINDS`."""
        ...

    @property
    def affine(self) -> AffinePixels | None:
        """The map of a single pixel, where the preprocessing is one; else None."""
        ...

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
        """Return the scale and the offset, float64 []."""
        return {
            "scale": np.array(self.affine.scale, np.float64),
            "offset": np.array(self.affine.offset, np.float64),
        }


def fit_scale(train_pixels: Pixels) -> AffinePreprocessor:
    """Return x = (2u - 255)/255, from -1 to 1; nothing is fitted."""
    return AffinePreprocessor("scale", AffinePixels(1.0 / 255.0, 0.0))


def fit_global(train_pixels: Pixels) -> AffinePreprocessor:
    """Fit x = (u/255 - mean)/deviation, with one mean and (biased) deviation over all pixels.

    Raises:
        HarnessError: all pixels are equal.
    """
    counts = _histogram(train_pixels)  # integers: exact, and no float copy of the images
    values, total = np.arange(256), int(counts.sum())
    mean = int(counts @ values) / total / 255.0
    variance = int(counts @ values**2) / total / 255.0**2 - mean**2
    if np.count_nonzero(counts) < 2:
        raise HarnessError(
            "global preprocessing: expected training pixels that vary, found a single value, "
            f"{int(np.argmax(counts))}"
        )
    deviation = float(np.sqrt(variance))
    # u/255 = (2u - 255)/510 + 1/2
    return AffinePreprocessor(
        "global", AffinePixels(1.0 / (510.0 * deviation), (0.5 - mean) / deviation)
    )


_FITS: dict[str, Callable[[Pixels], Preprocessor]] = {
    "scale": fit_scale,
    "global": fit_global,
    "zca": fit_zca,
    "gcn-lcn": fit_gcn_lcn,
    "gcn-zca": fit_gcn_zca,
    "pixel-mean": fit_pixel_mean,
    "bipolar": lambda train_pixels: BipolarPreprocessor(),
}
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
    """Rebuild a fitted preprocessing from its kind and :meth:`Preprocessor.state`.

    Raises:
        HarnessError: an unknown kind.
    """
    _check_kind(kind)
    if kind in ("zca", "gcn-zca"):
        return ZcaPreprocessor.from_state(state, contrast=kind == "gcn-zca")
    if kind == "pixel-mean":
        return PixelMeanPreprocessor.from_state(state)
    if kind == "bipolar":
        return BipolarPreprocessor()
    if kind == "gcn-lcn":
        return ContrastPreprocessor.from_state(state)
    return AffinePreprocessor(kind, AffinePixels(float(state["scale"]), float(state["offset"])))


def _histogram(pixels: Pixels) -> npt.NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for first in range(0, len(pixels), 1000):  # bincount makes an int64 copy: 8 times the block
        counts += np.bincount(pixels[first : first + 1000].reshape(-1), minlength=256)
    return counts


def _check_kind(kind: str) -> None:
    if kind not in _FITS:
        raise HarnessError(f"unknown preprocessing {kind!r}; allowed: {', '.join(KINDS)}")
