"""Ten kinds of things built of thick strokes, in the spirit of CIFAR-10's classes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limb:
    """A thick stroke from one point to another in the box -1..1 (y downwards), of some radius.

    ``paint`` picks the colour: 0 the body's, 1 the second colour, 2 dark.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    radius: float
    paint: int = 0


@dataclass(frozen=True)
class Kind:
    """A class: its limbs, back to front, and where its colours and its background come from.

    ``body`` and ``scene`` are mean colours (red, green, blue) in 0..1; draws scatter widely
    around them, so that colour is a hint and shape decides.
    """

    name: str
    limbs: tuple[Limb, ...]
    body: tuple[float, float, float]
    scene: tuple[float, float, float]


def _legs(xs: tuple[float, ...], top: float, bottom: float, radius: float) -> tuple[Limb, ...]:
    return tuple(Limb((x, top), (x * 1.1, bottom), radius) for x in xs)


def _wheels(xs: tuple[float, ...], y: float, radius: float) -> tuple[Limb, ...]:
    return tuple(Limb((x, y), (x, y), radius, 2) for x in xs)


_SKY, _STREET, _FIELD = (0.55, 0.65, 0.8), (0.5, 0.5, 0.48), (0.42, 0.52, 0.32)
_ROOM, _WATER, _POND = (0.55, 0.47, 0.42), (0.35, 0.48, 0.62), (0.36, 0.46, 0.34)
_FUR, _DEER, _STEEL = (0.5, 0.42, 0.36), (0.56, 0.42, 0.3), (0.68, 0.68, 0.7)

KINDS = (
    Kind(
        "airplane",
        (
            Limb((0.05, 0.0), (-0.3, 0.6), 0.1, 1),
            Limb((0.05, 0.0), (-0.25, -0.55), 0.09, 1),
            Limb((-0.75, 0.0), (-0.85, -0.38), 0.08, 1),
            Limb((-0.85, 0.0), (0.85, 0.0), 0.16),
        ),
        _STEEL,
        _SKY,
    ),
    Kind(
        "automobile",
        (
            Limb((-0.3, -0.22), (0.28, -0.22), 0.24, 1),
            Limb((-0.72, 0.12), (0.72, 0.12), 0.22),
            *_wheels((-0.48, 0.48), 0.36, 0.18),
        ),
        (0.58, 0.42, 0.42),
        _STREET,
    ),
    Kind(
        "bird",
        (
            Limb((-0.4, 0.1), (-0.9, 0.0), 0.09),
            Limb((-0.3, 0.12), (0.2, 0.05), 0.3),
            Limb((0.42, -0.28), (0.42, -0.28), 0.2),
            Limb((0.6, -0.26), (0.82, -0.22), 0.06, 2),
            Limb((-0.05, 0.1), (-0.35, -0.35), 0.13, 1),
            Limb((-0.05, 0.4), (-0.05, 0.75), 0.04, 2),
        ),
        (0.5, 0.46, 0.42),
        _SKY,
    ),
    Kind(
        "cat",
        (
            Limb((-0.42, -0.3), (-0.52, -0.75), 0.12),
            Limb((0.42, -0.3), (0.52, -0.75), 0.12),
            Limb((-0.12, 0.05), (0.12, 0.05), 0.52),
            Limb((-0.22, -0.08), (-0.22, -0.08), 0.1, 2),
            Limb((0.22, -0.08), (0.22, -0.08), 0.1, 2),
            Limb((-0.1, 0.28), (0.1, 0.28), 0.07, 1),
        ),
        _FUR,
        _ROOM,
    ),
    Kind(
        "deer",
        (
            Limb((0.5, -0.4), (0.3, -0.9), 0.05, 1),
            Limb((0.55, -0.4), (0.75, -0.9), 0.05, 1),
            *_legs((-0.45, -0.3, 0.2, 0.35), 0.1, 0.85, 0.06),
            Limb((-0.4, 0.0), (0.28, 0.0), 0.22),
            Limb((0.3, -0.05), (0.5, -0.4), 0.12),
            Limb((0.52, -0.42), (0.72, -0.34), 0.11),
        ),
        _DEER,
        _FIELD,
    ),
    Kind(
        "dog",
        (
            Limb((-0.12, 0.0), (0.12, 0.0), 0.46),
            Limb((-0.5, -0.3), (-0.62, 0.3), 0.15, 1),
            Limb((0.5, -0.3), (0.62, 0.3), 0.15, 1),
            Limb((0.0, 0.35), (0.0, 0.5), 0.22),
            Limb((-0.2, -0.1), (-0.2, -0.1), 0.09, 2),
            Limb((0.2, -0.1), (0.2, -0.1), 0.09, 2),
            Limb((0.0, 0.3), (0.0, 0.34), 0.11, 2),
        ),
        _FUR,
        _ROOM,
    ),
    Kind(
        "frog",
        (
            Limb((-0.65, 0.45), (-0.35, 0.1), 0.15),
            Limb((0.65, 0.45), (0.35, 0.1), 0.15),
            Limb((-0.3, 0.15), (0.3, 0.15), 0.38),
            Limb((-0.3, -0.3), (-0.3, -0.3), 0.18, 1),
            Limb((0.3, -0.3), (0.3, -0.3), 0.18, 1),
            Limb((-0.3, -0.3), (-0.3, -0.3), 0.08, 2),
            Limb((0.3, -0.3), (0.3, -0.3), 0.08, 2),
        ),
        (0.42, 0.54, 0.34),
        _POND,
    ),
    Kind(
        "horse",
        (
            Limb((-0.6, -0.1), (-0.82, 0.35), 0.08, 1),
            *_legs((-0.5, -0.3, 0.25, 0.42), 0.1, 0.85, 0.09),
            Limb((-0.4, -0.02), (0.3, -0.02), 0.27),
            Limb((0.35, -0.1), (0.58, -0.6), 0.17),
            Limb((0.48, -0.3), (0.42, -0.72), 0.08, 1),
            Limb((0.6, -0.62), (0.85, -0.4), 0.12),
        ),
        _DEER,
        _FIELD,
    ),
    Kind(
        "ship",
        (
            Limb((-0.05, 0.1), (-0.05, -0.75), 0.05, 2),
            Limb((0.0, -0.5), (0.4, -0.12), 0.1, 1),
            Limb((-0.4, 0.0), (0.25, 0.0), 0.15, 1),
            Limb((-0.7, 0.3), (0.75, 0.22), 0.13),
            Limb((-0.5, 0.45), (0.5, 0.45), 0.12),
        ),
        _STEEL,
        _WATER,
    ),
    Kind(
        "truck",
        (
            Limb((-0.55, -0.2), (0.15, -0.2), 0.36, 1),
            Limb((-0.7, 0.18), (0.75, 0.18), 0.12),
            Limb((0.58, -0.08), (0.68, 0.1), 0.22),
            *_wheels((-0.6, -0.25, 0.58), 0.42, 0.17),
        ),
        (0.6, 0.48, 0.38),
        _STREET,
    ),
)
