"""Plane shapes as signed distances, from arithmetic that gives the same bits on every machine.

A shape is its bounding box and a function of the coordinate arrays `x`, `y` that returns the signed
distance to its edge, negative inside (I. Quilez, "2D distance functions"). Only ``+ - * / sqrt floor``
are used, which IEEE 754 rounds exactly, so that drawings have one sha256 everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Shape:
    """A shape: `box` (x0, y0, x1, y1) holds it, `distance(x, y)` is its signed distance."""

    box: Box
    distance: Callable[[Array, Array], Array]


def turn(tangent: float) -> tuple[float, float]:
    """Cosine and sine of twice the angle whose tangent is given, without trigonometry.

    >>> turn(1.0)
    (0.0, 1.0)
    """
    square = tangent * tangent
    return (1 - square) / (1 + square), 2 * tangent / (1 + square)


def wave(t: Array) -> Array:
    """A smooth wave of period 1 and range [-1, 1], nearly a sine.

    >>> wave(np.array([0.0, 0.25, 0.75, 1.0])) + 0.0
    array([ 0.,  1., -1.,  0.])
    """
    y = 2 * (t - np.floor(t)) - 1
    return -4 * y * (1 - np.abs(y))


def ellipse(cx: float, cy: float, rx: float, ry: float, tilt: float = 0.0) -> Shape:
    """An ellipse; `tilt` is the tangent of half its angle (a first-order distance)."""
    c, s = turn(tilt)
    reach = max(rx, ry)

    def distance(x: Array, y: Array) -> Array:
        dx, dy = x - cx, y - cy
        a, b = (c * dx + s * dy) / rx, (c * dy - s * dx) / ry
        near = np.sqrt(a * a + b * b)
        a /= rx
        b /= ry
        return near * (near - 1) / (np.sqrt(a * a + b * b) + 1e-9)

    return Shape((cx - reach, cy - reach, cx + reach, cy + reach), distance)


def capsule(ax: float, ay: float, bx: float, by: float, ra: float, rb: float | None = None) -> Shape:
    """A bar with round ends from a to b, of radius `ra` at a and `rb` (as `ra` by default) at b."""
    rb = ra if rb is None else rb
    ex, ey = bx - ax, by - ay
    length = ex * ex + ey * ey + 1e-12

    def distance(x: Array, y: Array) -> Array:
        dx, dy = x - ax, y - ay
        along = np.clip((dx * ex + dy * ey) / length, 0, 1)
        dx, dy = dx - along * ex, dy - along * ey
        return np.sqrt(dx * dx + dy * dy) - (ra + along * (rb - ra))

    box = min(ax - ra, bx - rb), min(ay - ra, by - rb), max(ax + ra, bx + rb), max(ay + ra, by + rb)
    return Shape(box, distance)


def polygon(*points: tuple[float, float]) -> Shape:
    """A convex polygon, its corners in either order."""
    ends = points[1:] + points[:1]
    area = sum(px * qy - qx * py for (px, py), (qx, qy) in zip(points, ends))
    sign = 1.0 if area > 0 else -1.0
    planes = []
    for (px, py), (qx, qy) in zip(points, ends):
        nx, ny = sign * (qy - py), sign * (px - qx)
        length = float(np.sqrt(nx * nx + ny * ny)) + 1e-12
        nx, ny = nx / length, ny / length
        planes.append((nx, ny, nx * px + ny * py))

    def distance(x: Array, y: Array) -> Array:
        sides = (nx * x + ny * y - offset for nx, ny, offset in planes)
        worst = next(sides)
        for side in sides:
            worst = np.maximum(worst, side)
        return worst

    xs, ys = zip(*points)
    return Shape((min(xs), min(ys), max(xs), max(ys)), distance)


def ring(cx: float, cy: float, radius: float, width: float) -> Shape:
    """A circle line of the given radius, `width` thick on either side."""
    reach = radius + width

    def distance(x: Array, y: Array) -> Array:
        dx, dy = x - cx, y - cy
        return np.abs(np.sqrt(dx * dx + dy * dy) - radius) - width

    return Shape((cx - reach, cy - reach, cx + reach, cy + reach), distance)
