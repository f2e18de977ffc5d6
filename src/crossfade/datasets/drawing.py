"""Pictures of generated scenes, drawn with numpy alone, and a small PNG writer.

Shapes are signed distances (negative inside, in units of the thing's radius), which gives smooth
edges at any picture size. A scene's own seed draws everything that its key leaves open, so a
picture does not depend on which other scenes are drawn with it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from crossfade.datasets.scenes import Scene

IMAGE_SIDE = 48
_SCENES_AT_ONCE = 128
_NOISE = 14.0  # standard deviation, in levels of 255

Floats = NDArray[np.float32]
Distance = Callable[[Floats, Floats], Floats]

RGB = {
    "red": (205, 35, 40),
    "orange": (245, 130, 30),
    "yellow": (245, 220, 50),
    "green": (45, 150, 55),
    "teal": (35, 190, 190),
    "blue": (45, 75, 205),
    "purple": (125, 50, 165),
    "pink": (245, 130, 185),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}

RADIUS = {"small": 0.085, "large": 0.15}
"""Radius of a thing, in picture widths."""

_UNDERNEATH = 0.27  # radius of the large thing that a small one lies on

PLACES = {
    "row": ((0.27, 0.5), (0.73, 0.5)),
    "column": ((0.5, 0.27), (0.5, 0.73)),
    "on": ((0.5, 0.5), (0.5, 0.5)),
    "row of three": ((0.19, 0.5), (0.5, 0.5), (0.81, 0.5)),
    "column of three": ((0.5, 0.19), (0.5, 0.5), (0.5, 0.81)),
    "roof": ((0.27, 0.72), (0.73, 0.72), (0.5, 0.27)),
    "floor": ((0.27, 0.28), (0.73, 0.28), (0.5, 0.73)),
}
"""Where a layout puts its things: (x, y) in picture widths, y downwards."""


def draw(scenes: Sequence[Scene], side: int = IMAGE_SIDE) -> NDArray[np.uint8]:
    """The pictures of `scenes`: (n, side, side, 3) RGB."""
    pictures = np.empty((len(scenes), side, side, 3), dtype=np.uint8)
    for start in range(0, len(scenes), _SCENES_AT_ONCE):
        block = scenes[start : start + _SCENES_AT_ONCE]
        pictures[start : start + len(block)] = _draw_block(block, side)
    return pictures


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """An (h, w, 3) RGB picture as PNG bytes."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row starts with filter type 0
    rows[:, 1:] = picture.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _draw_block(scenes: Sequence[Scene], side: int) -> NDArray[np.uint8]:
    canvas = np.empty((len(scenes), side, side, 3), dtype=np.float32)
    noise = np.empty_like(canvas)
    jobs: dict[tuple[int, str], list[tuple[int, Floats]]] = {}
    for row, scene in enumerate(scenes):
        rng = np.random.default_rng(scene.seed)
        canvas[row] = _background(rng, side)
        for layer, (shape, placed) in enumerate(_placed(rng, scene)):
            jobs.setdefault((layer, shape), []).append((row, placed))
        rng.standard_normal(out=noise[row], dtype=np.float32)
    for (_, shape), job in sorted(jobs.items(), key=lambda item: item[0][0]):
        rows = np.array([row for row, _ in job])
        _paint(canvas, rows, SHAPE_DISTANCE[shape], np.stack([placed for _, placed in job]))
    canvas += _NOISE * noise
    return np.asarray(np.clip(canvas, 0, 255), dtype=np.uint8)


def _background(rng: np.random.Generator, side: int) -> Floats:
    """A dull gradient between two shades of medium brightness."""
    first, second = rng.uniform(95, 165, 2)[:, None] + rng.uniform(-22, 22, (2, 3))
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, side)
    mix = 0.5 + 0.7 * (axis * np.cos(angle) + (axis * np.sin(angle))[:, None])
    return np.asarray(first + mix[:, :, None] * (second - first), dtype=np.float32)


def _placed(rng: np.random.Generator, scene: Scene) -> list[tuple[str, Floats]]:
    """The things from back to front: shape and (x, y, radius, turn, r, g, b)."""
    shift = rng.uniform(-0.04, 0.04, 2)
    placed: list[tuple[str, Floats]] = []
    for thing, (x, y) in zip(scene.things, PLACES[scene.layout], strict=True):
        radius = _UNDERNEATH if scene.layout == "on" and thing.size == "large" else RADIUS[thing.size]
        place = np.array((x, y)) + shift + rng.uniform(-0.04, 0.04, 2)
        color = np.array(RGB[thing.color]) + rng.uniform(-22, 22, 3)
        turn = rng.uniform(-0.25, 0.25)
        values = (*place, radius * rng.uniform(0.88, 1.12), turn, *color)
        placed.append((thing.shape, np.array(values, dtype=np.float32)))
    return placed[::-1]


def _paint(canvas: Floats, rows: NDArray[np.intp], distance: Distance, placed: Floats) -> None:
    side = canvas.shape[1]
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y, radius, turn = placed[:, :4].T[:, :, None, None]
    right, down = (axis[None, None, :] - x) / radius, (axis[None, :, None] - y) / radius
    cosine, sine = np.cos(turn), np.sin(turn)
    inside = 0.5 - distance(cosine * right + sine * down, cosine * down - sine * right) * radius * side
    cover = np.clip(inside, 0, 1)[..., None]
    color = np.clip(placed[:, None, None, 4:], 0, 255)
    canvas[rows] += cover * (color - canvas[rows])


def _circle(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.hypot(u, v) - 0.95)


def _ring(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.abs(np.hypot(u, v) - 0.75) - 0.24)


def _square(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) - 0.84)


def _diamond(u: Floats, v: Floats) -> Floats:
    return np.asarray((np.abs(u) + np.abs(v) - 1.12) / 2**0.5)


def _triangle(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.maximum(v - 0.7, 0.88 * np.abs(u) - 0.48 * (v + 1)))


def _cross(u: Floats, v: Floats) -> Floats:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.asarray(np.maximum(long - 1, short - 0.32))


def _star(u: Floats, v: Floats) -> Floats:
    """Five points: fold the plane into one tenth of a turn, then the distance to that edge."""
    tenth = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(u, -v) + tenth, 2 * tenth) - tenth)
    length = np.hypot(u, v)
    tip, dent = np.array((1.1, 0.0)), 0.48 * np.array((np.cos(tenth), np.sin(tenth)))
    along = (dent - tip) / np.linalg.norm(dent - tip)
    across, up = length * np.cos(angle) - tip[0], length * np.sin(angle)
    return np.asarray(across * along[1] - up * along[0], dtype=np.float32)


def _moon(u: Floats, v: Floats) -> Floats:
    return np.asarray(np.maximum(np.hypot(u, v) - 1, 0.82 - np.hypot(u - 0.5, v)))


SHAPE_DISTANCE: dict[str, Distance] = {
    "circle": _circle,
    "ring": _ring,
    "square": _square,
    "diamond": _diamond,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "moon": _moon,
}
