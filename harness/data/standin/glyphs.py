"""Ten digits as strokes of our own, several ways of writing each."""

from dataclasses import dataclass

import numpy as np

from harness.data.standin.canvas import Placing, polyline_distance, pose, smooth_corners
from harness.data.standin.draws import Draws, Reals


@dataclass(frozen=True)
class Stroke:
    """A pen stroke: corners in the unit box (y downwards), rounded if ``curved``."""

    curved: bool
    points: tuple[tuple[float, float], ...]


def _curve(*points: tuple[float, float]) -> Stroke:
    return Stroke(True, points)


def _line(*points: tuple[float, float]) -> Stroke:
    return Stroke(False, points)


_BOWL_5 = _curve((0.2, 0.45), (0.65, 0.3), (1.0, 0.55), (0.9, 1.0), (0.45, 1.08), (0.1, 0.9))
_RING_0 = _curve(
    (0.5, 0.0), (0.2, 0.0), (0.0, 0.25), (0.0, 0.75), (0.2, 1.0),
    (0.8, 1.0), (1.0, 0.75), (1.0, 0.25), (0.8, 0.0), (0.5, 0.0),
)  # fmt: skip
_LOOP_8 = _curve(
    (0.5, 0.48), (0.1, 0.35), (0.15, -0.03), (0.85, -0.03), (0.9, 0.35), (0.5, 0.48),
    (0.05, 0.65), (0.05, 1.05), (0.95, 1.05), (0.95, 0.65), (0.5, 0.48),
)  # fmt: skip

# By digit: the ways of writing it.
GLYPHS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    ((_RING_0,), (_RING_0, _line((0.75, 0.1), (0.25, 0.9)))),
    (
        (_line((0.5, 0.0), (0.5, 1.0)),),
        (_line((0.25, 0.25), (0.55, 0.0), (0.55, 1.0)),),
        (_line((0.25, 0.2), (0.5, 0.0), (0.5, 1.0)), _line((0.2, 1.0), (0.8, 1.0))),
    ),
    (
        (
            _curve(
                (0.08, 0.28), (0.15, -0.05), (0.9, -0.08), (0.95, 0.4), (0.45, 0.7), (0.08, 1.0),
            ),
            _line((0.08, 1.0), (0.95, 1.0)),
        ),
        (
            _curve(
                (0.1, 0.2), (0.3, -0.08), (0.95, 0.0), (0.85, 0.5), (0.3, 1.05), (0.0, 0.95),
                (0.2, 0.75), (0.6, 0.95), (1.0, 0.95),
            ),
        ),
    ),
    (
        (
            _curve((0.1, 0.1), (0.5, -0.1), (0.98, 0.05), (0.9, 0.42), (0.4, 0.47)),
            _curve((0.4, 0.47), (1.02, 0.5), (0.98, 1.0), (0.5, 1.1), (0.05, 0.9)),
        ),
        (
            _line((0.1, 0.0), (0.9, 0.0), (0.45, 0.4)),
            _curve((0.45, 0.4), (1.02, 0.42), (1.0, 0.98), (0.5, 1.1), (0.05, 0.9)),
        ),
    ),
    (
        (_line((0.65, 0.0), (0.05, 0.65), (0.98, 0.65)), _line((0.65, 0.0), (0.65, 1.0))),
        (_line((0.2, 0.0), (0.12, 0.55), (0.92, 0.52)), _line((0.82, 0.0), (0.75, 1.0))),
    ),
    (
        (_line((0.88, 0.0), (0.25, 0.0), (0.2, 0.45)), _BOWL_5),
        (_line((0.95, 0.05), (0.3, 0.0)), _line((0.3, 0.0), (0.2, 0.45)), _BOWL_5),
    ),
    (
        (
            _curve(
                (0.8, 0.03), (0.3, 0.15), (0.0, 0.65), (0.15, 1.08), (0.75, 1.08), (1.0, 0.78),
                (0.75, 0.45), (0.3, 0.5), (0.08, 0.75),
            ),
        ),
        (
            _curve(
                (0.4, 0.0), (0.12, 0.4), (0.1, 0.95), (0.6, 1.1), (0.95, 0.8), (0.6, 0.5),
                (0.12, 0.75),
            ),
        ),
    ),
    (
        (_line((0.08, 0.0), (0.92, 0.0), (0.4, 1.0)),),
        (_line((0.1, 0.05), (0.95, 0.0), (0.35, 1.0)), _line((0.35, 0.5), (0.9, 0.5))),
        (_curve((0.1, 0.2), (0.15, 0.0), (0.7, 0.05), (1.0, 0.0), (0.55, 0.5), (0.45, 1.0)),),
    ),
    ((_LOOP_8,),),
    (
        (
            _curve(
                (0.92, 0.25), (0.7, 0.58), (0.1, 0.52), (0.05, 0.05), (0.6, -0.1), (0.92, 0.1),
                (0.92, 0.4), (0.75, 1.0),
            ),
        ),
        (
            _curve((0.85, 0.15), (0.45, -0.1), (0.0, 0.15), (0.2, 0.6), (0.75, 0.5), (0.88, 0.15)),
            _line((0.88, 0.1), (0.85, 1.0)),
        ),
    ),
)  # fmt: skip


def ways_of(digit: int) -> int:
    """Return in how many ways a digit is written."""
    return len(GLYPHS[digit])


def glyph_distance(
    glyph: tuple[Stroke, ...],
    draws: Draws,
    wobble: float,
    placing: Placing,
    size: int,
) -> Reals:
    """Return the distance of each pixel from the strokes of one glyph, [n, size, size].

    Args:
        glyph: one way of writing a digit.
        draws: where the hand's unsteadiness comes from.
        wobble: how far each corner strays at most, in units of the box.
        placing: where the n glyphs go; a unit is the height or width of the box.
        size: width and height of the canvas.
    """
    count, nearest = len(placing.centre), None
    for stroke in glyph:
        corners = np.array(stroke.points, np.float32) - np.float32(0.5)
        strayed = corners + draws.uniform(-wobble, wobble, count, len(corners), 2)
        placed = pose(strayed, placing)
        distance = polyline_distance(smooth_corners(placed, 2 if stroke.curved else 0), size)
        nearest = distance if nearest is None else np.minimum(nearest, distance)
    assert nearest is not None
    return nearest
