"""Draws the images of ``shapes``: signed distances, analytic anti-aliasing, vectorised numpy.

Everything is computed in double precision. Machines whose sine differs in the last bit still round
to the same bytes, so a data digest is the same everywhere.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cascadezoo.data.base import Split
    from cascadezoo.data.shapes import ShapesConfig

__all__ = ["PALETTE", "draw_shapes"]

Floats = NDArray[np.float64]

PALETTE: Floats = np.array(
    [
        (226, 32, 44),  # red
        (247, 129, 20),  # orange
        (246, 196, 10),  # yellow
        (34, 166, 68),  # green
        (20, 184, 196),  # turquoise
        (30, 86, 218),  # blue
        (128, 46, 190),  # violet
        (238, 72, 162),  # pink
    ],
    dtype=np.float64,
)
"""RGB of the 8 colours, in [0, 255]."""

_DRAWS = 16
"""Random numbers per image; a multiple of 4, the numbers of one Philox counter."""
_COLOR, _WIDTH, _ANGLE, _X, _Y, _HUE, _SATURATION, _VALUE, _TINT, _TINT2, _SLOPE = range(11)
_PALE = 0.2
"""The share of a colour in a background tint."""
_MARGIN = 1 / 32
"""The share of an image's width that stays free, half of it at either edge."""
_CHUNK_PIXELS = 2**19
"""Number of pixels drawn at once: small enough for the processor's cache."""


def draw_shapes(
    config: ShapesConfig, split: Split, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw the first ``count`` images of a split.

    Args:
        config: appearance of the images.
        split: images of the two splits are drawn independently.
        count: number of images.

    Returns:
        Images, uint8 [count, 3, size, size], and labels, int64 [count], ``i % classes``.
    """
    size, classes = config.size, config.classes
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    key = _key(config.seed, split)
    step = max(1, _CHUNK_PIXELS // (size * size)) * classes
    for start in range(0, count, step):
        stop = min(count, start + step)
        draws = _uniform(key, start, stop)
        for label, name in enumerate(config.class_names):
            # start is a multiple of the number of classes
            images[start + label : stop : classes] = _draw(config, name, draws[label::classes])
    return images, np.arange(count, dtype=np.int64) % classes


def _key(seed: int, split: str) -> int:
    text = f"cascadezoo shapes {seed} {split}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def _uniform(key: int, start: int, stop: int) -> Floats:
    """The numbers in [0, 1) of images ``start`` to ``stop``, [stop - start, _DRAWS]."""
    # Raw Philox output is fixed by its definition; the output of numpy's Generator is not.
    source = np.random.Philox(key=key, counter=start * _DRAWS // 4)
    bits = source.random_raw((stop - start) * _DRAWS) >> np.uint64(11)
    return bits.astype(np.float64).reshape(-1, _DRAWS) * 2.0**-53


def _draw(config: ShapesConfig, name: str, draws: Floats) -> NDArray[np.uint8]:
    """Images of one class, uint8 [N, 3, size, size], from their numbers, [N, _DRAWS]."""
    distance, reach = _SHAPES[name]
    size = config.size

    def column(number: int) -> Floats:
        return draws[:, number, None, None]

    width = config.min_width + (config.max_width - config.min_width) * column(_WIDTH)
    # The image's edge cuts off no shape at any rotation.
    room = size * (1 - _MARGIN)
    radius = np.minimum(0.5 * size * width, room / (2 * reach))
    slack = room - 2 * reach * radius
    center_x = size / 2 + slack * (column(_X) - 0.5)
    center_y = size / 2 + slack * (column(_Y) - 0.5)
    turn = np.deg2rad(config.rotation) * (2 * column(_ANGLE) - 1)

    pixels = np.arange(size) + 0.5
    x = (pixels[None, None, :] - center_x) / radius
    y = (pixels[None, :, None] - center_y) / radius
    sine, cosine = np.sin(turn), np.cos(turn)
    outside = distance(x * cosine + y * sine, y * cosine - x * sine)
    # If a pixel's centre is at distance d outside a straight edge, 1/2 - d of it is inside.
    cover = np.clip(0.5 - outside * radius, 0.0, 1.0)[:, None]

    color = _colors(config, draws)[:, :, None, None]
    ground = _background(config, draws)
    return np.asarray(np.rint(ground + cover * (color - ground)), dtype=np.uint8)


def _colors(config: ShapesConfig, draws: Floats) -> Floats:
    """The shapes' RGB, [N, 3] in [0, 255]."""
    if config.colors == "palette":
        return PALETTE[_palette_index(draws)]
    return _hsv(draws[:, _HUE], 0.65 + 0.35 * draws[:, _SATURATION], 0.35 + 0.55 * draws[:, _VALUE])


def _background(config: ShapesConfig, draws: Floats) -> Floats:
    """The backgrounds' RGB in [0, 255], broadcasting to [N, 3, size, size]."""
    if config.background == "white":
        return np.full((1, 1, 1, 1), 255.0)
    # Never a tint of the shape's own colour.
    other = _palette_index(draws) + 1 + (draws[:, _TINT] * (len(PALETTE) - 1)).astype(np.int64)
    first = _pale(PALETTE[other % len(PALETTE)])
    if config.background == "palette":
        return first
    second = _pale(PALETTE[(draws[:, _TINT2] * len(PALETTE)).astype(np.int64)])
    angle = 2 * math.pi * draws[:, _SLOPE, None, None, None]
    axis = (np.arange(config.size) + 0.5) / config.size - 0.5
    along = axis[None, None, None, :] * np.cos(angle) + axis[None, None, :, None] * np.sin(angle)
    # The corners are at most 1/sqrt(2) from the middle.
    return first + (second - first) * (0.5 + along / math.sqrt(2))


def _palette_index(draws: Floats) -> NDArray[np.int64]:
    return (draws[:, _COLOR] * len(PALETTE)).astype(np.int64)


def _pale(color: Floats) -> Floats:
    return (255 + (color - 255) * _PALE)[:, :, None, None]


def _hsv(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """RGB, [N, 3] in [0, 255], of hue, saturation and value in [0, 1]."""
    offset = np.array([5.0, 3.0, 1.0])
    phase = (offset + 6 * hue[:, None]) % 6
    ramp: Floats = np.clip(np.minimum(phase, 4 - phase), 0, 1)
    return 255 * value[:, None] * (1 - saturation[:, None] * ramp)


# Signed distances, negative inside, of shapes around the origin; y points down. Corners are
# intersections of half-planes, so they are sharp.


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - 0.92


def _square(x: Floats, y: Floats) -> Floats:
    return _box(x, y, 0.8, 0.8)


def _triangle(x: Floats, y: Floats) -> Floats:
    y = y - 0.12
    slanted = math.sqrt(3) / 2 * np.abs(x) - 0.5 * y
    return np.maximum(slanted, y) - 0.56


def _star(x: Floats, y: Floats) -> Floats:
    tip, valley, half = 1.1, 0.5, math.pi / 5
    angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    # The edge from a tip at angle 0 to a valley at angle pi/5.
    edge_x, edge_y = valley * math.cos(half) - tip, valley * math.sin(half)
    length = math.hypot(edge_x, edge_y)
    return ((radius * np.cos(angle) - tip) * edge_y - radius * np.sin(angle) * edge_x) / length


def _ring(x: Floats, y: Floats) -> Floats:
    return np.abs(np.hypot(x, y) - 0.69) - 0.23


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_box(x, y, 0.95, 0.3), _box(x, y, 0.3, 0.95))


def _heart(x: Floats, y: Floats) -> Floats:
    # A square on its corner, with half-discs on its two upper sides.
    x, y = np.abs(x), y - 0.13
    side = 1.14
    middle = side / math.sqrt(8)
    lobe = np.hypot(x - middle, y + middle) - side / 2
    return np.minimum((x + np.abs(y)) / math.sqrt(2) - side / 2, lobe)


def _crescent(x: Floats, y: Floats) -> Floats:
    x = x - 0.28
    return np.maximum(np.hypot(x, y) - 0.98, 0.78 - np.hypot(x - 0.5, y))


def _diamond(x: Floats, y: Floats) -> Floats:
    wide, high = 0.58, 1.02
    return (np.abs(x) * high + np.abs(y) * wide - wide * high) / math.hypot(wide, high)


def _hexagon(x: Floats, y: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(y, math.sqrt(3) / 2 * x + 0.5 * y) - 0.84


def _bar(x: Floats, y: Floats) -> Floats:
    return np.hypot(x - np.clip(x, -0.66, 0.66), y) - 0.3


def _half_disc(x: Floats, y: Floats) -> Floats:
    y = y - 0.4
    return np.maximum(np.hypot(x, y) - 0.96, y)


def _box(x: Floats, y: Floats, wide: float, high: float) -> Floats:
    return np.maximum(np.abs(x) - wide, np.abs(y) - high)


_SHAPES: dict[str, tuple[Callable[[Floats, Floats], Floats], float]] = {
    "circle": (_circle, 0.92),
    "square": (_square, 1.14),
    "triangle": (_triangle, 1.19),
    "star": (_star, 1.1),
    "ring": (_ring, 0.92),
    "cross": (_cross, 1.0),
    "heart": (_heart, 1.06),
    "crescent": (_crescent, 1.18),
    "diamond": (_diamond, 1.02),
    "hexagon": (_hexagon, 0.97),
    "bar": (_bar, 0.96),
    "half-disc": (_half_disc, 1.05),
}
"""The distance function of each shape, and its largest distance from the origin."""
