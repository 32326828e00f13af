"""ZCA whitening: of the released Torch7 code, and after contrast normalisation of BinaryConnect."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from harness.data.formats import Pixels

# Added to every variance. The value of the libraries that the authors used (dp, pylearn2): it
# mutes the directions in which [0, 1] images hardly vary, which are mostly noise.
ZCA_BIAS = 0.1
# Length of an image after contrast normalisation, as in those libraries: about 1 a pixel.
GCN_SCALE = 55.0
_BLOCK = 5000

Reals = npt.NDArray[np.float32]


class ZcaPreprocessor:
    """y = (x - mean) P with P = V diag(1/sqrt(d + bias)) V^T, covariance = V diag(d) V^T.

    x = u/255; with ``contrast``, each image minus its mean, scaled to a length of 55.
    """

    affine = None

    def __init__(self, mean: Reals, matrix: Reals, contrast: bool = False) -> None:
        self._mean = mean
        self._matrix = matrix
        self._contrast = contrast
        self.kind = "gcn-zca" if contrast else "zca"

    def apply(self, pixels: Pixels) -> Reals:
        """Return the whitened images, float32 of the shape of ``pixels`` [n, c, h, w]."""
        whitened = np.empty((len(pixels), self._mean.size), np.float32)
        for part, block in _blocks(pixels, self._mean, self._contrast):
            np.matmul(block, self._matrix, out=whitened[part])
        return whitened.reshape(pixels.shape)

    def state(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return ``mean`` float32 [features] and ``matrix`` float32 [features, features]."""
        return {"mean": self._mean, "matrix": self._matrix}

    @classmethod
    def from_state(
        cls, state: Mapping[str, npt.NDArray[np.generic]], contrast: bool = False
    ) -> "ZcaPreprocessor":
        """Rebuild from :meth:`state`."""
        mean, matrix = (state[name].astype(np.float32) for name in ("mean", "matrix"))
        return cls(mean, matrix, contrast)


def fit_zca(train_pixels: Pixels, bias: float = ZCA_BIAS) -> ZcaPreprocessor:
    """Fit ZCA on uint8 [n, c, h, w]: feature means and the biased covariance of u/255.

    CIFAR-10's 45,000 x 3,072 take 7 s on 2 cores and 0.5 GB beyond the pixels: the
    covariance is summed block by block, in float64 over float32 products.
    """
    count = len(train_pixels)
    mean = (train_pixels.reshape(count, -1).mean(axis=0) / 255.0).astype(np.float32)
    return _fit(train_pixels, mean, bias, contrast=False)


def fit_gcn_zca(train_pixels: Pixels) -> ZcaPreprocessor:
    """Fit ZCA on images of normalised contrast: BinaryConnect's preprocessing of CIFAR-10."""
    nothing = np.zeros(int(np.prod(train_pixels.shape[1:])), np.float32)
    blocks = _blocks(train_pixels, nothing, contrast=True)
    total = sum(block.sum(axis=0, dtype=np.float64) for _, block in blocks)
    mean = np.asarray(total / len(train_pixels), np.float32)
    return _fit(train_pixels, mean, ZCA_BIAS, contrast=True)


def _fit(train_pixels: Pixels, mean: Reals, bias: float, contrast: bool) -> ZcaPreprocessor:
    count, features = len(train_pixels), mean.size
    covariance = np.zeros((features, features))
    for _, block in _blocks(train_pixels, mean, contrast):
        covariance += block.T @ block
    variances, vectors = np.linalg.eigh(covariance / count)
    scales = 1.0 / np.sqrt(np.maximum(variances, 0.0) + bias)  # rounding can go below zero
    return ZcaPreprocessor(mean, ((vectors * scales) @ vectors.T).astype(np.float32), contrast)


def _blocks(pixels: Pixels, mean: Reals, contrast: bool) -> Iterator[tuple[slice, Reals]]:
    for first in range(0, len(pixels), _BLOCK):
        part = slice(first, min(first + _BLOCK, len(pixels)))
        block = pixels[part].reshape(part.stop - first, -1).astype(np.float32)
        block /= 255.0
        if contrast:
            block -= block.mean(axis=1, keepdims=True)
            lengths = np.linalg.norm(block, axis=1, keepdims=True)
            block *= GCN_SCALE / np.where(lengths < 1e-8, GCN_SCALE, lengths)  # flat: as it is
        block -= mean
        yield part, block
