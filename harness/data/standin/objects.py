"""The look-alike of CIFAR-10: coloured things and textures before cluttered scenes."""

import numpy as np

from harness.data.formats import CLASSES, Images
from harness.data.standin.canvas import (
    Placing,
    blur,
    cover,
    paint,
    pose,
    segment_distance,
    smooth_field,
    stripes,
    to_bytes,
)
from harness.data.standin.draws import Draws, Reals
from harness.data.standin.shapes import KINDS, Kind, Limb

_BLOCK = 500
_SIZE = 32


def colour_objects(count: int, name: str) -> Images:
    """Return ``count`` 32 x 32 colour images of ten kinds of things, from draws ``name``."""
    draws = Draws(name)
    labels = draws.integers(CLASSES, count)
    pixels = np.empty((count, 3, _SIZE, _SIZE), np.uint8)
    for first in range(0, count, _BLOCK):
        for label, kind in enumerate(KINDS):
            rows = first + np.flatnonzero(labels[first : first + _BLOCK] == label)
            pixels[rows] = to_bytes(_scene(draws, kind, len(rows)))
    return Images(pixels, labels)


def _scene(draws: Draws, kind: Kind, count: int) -> Reals:
    image = _background(draws, kind, count)
    _distract(draws, image)
    _draw_thing(draws, image, kind)
    light = smooth_field(draws, count, 2, _SIZE) * draws.uniform(0.0, 0.45, count, 1, 1)
    image *= np.float32(1) + light[:, None]
    image += (blur(image) - image) * draws.uniform(0.0, 1.0, count, 1, 1, 1)
    return image + draws.noise(count, 3, _SIZE, _SIZE) * draws.uniform(0.01, 0.09, count, 1, 1, 1)


def _background(draws: Draws, kind: Kind, count: int) -> Reals:
    # Three scenes in five are the kind's own; the others may stand anywhere.
    own = draws.integers(5, count, 1) < 3
    scenes = np.array([other.scene for other in KINDS], np.float32)
    elsewhere = scenes[draws.integers(len(KINDS), count)]
    colour = np.where(own, np.array(kind.scene, np.float32), elsewhere)
    colour = colour + draws.uniform(-0.22, 0.22, count, 3)
    image = np.empty((count, 3, _SIZE, _SIZE), np.float32)
    image[:] = colour[:, :, None, None]
    for cells, strength in ((2, 0.2), (5, 0.16), (11, 0.1)):
        field = smooth_field(draws, count, cells, _SIZE)
        image += field[:, None] * draws.uniform(-strength, strength, count, 3, 1, 1)
    wave = stripes(draws, count, _SIZE, 3.0, 16.0) * draws.uniform(0.0, 0.12, count, 1, 1)
    return image + wave[:, None]


def _distract(draws: Draws, image: Reals) -> None:
    for _ in range(4):
        start = draws.uniform(-4.0, _SIZE + 4.0, len(image), 2)
        end = start + draws.uniform(-14.0, 14.0, len(image), 2)
        radius = draws.uniform(-2.0, 4.0, len(image))
        shape = cover(segment_distance(start, end, _SIZE), radius, 1.5)
        paint(image, draws.uniform(0.1, 0.9, len(image), 3), shape * np.float32(0.8))


def _draw_thing(draws: Draws, image: Reals, kind: Kind) -> None:
    count = len(image)
    mirrored = (draws.integers(2, count) * 2 - 1).astype(np.float32)
    reach = draws.uniform(9.5, 16.0, count)
    scale = np.stack([reach * mirrored, reach * draws.uniform(0.75, 1.2, count)], axis=1)
    centre = draws.uniform(12.0, 20.0, count, 2)
    shear, turn = draws.uniform(-0.3, 0.3, count), draws.uniform(-0.2, 0.2, count)
    placing = Placing(centre, scale, shear, turn)
    coat = stripes(draws, count, _SIZE, 2.5, 9.0) * draws.uniform(-0.12, 0.18, count, 1, 1)
    coat = coat + smooth_field(draws, count, 6, _SIZE) * np.float32(0.12)
    colours = _colours(draws, kind, count)
    for limb in kind.limbs:
        shape = _limb_cover(draws, limb, placing, reach)
        paint(image, colours[limb.paint][:, :, None, None] + coat[:, None], shape)


def _limb_cover(draws: Draws, limb: Limb, placing: Placing, reach: Reals) -> Reals:
    count = len(reach)
    ends = np.array([limb.start, limb.end], np.float32) + draws.uniform(-0.09, 0.09, count, 2, 2)
    placed = pose(ends, placing)
    radius = reach * np.float32(limb.radius) * draws.uniform(0.75, 1.3, count)
    return cover(segment_distance(placed[:, 0], placed[:, 1], _SIZE), radius, 1.4)


def _colours(draws: Draws, kind: Kind, count: int) -> tuple[Reals, Reals, Reals]:
    shade = draws.uniform(-0.28, 0.28, count, 1)
    body = np.array(kind.body, np.float32) + shade + draws.uniform(-0.2, 0.2, count, 3)
    second = body + draws.uniform(-0.35, 0.35, count, 1) + draws.uniform(-0.12, 0.12, count, 3)
    dark = draws.uniform(0.0, 0.25, count, 3)
    return body, second, dark
