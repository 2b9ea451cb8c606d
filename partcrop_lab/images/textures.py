"""Ten procedural backgrounds: noise in octaves, courses of brick, planks, ripples, blades of grass."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from partcrop_lab.images.shapes import wave

Array = np.ndarray
Colour = tuple[float, float, float]


@functools.lru_cache(maxsize=256)
def _taps(size: int, cells: int) -> tuple[Array, Array]:
    """For each of `size` pixels, the lattice cell it falls in and its smoothed place within."""
    at = (np.arange(size) + 0.5) / size * cells
    cell = np.floor(at)
    place = at - cell
    return cell.astype(np.intp), place * place * (3 - 2 * place)


def noise(rng: np.random.Generator, size: int, across: int, down: int) -> Array:
    """Value noise (size, size) in [0, 1] on a lattice of `across` x `down` cells, the same at any size."""
    lattice = rng.random((down + 1, across + 1))
    column, fx = _taps(size, across)
    row, fy = _taps(size, down)
    lattice = lattice[:, column] * (1 - fx) + lattice[:, column + 1] * fx
    fy = fy[:, None]
    return lattice[row] * (1 - fy) + lattice[row + 1] * fy


def octaves(rng: np.random.Generator, size: int, across: int, down: int, count: int = 3) -> Array:
    """Value noise summed over `count` octaves, each twice as fine and half as strong, in [0, 1]."""
    total = sum(noise(rng, size, across << k, down << k) / (1 << k) for k in range(count))
    return total / (2 - 2 / (1 << count))


def mix(first: Colour, second: Colour, share: Array) -> Array:
    """The image (3, h, w) that goes from `first` to `second` as `share` (h, w) goes from 0 to 1."""
    a, b = np.array(first)[:, None, None], np.array(second)[:, None, None]
    return a + (b - a) * share


def step(value: Array, low: float, high: float) -> Array:
    """A ramp from 0 at `low` to 1 at `high`."""
    return np.clip((value - low) / (high - low), 0, 1)


def _axes(size: int) -> tuple[Array, Array]:
    at = (np.arange(size) + 0.5) / size
    return at[None, :], at[:, None]


def grass(rng: np.random.Generator, size: int) -> Array:
    """Upright blades over soft patches of light."""
    blades = noise(rng, size, 44, 9) * 0.6 + noise(rng, size, 26, 5) * 0.4
    return mix((0.12, 0.27, 0.08), (0.55, 0.72, 0.30), 0.75 * blades + 0.35 * octaves(rng, size, 3, 3) - 0.05)


def water(rng: np.random.Generator, size: int) -> Array:
    """Ripples that grow towards the viewer, bent by noise."""
    _, y = _axes(size)
    bend = octaves(rng, size, 4, 6)
    ripples = wave(9 * y * (1.6 - 0.6 * y) + 2.6 * bend + rng.random())
    glint = step(ripples, 0.45, 1.0) * (0.3 + 0.7 * noise(rng, size, 7, 14))
    return mix((0.05, 0.26, 0.42), (0.20, 0.52, 0.64), 0.6 * bend + 0.4 * y) + 0.38 * glint


def sky(rng: np.random.Generator, size: int) -> Array:
    """Blue, paler towards the horizon, with clouds."""
    _, y = _axes(size)
    clouds = step(octaves(rng, size, 3, 5, 4), 0.48, 0.72)
    blue = mix((0.26, 0.50, 0.83), (0.68, 0.82, 0.94), y)
    return blue + (0.96 - blue) * 0.9 * clouds


def sand(rng: np.random.Generator, size: int) -> Array:
    """Fine grains over wind ripples."""
    x, y = _axes(size)
    ripples = wave(7 * y + 2 * (rng.random() - 0.5) * x + 1.5 * octaves(rng, size, 3, 3))
    grains = noise(rng, size, 60, 60)
    return mix((0.68, 0.54, 0.35), (0.93, 0.83, 0.62), 0.45 + 0.16 * ripples + 0.55 * (grains - 0.5))


def brick(rng: np.random.Generator, size: int) -> Array:
    """Courses of brick, every second one shifted by half, with pale mortar."""
    x, y = _axes(size)
    courses = 6 + 3 * rng.random()
    v = y * courses + rng.random()
    row = np.floor(v)
    u = x * courses / 2.2 + rng.random() + 0.5 * (row % 2)
    column = np.floor(u)
    tones = rng.random((12, 8))[row.astype(int) % 12, column.astype(int) % 8]
    joint = np.minimum(np.minimum(v - row, row + 1 - v) * 1.0, np.minimum(u - column, column + 1 - u) * 2.2)
    wall = mix((0.46, 0.18, 0.12), (0.74, 0.40, 0.28), 0.7 * tones + 0.4 * noise(rng, size, 24, 24) - 0.05)
    return wall + (0.74 - wall) * (1 - step(joint, 0.06, 0.16))


def wood(rng: np.random.Generator, size: int) -> Array:
    """Upright planks with grain."""
    x, _ = _axes(size)
    u = x * (3 + 2 * rng.random()) + rng.random()
    plank = np.floor(u)
    tone = rng.random(8)[plank.astype(int) % 8]
    grain = wave(11 * u + 3.5 * octaves(rng, size, 5, 2) + 5 * tone)
    board = mix(
        (0.40, 0.24, 0.12), (0.76, 0.54, 0.32), 0.25 + 0.4 * tone + 0.2 * grain + 0.25 * noise(rng, size, 40, 5)
    )
    return board * (0.5 + 0.5 * step(np.minimum(u - plank, plank + 1 - u), 0.01, 0.05))


def snow(rng: np.random.Generator, size: int) -> Array:
    """White drifts with blue hollows and a few sparkles."""
    drifts = octaves(rng, size, 2, 4)
    sparkle = step(noise(rng, size, 50, 50), 0.86, 0.95)
    return mix((0.66, 0.75, 0.88), (0.95, 0.97, 1.0), step(drifts, 0.2, 0.75)) + 0.12 * sparkle


def leaves(rng: np.random.Generator, size: int) -> Array:
    """Fallen leaves: each point takes the colour of the nearest of jittered seeds, dark between them."""
    x, y = _axes(size)
    cells = 8
    jitter, tones = rng.random((2, cells + 2, cells + 2)), rng.random((cells + 2, cells + 2))
    u, v = x * cells, y * cells
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    best, runner_up, tone = np.full((size, size), 9.0), np.full((size, size), 9.0), np.zeros((size, size))
    for down in (0, 1, 2):
        for across in (0, 1, 2):
            place = row + down, column + across
            dx, dy = column + across - 1 + jitter[0][place] - u, row + down - 1 + jitter[1][place] - v
            far = dx * dx + 0.6 * dx * dy + dy * dy
            closer = far < best
            runner_up = np.where(closer, best, np.minimum(runner_up, far))
            tone = np.where(closer, tones[place], tone)
            best = np.minimum(best, far)
    leaf = mix((0.48, 0.26, 0.12), (0.82, 0.60, 0.26), tone)
    return leaf * (0.55 + 0.45 * step(runner_up - best, 0.02, 0.35)) * (0.8 + 0.4 * noise(rng, size, 20, 20))


def asphalt(rng: np.random.Generator, size: int) -> Array:
    """Grey grit with a painted line."""
    x, y = _axes(size)
    grit = 0.6 * noise(rng, size, 62, 62) + 0.4 * octaves(rng, size, 4, 4)
    road = mix((0.20, 0.21, 0.23), (0.52, 0.52, 0.53), grit)
    offset = np.abs(y - 0.15 - 0.7 * rng.random() - 0.5 * (rng.random() - 0.5) * x)
    line = (1 - step(offset, 0.022, 0.034)) * step(wave(1.6 * x + rng.random()), -0.5, -0.4)
    return road + (0.82 - road) * 0.8 * line


def carpet(rng: np.random.Generator, size: int) -> Array:
    """A woven rug with bands and lozenges in two muted colours."""
    x, y = _axes(size)
    warm = rng.random()
    weave = 0.5 + 0.5 * noise(rng, size, 56, 56)
    phase = rng.random(2)
    lozenges = step(np.abs(wave(2.5 * x + phase[0])) + np.abs(wave(2.5 * y + phase[1])), 0.9, 1.1)
    first = (0.42 + 0.2 * warm, 0.16, 0.30 - 0.12 * warm)
    second = (0.70, 0.60 - 0.1 * warm, 0.52 - 0.15 * warm)
    return mix(first, second, 0.75 * lozenges) * (0.55 + 0.5 * weave)


TEXTURES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "grass": grass,
    "water": water,
    "sky": sky,
    "sand": sand,
    "brick": brick,
    "wood": wood,
    "snow": snow,
    "leaves": leaves,
    "asphalt": asphalt,
    "carpet": carpet,
}
