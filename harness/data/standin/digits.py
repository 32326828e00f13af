"""The look-alikes of MNIST and SVHN: digits in grey, and house numbers in colour."""

import numpy as np

from harness.data.formats import CLASSES, Images
from harness.data.standin.canvas import (
    Placing,
    blur,
    cover,
    paint,
    segment_distance,
    smooth_field,
    stripes,
    to_bytes,
)
from harness.data.standin.draws import Draws, Reals
from harness.data.standin.glyphs import GLYPHS, glyph_distance, ways_of

_BLOCK = 500  # images drawn at once: their canvases stay in the cache


def grey_digits(count: int, name: str) -> Images:
    """Return ``count`` 28 x 28 grey digits, white on black, from the draws ``name``."""
    draws = Draws(name)
    labels = draws.integers(CLASSES, count)
    pixels = np.empty((count, 1, 28, 28), np.uint8)
    for first in range(0, count, _BLOCK):
        part = slice(first, first + _BLOCK)
        pixels[part, 0] = to_bytes(_grey_block(draws, labels[part]))
    return Images(pixels, labels)


def _grey_block(draws: Draws, labels: np.ndarray) -> Reals:
    count = len(labels)
    centre = draws.uniform(12.0, 16.0, count, 2)
    height = draws.uniform(15.0, 20.0, count)
    scale = np.stack([height * draws.uniform(0.45, 0.85, count), height], axis=1)
    shear, turn = draws.uniform(-0.5, 0.25, count), draws.uniform(-0.14, 0.14, count)
    placing = Placing(centre, scale, shear, turn)
    radius = draws.uniform(0.6, 1.9, count)
    ink = cover(_by_glyph(draws, labels, 0.11, placing, 28), radius, 1.3)
    # Ink of uneven strength, a speck of dirt, sensor noise.
    ink *= np.float32(0.85) + np.float32(0.25) * smooth_field(draws, count, 4, 28)
    start = draws.uniform(0.0, 28.0, count, 2)
    speck = segment_distance(start, start + draws.uniform(-5.0, 5.0, count, 2), 28)
    dirt = cover(speck, draws.uniform(-1.5, 1.2, count), 1.3) * draws.uniform(0.3, 1.0, count, 1, 1)
    ink = np.maximum(ink, dirt)
    noisy: Reals = ink + draws.noise(count, 28, 28) * np.float32(0.06)
    return noisy


def _by_glyph(
    draws: Draws,
    labels: np.ndarray,
    wobble: float,
    placing: Placing,
    size: int,
) -> Reals:
    way = draws.integers(1 << 30, len(labels))
    distance = np.empty((len(labels), size, size), np.float32)
    for digit, glyphs in enumerate(GLYPHS):
        for index, glyph in enumerate(glyphs):
            rows = np.flatnonzero((labels == digit) & (way % ways_of(digit) == index))
            if len(rows):
                distance[rows] = glyph_distance(glyph, draws, wobble, placing.of(rows), size)
    return distance


def house_numbers(count: int, name: str, hardness: float) -> Images:
    """Return ``count`` 32 x 32 colour digits between neighbours and clutter, from draws ``name``.

    ``hardness`` from 0 to 1 scales noise, low contrast and shadows (SVHN's extra set is easier).
    """
    draws = Draws(name)
    labels = draws.integers(CLASSES, count)
    pixels = np.empty((count, 3, 32, 32), np.uint8)
    for first in range(0, count, _BLOCK):
        part = slice(first, first + _BLOCK)
        pixels[part] = to_bytes(_house_block(draws, labels[part], hardness))
    return Images(pixels, labels)


def _house_block(draws: Draws, labels: np.ndarray, hardness: float) -> Reals:
    count = len(labels)
    wall, paint_colour = _two_colours(draws, count, 0.42 - 0.2 * hardness)
    image = np.empty((count, 3, 32, 32), np.float32)
    image[:] = wall[:, :, None, None]
    image += (smooth_field(draws, count, 3, 32) * np.float32(0.18))[:, None]
    bricks = stripes(draws, count, 32, 4.0, 14.0) * draws.uniform(0.0, 0.12, count, 1, 1)
    image += bricks[:, None]
    _clutter(draws, image, 2)
    paint(image, paint_colour, _number(draws, labels, image.shape[-1]))
    _clutter(draws, image, 1)
    # One lamp or shadow over wall and number alike.
    light = smooth_field(draws, count, 2, 32) * draws.uniform(
        0.0, 0.2 + 0.3 * hardness, count, 1, 1
    )
    image *= np.float32(1) + light[:, None]
    soft = draws.uniform(0.0, 1.0, count, 1, 1, 1)
    image += (blur(blur(image)) - image) * soft
    return image + draws.noise(count, 3, 32, 32) * np.float32(0.03 + 0.045 * hardness)


def _number(draws: Draws, labels: np.ndarray, size: int) -> Reals:
    """Return the ink of the labelled digit in the middle and of a neighbour on either side."""
    count = len(labels)
    height = draws.uniform(17.0, 25.0, count)
    scale = np.stack([height * draws.uniform(0.42, 0.62, count), height], axis=1)
    shear, turn = draws.uniform(-0.3, 0.3, count), draws.uniform(-0.12, 0.12, count)
    radius = draws.uniform(1.0, 2.4, count)
    middle = draws.uniform(14.5, 17.5, count, 2)
    pitch = scale[:, 0] * draws.uniform(1.25, 1.7, count) + radius
    ink = np.zeros((count, size, size), np.float32)
    for side in (-1.0, 1.0, 0.0):
        digits = labels if side == 0.0 else draws.integers(CLASSES, count)
        offset: Reals = np.stack([pitch, pitch * turn], axis=1) * np.float32(side)
        centre: Reals = middle + offset
        distance = _by_glyph(draws, digits, 0.07, Placing(centre, scale, shear, turn), size)
        shown = cover(distance, radius, 1.4)
        if side != 0.0:  # two numbers in three go on to this side
            shown *= (draws.integers(3, count) > 0).astype(np.float32)[:, None, None]
        ink = np.maximum(ink, shown)
    return ink


def _two_colours(draws: Draws, count: int, contrast: float) -> tuple[Reals, Reals]:
    """Return colours of wall and number [count, 3], at least ``contrast`` apart in lightness."""
    # Nine numbers in ten are lighter than their wall: with as many darker ones a small network
    # that binarizes everything stays at chance for all of a short run.
    wall = draws.uniform(0.1, 0.6, count, 1) + draws.uniform(-0.15, 0.15, count, 3)
    step = draws.uniform(contrast, contrast + 0.35, count, 1)
    lighter = wall[:, 1:2] < draws.uniform(0.45, 0.75, count, 1)
    number = np.where(lighter, wall + step, wall - step) + draws.uniform(-0.12, 0.12, count, 3)
    return wall, number.astype(np.float32)


def _clutter(draws: Draws, image: Reals, pieces: int) -> None:
    count, size = len(image), image.shape[-1]
    for _ in range(pieces):
        start = draws.uniform(-4.0, size + 4.0, count, 2)
        end = start + draws.uniform(-20.0, 20.0, count, 2)
        shape = cover(segment_distance(start, end, size), draws.uniform(-1.0, 2.0, count), 1.5)
        paint(image, draws.uniform(0.0, 1.0, count, 3), shape * np.float32(0.7))
