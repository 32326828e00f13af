"""Preprocessing against plain formulas, one image or one pixel at a time."""

import numpy as np
import pytest

from harness.data import preprocess
from harness.data.contrast import local_contrast
from harness.data.whitening import fit_zca
from harness.errors import HarnessError


def _pixels(count: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    rough = rng.integers(0, 256, (count, *shape))
    smooth = (rough + np.roll(rough, 1, axis=-1) + np.roll(rough, 1, axis=-2)) / 3
    return smooth.astype(np.uint8)


def test_scale_is_exactly_odd_integers_over_255() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    fitted = preprocess.fit("scale", pixels)
    x = fitted.apply(pixels).reshape(-1)
    assert (x.dtype, x[0], x[255]) == (np.float32, -1.0, 1.0)
    assert np.array_equal(x, ((2.0 * np.arange(256) - 255.0) * (1.0 / 255.0)).astype(np.float32))
    assert fitted.affine == preprocess.AffinePixels(1.0 / 255.0, 0.0)


def test_global_is_one_mean_and_deviation() -> None:
    train, other = _pixels(50, 3, 8, 8), _pixels(60, 3, 8, 8)[50:]
    fitted = preprocess.fit("global", train)
    values = train.astype(np.float64) / 255.0
    expected = (other / 255.0 - values.mean()) / values.std()
    assert np.allclose(fitted.apply(other), expected, atol=1e-6)
    assert fitted.affine is not None
    by_affine = fitted.affine.scale * (2.0 * other - 255.0) + fitted.affine.offset
    assert np.allclose(by_affine, expected, atol=1e-12)


def test_zca_whitens_the_covariance() -> None:
    train = _pixels(4000, 2, 4, 4)
    white = fit_zca(train, bias=1e-9).apply(train).reshape(4000, -1).astype(np.float64)
    assert np.allclose(white.mean(axis=0), 0.0, atol=1e-3)
    assert np.allclose(white.T @ white / 4000, np.eye(32), atol=2e-3)


def test_zca_by_the_formula() -> None:
    train, other = _pixels(300, 1, 5, 5), _pixels(310, 1, 5, 5)[300:]
    x = train.reshape(300, -1) / 255.0
    mean = x.mean(axis=0)
    covariance = (x - mean).T @ (x - mean) / 300
    left, values, _ = np.linalg.svd(covariance + 0.1 * np.eye(25))
    matrix = left @ np.diag(values**-0.5) @ left.T
    expected = (other.reshape(10, -1) / 255.0 - mean) @ matrix
    found = preprocess.fit("zca", train).apply(other)
    assert found.shape == other.shape
    assert np.allclose(found.reshape(10, -1), expected, atol=1e-5)


def _plain_contrast(image: np.ndarray) -> np.ndarray:
    """One image [c, h, w] of u/255: the formulas, pixel by pixel, in float64."""
    centred = image - image.mean()
    image = centred / np.sqrt(10.0 + (centred**2).mean())
    taps = np.array(
        [[np.exp(-(dy**2 + dx**2) / 8.0) for dx in range(-4, 5)] for dy in range(-4, 5)]
    )
    taps /= taps.sum()
    result = np.empty_like(image)
    for c, channel in enumerate(image):
        padded = np.pad(channel, 4)
        for y, x in np.ndindex(*channel.shape):
            result[c, y, x] = channel[y, x] - (padded[y : y + 9, x : x + 9] * taps).sum()
        result[c] /= result[c].std(ddof=1) + 1e-4
    return result


def test_contrast_by_the_formula() -> None:
    train, other = _pixels(6, 3, 12, 12), _pixels(9, 3, 12, 12)[6:]
    largest = max(_plain_contrast(image / 255.0).max() for image in train)
    expected = np.stack([_plain_contrast(image / 255.0) for image in other]) / largest
    assert np.allclose(preprocess.fit("gcn-lcn", train).apply(other), expected, atol=2e-5)


def test_contrast_of_flat_images_is_zero_not_nan() -> None:
    flat = np.full((2, 3, 12, 12), 200, np.uint8)
    assert not preprocess.fit("gcn-lcn", flat).apply(flat).any()
    assert np.isfinite(local_contrast(np.ones((1, 1, 12, 12), np.float32))).all()


@pytest.mark.parametrize("kind", preprocess.KINDS)
def test_state_rebuilds_the_same_map(kind: str) -> None:
    train, other = _pixels(40, 3, 12, 12), _pixels(45, 3, 12, 12)[40:]
    fitted = preprocess.fit(kind, train)
    before = other.copy()
    again = preprocess.from_state(kind, fitted.state())
    assert np.array_equal(again.apply(other), fitted.apply(other))
    assert (again.kind, again.affine) == (kind, fitted.affine)
    assert fitted.apply(other).dtype == np.float32
    assert np.array_equal(other, before)


@pytest.mark.parametrize("kind", preprocess.KINDS)
def test_blocks_do_not_show(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    train = _pixels(25, 1, 12, 12)
    whole = preprocess.fit(kind, train).apply(train)
    monkeypatch.setattr("harness.data.whitening._BLOCK", 10)
    monkeypatch.setattr("harness.data.contrast._BLOCK", 10)
    assert np.allclose(preprocess.fit(kind, train).apply(train), whole, atol=1e-4)


def test_bad_input_is_named() -> None:
    with pytest.raises(HarnessError, match="unknown preprocessing 'whiten'; allowed: scale, gl"):
        preprocess.fit("whiten", _pixels(2, 1, 4, 4))
    with pytest.raises(HarnessError, match="no training images"):
        preprocess.fit("zca", _pixels(0, 1, 4, 4))
    with pytest.raises(HarnessError, match="found a single value, 9"):
        preprocess.fit("global", np.full((3, 1, 4, 4), 9, np.uint8))


def test_contrast_and_whitening_by_the_formula() -> None:
    """BinaryConnect's: each image minus its mean, scaled to a length of 55, then ZCA."""
    train, other = _pixels(60, 1, 4, 4)[:50], _pixels(60, 1, 4, 4)[50:]

    def contrast(pixels: np.ndarray) -> np.ndarray:
        rows = pixels.reshape(len(pixels), -1).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        return np.asarray(55 * rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True)))

    values = contrast(train)
    mean = values.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov((values - mean).T, bias=True))
    matrix = (vectors / np.sqrt(np.maximum(variances, 0) + 0.1)) @ vectors.T
    expected = (contrast(other) - mean) @ matrix
    fitted = preprocess.fit("gcn-zca", train)
    found = fitted.apply(other).reshape(10, -1)
    assert np.allclose(found, expected, atol=2e-4)
    again = preprocess.from_state("gcn-zca", fitted.state())
    assert np.array_equal(again.apply(other), fitted.apply(other))
    flat = np.full((1, 1, 4, 4), 9, np.uint8)
    assert np.isfinite(fitted.apply(flat)).all(), "an image without contrast stays finite"


def test_pixel_mean_centres_each_pixel_and_leaves_constant_ones_at_zero() -> None:
    train = _pixels(50, 1, 4, 4)
    train[:, :, 0] = 7
    fitted = preprocess.fit("pixel-mean", train)
    centred = train - train.mean(axis=0)
    expected = centred / np.sqrt(np.square(centred).mean())
    found = fitted.apply(train)
    assert np.allclose(found, expected, atol=1e-5)
    assert (found[:, :, 0] == 0).all()
    again = preprocess.from_state("pixel-mean", fitted.state())
    assert np.array_equal(again.apply(train), found)
    assert fitted.affine is None
    with pytest.raises(HarnessError, match="images that differ"):
        preprocess.fit("pixel-mean", np.full((3, 1, 2, 2), 4, np.uint8))


def test_bipolar_is_a_threshold_at_half() -> None:
    pixels = np.array([0, 127, 128, 255], np.uint8).reshape(1, 1, 2, 2)
    fitted = preprocess.fit("bipolar", pixels)
    found = preprocess.from_state("bipolar", fitted.state()).apply(pixels)
    assert found.dtype == np.float32
    assert found.reshape(-1).tolist() == [-1, -1, 1, 1]
