"""The ten classes of partshapes: each draws its proportions and lists its strokes from back to front.

An object lives in the square [-1, 1] x [-1, 1], x to the right, y down, and faces right.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

from partcrop_lab.images.shapes import Shape, capsule, ellipse, polygon, ring

Colour = tuple[float, float, float]
Draw = Callable[[float, float], float]

DARK: Colour = (0.09, 0.09, 0.11)
GLASS: Colour = (0.66, 0.84, 0.93)
WHITE: Colour = (0.97, 0.97, 0.95)


@dataclass(frozen=True)
class Palette:
    """The colours of one object: `main` and `second` fill its parts, `third` patterns `main`."""

    main: Colour
    second: Colour
    third: Colour


@dataclass(frozen=True)
class Stroke:
    """Shapes laid down together: the part they belong to, their colour, that of the pattern on it, rim or none."""

    part: str
    colour: Colour
    shapes: tuple[Shape, ...]
    inlay: Colour | None = None
    rim: bool = True


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour from hue, saturation and value in [0, 1]; the hue wraps around."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """The colour that lies `share` of the way from `first` to `second`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second))
    return red, green, blue


def _any_palette(r: Draw) -> Palette:
    hue, apart = r(0, 1), r(0.2, 0.8)
    return Palette(
        hsv(hue, r(0.45, 0.9), r(0.55, 0.98)),
        hsv(hue + apart, r(0.35, 0.8), r(0.45, 0.95)),
        hsv(hue + r(-0.12, 0.12), r(0.2, 0.6), r(0.25, 1.0)),
    )


def _fur_palette(r: Draw) -> Palette:
    hue, saturation, value = r(0.04, 0.11), r(0.1, 0.7), r(0.3, 0.95)
    fur = hsv(hue, saturation, value)
    return Palette(fur, hsv(hue, saturation, 0.55 * value), hsv(hue, 0.3 * saturation, r(0.2, 1.0)))


def _tree_palette(r: Draw) -> Palette:
    hue = r(0.22, 0.42) if r(0, 1) < 0.65 else r(0.02, 0.14)
    bark = hsv(r(0.05, 0.09), r(0.35, 0.65), r(0.3, 0.5))
    return Palette(hsv(hue, r(0.5, 0.85), r(0.4, 0.85)), bark, hsv(hue + r(-0.08, 0.08), 0.6, r(0.3, 0.95)))


def chair(r: Draw) -> tuple[Stroke, ...]:
    """A kitchen chair seen from the front and a little from the side."""
    p = _any_palette(r)
    w, k, depth = r(0.42, 0.55), r(0.12, 0.3), r(0.22, 0.32)
    top, seat, leg = r(-0.98, -0.75), r(0.08, 0.2), r(0.045, 0.07)
    far = seat - depth
    rear = tuple(capsule(s * w + k, far, s * (w + 0.03) + k, 0.78, leg) for s in (-0.95, 0.95))
    front = tuple(capsule(s * w, seat + 0.05, s * (w + 0.05), 0.97, leg * 1.1) for s in (-0.95, 0.95))
    posts = tuple(capsule(s * w * 0.96 + k, far, s * w * 0.96 + k, top, leg) for s in (-1, 1))
    if r(0, 1) < 0.5:
        height = r(0.55, 0.95) * (far - top)
        fill = (polygon((k - w, top), (k + w, top), (k + w, top + height), (k - w, top + height)),)
    else:
        rails = (0.06, 0.42, 0.75)
        fill = tuple(capsule(k - w, top + t * (far - top), k + w, top + t * (far - top), 0.075) for t in rails)
    plate = polygon((-w - 0.05, seat), (w + 0.05, seat), (w + k + 0.03, far), (k - w - 0.03, far))
    edge = polygon((-w - 0.05, seat), (w + 0.05, seat), (w + 0.05, seat + 0.11), (-w - 0.05, seat + 0.11))
    return (
        Stroke("legs", p.second, rear),
        Stroke("back", p.second, posts),
        Stroke("back", p.main, fill, inlay=p.third),
        Stroke("legs", p.second, front),
        Stroke("seat", p.main, (plate,), inlay=p.third),
        Stroke("seat", p.second, (edge,)),
    )


def dog(r: Draw) -> tuple[Stroke, ...]:
    """A dog that stands, seen from the side."""
    p = _fur_palette(r)
    fat, leg, hip, chest = r(0.2, 0.29), r(0.075, 0.105), r(-0.52, -0.42), r(0.26, 0.36)
    hx, hy, hr = r(0.56, 0.66), r(-0.56, -0.38), r(0.22, 0.27)
    snout, foot = r(0.22, 0.36), r(0.8, 0.95)
    stride = r(-0.12, 0.12)
    far_legs = (
        capsule(hip + 0.12, 0.1, hip + 0.14 + stride, foot - 0.05, leg),
        capsule(chest - 0.1, 0.1, chest - 0.1 - stride, foot - 0.05, leg),
    )
    near_legs = (
        capsule(hip - 0.05, 0.05, hip - 0.05 - stride, foot, leg * 1.3, leg),
        capsule(chest + 0.08, 0.05, chest + 0.08 + stride, foot, leg * 1.2, leg),
    )
    tail = capsule(hip - 0.1, -0.08, r(-0.98, -0.8), r(-0.65, -0.1), 0.09, 0.05)
    body = (capsule(hip, 0.02, chest, -0.02, fat), capsule(chest, -0.05, hx - 0.04, hy + 0.08, fat * 0.85, hr * 0.7))
    muzzle = capsule(hx + 0.1, hy + 0.07, hx + 0.1 + snout, hy + 0.11, 0.14, 0.1)
    if r(0, 1) < 0.6:
        ears = (ellipse(hx - 0.12, hy + 0.04, 0.1, r(0.2, 0.28), r(-0.1, 0.15)),)
    else:
        ears = tuple(
            polygon((hx + x - 0.11, hy - 0.1), (hx + x - 0.03, hy - 0.42), (hx + x + 0.1, hy - 0.14))
            for x in (0.02, -0.14)
        )
    shade = blend(p.main, DARK, 0.28)
    return (
        Stroke("legs", shade, far_legs),
        Stroke("tail", p.main, (tail,)),
        Stroke("legs", p.main, near_legs),
        Stroke("body", p.main, body, inlay=p.third),
        Stroke("head", p.main, (ellipse(hx, hy, hr, hr * 0.94),)),
        Stroke("muzzle", p.main, (muzzle,)),
        Stroke("muzzle", DARK, (ellipse(hx + 0.16 + snout, hy + 0.04, 0.075, 0.06),), rim=False),
        Stroke("ears", p.second, ears),
        Stroke("head", DARK, (ellipse(hx + 0.07, hy - 0.06, 0.045, 0.05),), rim=False),
    )


def car(r: Draw) -> tuple[Stroke, ...]:
    """A car seen from the side: saloon, hatchback or van."""
    p = _any_palette(r)
    sill, belt, roof = r(0.3, 0.38), r(-0.1, 0.0), r(-0.52, -0.4)
    rear, front = r(-0.85, -0.5), r(0.15, 0.32)
    rake = r(0.2, 0.32)
    wheel, rx, fx = r(0.19, 0.24), r(-0.62, -0.54), r(0.52, 0.6)
    nose = belt + r(0.08, 0.16)
    cabin = polygon((rear - 0.1, belt + 0.05), (rear + 0.08, roof), (front, roof), (front + rake, belt + 0.05))
    body = (polygon((-0.95, belt + 0.05), (-0.9, belt), (0.55, belt), (0.92, nose), (0.97, sill), (-0.97, sill)),)
    middle = (rear + front) / 2 + 0.05
    panes = (
        polygon((rear + 0.05, belt), (rear + 0.15, roof + 0.08), (middle - 0.05, roof + 0.08), (middle - 0.05, belt)),
        polygon(
            (middle + 0.04, belt),
            (middle + 0.04, roof + 0.08),
            (front - 0.03, roof + 0.08),
            (front + rake - 0.12, belt),
        ),
    )
    wheels = (ellipse(rx, sill, wheel, wheel), ellipse(fx, sill, wheel, wheel))
    hubs = (ellipse(rx, sill, wheel * 0.48, wheel * 0.48), ellipse(fx, sill, wheel * 0.48, wheel * 0.48))
    return (
        Stroke("roof", p.main, (cabin,)),
        Stroke("windows", GLASS, panes),
        Stroke("body", p.main, body, inlay=p.third),
        Stroke("lights", (1.0, 0.92, 0.55), (ellipse(0.88, nose + 0.1, 0.08, 0.07),)),
        Stroke("lights", (0.85, 0.12, 0.1), (ellipse(-0.9, belt + 0.13, 0.06, 0.08),)),
        Stroke("wheels", DARK, wheels, rim=False),
        Stroke("wheels", (0.75, 0.76, 0.78), hubs, rim=False),
    )


def bird(r: Draw) -> tuple[Stroke, ...]:
    """A bird that stands, its wing folded or raised."""
    p = _any_palette(r)
    long, fat, lean = r(0.48, 0.58), r(0.29, 0.37), r(-0.28, -0.12)
    hx, hy, hr = r(0.42, 0.52), r(-0.55, -0.42), r(0.2, 0.26)
    bill = r(0.2, 0.36)
    legs = tuple(capsule(x, 0.25, x + 0.04, r(0.82, 0.92), 0.035) for x in (-0.06, 0.12))
    feet = tuple(capsule(x - 0.04, 0.9, x + 0.2, 0.92, 0.03) for x in (-0.06, 0.12))
    droop = r(-0.05, 0.4)
    tail = polygon((-0.35, -0.02), (-0.28, 0.2), (-0.95, droop + 0.24), (-0.98, droop))
    if r(0, 1) < 0.6:
        wing = ellipse(-0.12, 0.02, r(0.32, 0.42), r(0.15, 0.2), r(-0.22, -0.02))
    else:
        tip = r(-0.55, -0.2)
        wing = polygon((0.16, 0.0), (-0.28, 0.1), (tip - 0.15, -0.75), (tip + 0.1, -0.92))
    return (
        Stroke("legs", (0.85, 0.55, 0.15), legs + feet, rim=False),
        Stroke("tail", p.second, (tail,)),
        Stroke(
            "body",
            p.main,
            (ellipse(0, 0.05, long, fat, lean), capsule(0.22, -0.12, hx, hy, fat * 0.7, hr * 0.8)),
            inlay=p.third,
        ),
        Stroke(
            "beak",
            (0.98, 0.66, 0.12),
            (polygon((hx + 0.12, hy - 0.08), (hx + 0.12, hy + 0.12), (hx + 0.18 + bill, hy + 0.07)),),
        ),
        Stroke("head", p.main, (ellipse(hx, hy, hr, hr),)),
        Stroke("wing", p.second, (wing,)),
        Stroke("head", WHITE, (ellipse(hx + 0.08, hy - 0.04, 0.075, 0.075),), rim=False),
        Stroke("head", DARK, (ellipse(hx + 0.1, hy - 0.04, 0.042, 0.042),), rim=False),
    )


def fish(r: Draw) -> tuple[Stroke, ...]:
    """A fish seen from the side."""
    p = _any_palette(r)
    long, fat = r(0.58, 0.68), r(0.28, 0.46)
    spread, fork = r(0.3, 0.5), r(-0.85, -0.72)
    tail = (polygon((-0.42, 0), (-0.98, -spread), (fork, 0.04)), polygon((-0.42, 0), (-0.98, spread), (fork, -0.04)))
    crest, sweep = r(0.2, 0.34), r(-0.25, 0.0)
    fins = (
        polygon((-0.25, -fat * 0.75), (sweep, -fat - crest), (0.35, -fat * 0.75)),
        polygon((-0.2, fat * 0.75), (sweep - 0.1, fat + crest * 0.8), (0.15, fat * 0.8)),
    )
    side_fin = ellipse(0.08, fat * 0.25, 0.17, 0.09, r(-0.3, 0.1))
    ex = 0.1 + long * 0.62
    return (
        Stroke("tail", p.second, tail),
        Stroke("fins", p.second, fins),
        Stroke("body", p.main, (ellipse(0.1, 0, long, fat),), inlay=p.third),
        Stroke("fins", p.second, (side_fin,)),
        Stroke("eye", WHITE, (ellipse(ex, -fat * 0.22, 0.095, 0.095),)),
        Stroke("eye", DARK, (ellipse(ex + 0.02, -fat * 0.22, 0.052, 0.052),), rim=False),
        Stroke("mouth", DARK, (capsule(0.07 + long, fat * 0.16, long - 0.06, fat * 0.3, 0.022),), rim=False),
    )


def aeroplane(r: Draw) -> tuple[Stroke, ...]:
    """An airliner in flight, seen from the side and a little from above."""
    p = _any_palette(r)
    pale = blend(p.main, WHITE, r(0.4, 0.9))
    fat, span, sweep = r(0.13, 0.18), r(0.6, 0.85), r(0.3, 0.5)
    root = r(0.05, 0.2)
    near = polygon((root + 0.14, 0.04), (root - 0.25, 0.04), (root - sweep - 0.24, span), (root - sweep - 0.08, span))
    far = polygon(
        (root + 0.18, -0.04),
        (root - 0.1, -0.04),
        (root - sweep * 0.6, -span * 0.62),
        (root - sweep * 0.5 + 0.06, -span * 0.62),
    )
    fin = polygon((-0.86, 0), (-0.5, 0), (-0.82, r(-0.58, -0.42)), (-0.98, -0.5))
    plane = polygon((-0.85, 0.0), (-0.62, 0.0), (-0.86, 0.28), (-0.98, 0.28))
    hull = (capsule(-0.5, 0, 0.78, 0, fat), capsule(-0.92, -0.05, -0.5, 0, 0.05, fat))
    panes = tuple(ellipse(x, -0.045, 0.032, 0.036) for x in (-0.4, -0.24, -0.08, 0.08, 0.24, 0.4, 0.56))
    cockpit = polygon((0.72, -0.13), (0.86, -0.1), (0.9, -0.02), (0.74, -0.02))
    engine = capsule(root - sweep * 0.5 - 0.02, span * 0.48, root - sweep * 0.5 + 0.16, span * 0.48, 0.07)
    return (
        Stroke("wings", pale, (far,)),
        Stroke("tail", p.second, (fin,)),
        Stroke("fuselage", pale, hull, inlay=p.third),
        Stroke("windows", (0.13, 0.2, 0.32), (*panes, cockpit), rim=False),
        Stroke("tail", p.second, (plane,)),
        Stroke("engine", p.second, (engine,)),
        Stroke("wings", pale, (near,)),
    )


def house(r: Draw) -> tuple[Stroke, ...]:
    """A house with a gable, a door, windows and a chimney."""
    p = _any_palette(r)
    wall = blend(p.main, WHITE, r(0.25, 0.7))
    w, eaves, ridge = r(0.6, 0.82), r(-0.25, -0.05), r(-0.92, -0.7)
    over = r(0.08, 0.16)
    walls = polygon((-w, eaves - 0.05), (w, eaves - 0.05), (w, 0.85), (-w, 0.85))
    flat = r(0.0, 0.45) if r(0, 1) < 0.6 else 0.0
    roof = polygon((-w - over, eaves), (-flat * w - 0.01, ridge), (flat * w + 0.01, ridge), (w + over, eaves))
    cx = r(0.25, 0.45) * w
    chimney = polygon((cx, ridge - 0.05), (cx + 0.18, ridge - 0.05), (cx + 0.18, eaves - 0.05), (cx, eaves - 0.05))
    dx = r(-0.15, 0.15) * w
    door = polygon((dx - 0.14, 0.85), (dx - 0.14, r(0.22, 0.36)), (dx + 0.14, 0.3), (dx + 0.14, 0.85))
    top, half = eaves + r(0.14, 0.22), r(0.13, 0.17)
    panes = tuple(
        polygon((x - half, top), (x + half, top), (x + half, top + 0.34), (x - half, top + 0.34))
        for x in (-0.62 * w, 0.62 * w)
    )
    bars = tuple(capsule(x, top, x, top + 0.34, 0.02) for x in (-0.62 * w, 0.62 * w))
    return (
        Stroke("chimney", p.second, (chimney,)),
        Stroke("walls", wall, (walls,), inlay=p.third),
        Stroke("roof", p.second, (roof,)),
        Stroke("windows", GLASS, panes),
        Stroke("windows", WHITE, bars, rim=False),
        Stroke("door", blend(p.main, DARK, 0.5), (door,)),
        Stroke("door", (0.95, 0.85, 0.4), (ellipse(dx + 0.08, 0.6, 0.035, 0.035),), rim=False),
    )


def tree(r: Draw) -> tuple[Stroke, ...]:
    """A tree, broad-leaved or a conifer, with a bare pair of branches."""
    p = _tree_palette(r)
    fork, thick = r(0.25, 0.4), r(0.09, 0.14)
    trunk = (capsule(0, 0.0, 0, 0.92, thick * 0.8, thick * 1.25),)
    branches = tuple(capsule(0, fork + 0.2, s * r(0.32, 0.48), fork - r(0.05, 0.2), 0.055, 0.035) for s in (-1, 1))
    if r(0, 1) < 0.65:
        wide, high = r(0.45, 0.6), r(-0.42, -0.3)
        blobs = ((-0.75, 0.22), (0.75, 0.22), (-0.45, -0.3), (0.45, -0.3), (0.0, 0.1))
        crown = tuple(ellipse(bx * wide, high + by + 0.05, r(0.3, 0.42), r(0.28, 0.36)) for bx, by in blobs)
    else:
        wide = r(0.5, 0.7)
        tiers = ((-0.98, -0.45, 0.55), (-0.7, -0.1, 0.8), (-0.4, 0.24, 1.0))
        crown = tuple(polygon((0, top), (k * wide, low), (-k * wide, low)) for top, low, k in tiers)
    return (
        Stroke("trunk", p.second, trunk),
        Stroke("branches", p.second, branches),
        Stroke("crown", p.main, crown, inlay=p.third),
    )


def cup(r: Draw) -> tuple[Stroke, ...]:
    """A cup on its saucer."""
    p = _any_palette(r)
    w, foot, top, low = r(0.5, 0.62), r(0.34, 0.5), r(-0.62, -0.42), r(0.55, 0.66)
    lip = r(0.1, 0.16)
    handle = ring(w - 0.02, top + 0.5 * (low - top) - 0.04, r(0.24, 0.3), r(0.05, 0.075))
    body = (polygon((-w, top), (w, top), (foot, low), (-foot, low)), ellipse(0, low, foot, lip * 0.7))
    return (
        Stroke("saucer", p.second, (ellipse(0, low + 0.06, r(0.8, 0.95), r(0.16, 0.22)),)),
        Stroke("handle", p.main, (handle,)),
        Stroke("body", p.main, body, inlay=p.third),
        Stroke("rim", blend(p.main, WHITE, 0.5), (ellipse(0, top, w, lip),)),
        Stroke(
            "rim",
            hsv(r(0.04, 0.1), r(0.5, 0.9), r(0.2, 0.6)),
            (ellipse(0, top + 0.015, w * 0.85, lip * 0.68),),
            rim=False,
        ),
    )


def bicycle(r: Draw) -> tuple[Stroke, ...]:
    """A bicycle seen from the side."""
    p = _any_palette(r)
    radius, base, tyre = r(0.36, 0.42), r(0.5, 0.56), r(0.045, 0.065)
    hub, bar = 0.38, r(0.04, 0.055)
    cx, sx, sy = r(-0.08, 0.0), r(-0.28, -0.18), r(-0.36, -0.24)
    fx, fy = r(0.28, 0.36), r(-0.38, -0.28)
    tubes = (
        (-base, hub, cx, hub),
        (-base, hub, sx, sy),
        (cx, hub, sx, sy - 0.1),
        (cx, hub, fx, fy),
        (sx, sy + 0.04, fx, fy),
        (fx, fy, base, hub),
    )
    frame = tuple(capsule(*tube, bar) for tube in tubes)
    grip = r(-0.02, 0.22)
    bars = (
        capsule(fx, fy, fx - 0.05, fy - 0.22, bar),
        capsule(fx - 0.05, fy - 0.22, fx + 0.05 + grip, fy - 0.26, 0.055),
    )
    saddle = capsule(sx - 0.15, sy - 0.14, sx + 0.16, sy - 0.12, 0.085, 0.05)
    wheels = tuple(ring(x, hub, radius, tyre) for x in (-base, base))
    spokes = tuple(
        capsule(x - dx, hub - dy, x + dx, hub + dy, 0.012)
        for x in (-base, base)
        for dx, dy in ((radius, 0), (0, radius))
    )
    crank = (ellipse(cx, hub, 0.1, 0.1), capsule(cx, hub, cx + 0.1, hub + 0.2, 0.035))
    return (
        Stroke("wheels", (0.7, 0.7, 0.72), spokes, rim=False),
        Stroke("wheels", DARK, wheels, rim=False),
        Stroke("frame", p.main, frame, rim=False),
        Stroke("pedals", (0.25, 0.25, 0.28), crank, rim=False),
        Stroke("handlebar", DARK, bars, rim=False),
        Stroke("saddle", blend(p.second, DARK, 0.55), (saddle,), rim=False),
    )


OBJECTS: dict[str, Callable[[Draw], tuple[Stroke, ...]]] = {
    "chair": chair,
    "dog": dog,
    "car": car,
    "bird": bird,
    "fish": fish,
    "aeroplane": aeroplane,
    "house": house,
    "tree": tree,
    "cup": cup,
    "bicycle": bicycle,
}
