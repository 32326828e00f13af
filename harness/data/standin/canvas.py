"""Drawing on small float32 canvases: capsules, poses, smooth fields, compositing.

Points are (x, y) in pixels, y downwards; pixel i covers i to i + 1. Arrays lead with the image.
"""

from typing import NamedTuple

import numpy as np

from harness.data.formats import Pixels
from harness.data.standin.draws import Draws, Reals

_HALF = np.float32(0.5)


class Placing(NamedTuple):
    """How n shapes, given around the origin, are placed on their canvases.

    ``centre``: where the origin goes, [n, 2]; ``scale``: pixels a unit across and down, [n, 2];
    ``shear``: x gained a unit of y, [n]; ``turn``: tangent of half the angle of rotation, [n].
    """

    centre: Reals
    scale: Reals
    shear: Reals
    turn: Reals

    def of(self, rows: np.ndarray) -> "Placing":
        """Return the placing of some of the shapes."""
        return Placing(*(values[rows] for values in self))


def segment_distance(start: Reals, end: Reals, size: int) -> Reals:
    """Return the distance of each pixel's centre from a segment, [n, size, size].

    Args:
        start, end: the segment's ends in pixels, [n, 2].
        size: width and height of the canvas.
    """
    return np.sqrt(_squared_distance(start, end, size))


def polyline_distance(points: Reals, size: int) -> Reals:
    """Return the distance of each pixel's centre from polylines [n, corners, 2]."""
    nearest = _squared_distance(points[:, 0], points[:, 1], size)
    for corner in range(1, points.shape[1] - 1):
        np.minimum(
            nearest,
            _squared_distance(points[:, corner], points[:, corner + 1], size),
            out=nearest,
        )
    return np.sqrt(nearest)


def _squared_distance(start: Reals, end: Reals, size: int) -> Reals:
    centres = np.arange(size, dtype=np.float32) + _HALF
    dx, dy = (end - start).T
    length2 = np.maximum(dx * dx + dy * dy, np.float32(1e-6))
    x = centres[None, :] - start[:, :1]
    y = centres[None, :] - start[:, 1:]
    along_x, along_y = x * (dx / length2)[:, None], y * (dy / length2)[:, None]
    along = along_x[:, None, :] + along_y[:, :, None]
    np.clip(along, 0, 1, out=along)
    off_x = x[:, None, :] - along * dx[:, None, None]
    off_y = y[:, :, None] - along * dy[:, None, None]
    off_x *= off_x
    off_y *= off_y
    off_x += off_y
    squared: Reals = off_x
    return squared


def cover(distance: Reals, radius: Reals, softness: float) -> Reals:
    """Return how much of each pixel a stroke of this radius [n] covers, 0 to 1."""
    edge = (radius[:, None, None] - distance) * np.float32(1 / softness) + _HALF
    covered: Reals = np.clip(edge, 0, 1)
    return covered


def smooth_corners(points: Reals, times: int) -> Reals:
    """Cut the corners of polylines [n, corners, 2] (Chaikin), keeping their ends."""
    for _ in range(times):
        first, second = points[:, :-1], points[:, 1:]
        near = first * np.float32(0.75) + second * np.float32(0.25)
        far = first * np.float32(0.25) + second * np.float32(0.75)
        cut = np.stack([near, far], axis=2).reshape(len(points), -1, 2)
        points = np.concatenate([points[:, :1], cut[:, 1:-1], points[:, -1:]], axis=1)
    return points


def pose(points: Reals, placing: Placing) -> Reals:
    """Place points [n, k, 2] on the canvas: scale, shear, turn, then move."""
    centre, scale, shear, turn = placing
    x = points[..., 0] * scale[:, :1]
    y = points[..., 1] * scale[:, 1:]
    x = x + y * shear[:, None]
    norm = np.float32(1) + turn * turn  # sine and cosine without libm
    cosine = ((np.float32(1) - turn * turn) / norm)[:, None]
    sine = (np.float32(2) * turn / norm)[:, None]
    placed_x = x * cosine - y * sine + centre[:, :1]
    placed_y = x * sine + y * cosine + centre[:, 1:]
    return np.stack([placed_x, placed_y], axis=-1)


def smooth_field(draws: Draws, count: int, cells: int, size: int) -> Reals:
    """Return random fields [count, size, size] in [-1, 1], smooth over size/cells pixels."""
    grid = draws.uniform(-1, 1, count, cells + 1, cells + 1)
    place = (np.arange(size, dtype=np.float32) + _HALF) * np.float32(cells / size)
    low = place.astype(np.int64)
    part = place - low.astype(np.float32)
    across = grid[:, :, low] + (grid[:, :, low + 1] - grid[:, :, low]) * part
    upper, lower = across[:, low, :], across[:, low + 1, :]
    return upper + (lower - upper) * part[None, :, None]


def stripes(draws: Draws, count: int, size: int, narrowest: float, widest: float) -> Reals:
    """Return triangular waves [count, size, size] in [-1, 1] of random width and direction."""
    turn = draws.uniform(-1, 1, count)
    norm = (np.float32(1) + turn * turn) * draws.uniform(narrowest, widest, count)
    across, down = (np.float32(1) - turn * turn) / norm, np.float32(2) * turn / norm
    place = np.arange(size, dtype=np.float32)
    phase = draws.uniform(0, 1, count)[:, None]
    x = place[None, :] * across[:, None] + phase
    wave = x[:, None, :] + (place[None, :] * down[:, None])[:, :, None]
    wave -= np.floor(wave)
    triangle: Reals = np.abs(wave * np.float32(4) - np.float32(2)) - np.float32(1)
    return triangle


def paint(image: Reals, colour: Reals, alpha: Reals) -> None:
    """Blend colour [n, 3] (or [n, 3, size, size]) into images of that size by alpha, in place."""
    layer = colour[:, :, None, None] if colour.ndim == 2 else colour
    image += (layer - image) * alpha[:, None]


def blur(image: Reals) -> Reals:
    """Return images [..., size, size] smoothed by (1, 2, 1)/4 along both axes, edges repeated."""
    for axis in (-1, -2):
        last = image.shape[axis] - 1
        places = np.arange(last + 1)
        before = np.take(image, np.maximum(places - 1, 0), axis=axis)
        after = np.take(image, np.minimum(places + 1, last), axis=axis)
        image = (before + after) * np.float32(0.25) + image * _HALF
    return image


def to_bytes(image: Reals) -> Pixels:
    """Return uint8 pixels of images whose values run from 0 to 1, rounded half to even."""
    pixels: Pixels = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    return pixels
