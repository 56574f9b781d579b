"""Draw worlds: things on plots of a floor, a camera that looks at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from datakit.errors import UsageError
from datakit.motion import MotionKind

from .deform import Jelly, Sheet, Wave
from .paths import Bounce, CameraPath, Curve, Linear, Orbit, RigidPath, Spin, Still, Sway, Vec3
from .shapes import Box, Cylinder, Float, Plane, Room, Shape, Sphere
from .textures import random_texture
from .world import World, WorldInstance, make_instance, make_view

#: Radius in metres of the part of the floor that is divided into plots.
_STAGE_RADIUS = 2.9
_ROOM_HALF, _ROOM_HEIGHT = 11.0, 6.5
#: Focal length over the larger image side: 35 mm on a 32 mm sensor, as Kubric's camera.
_FOCAL = 35 / 32
_MAX_SWEEP = np.radians(60)
#: Baseline in metres and further turn in radians of each next camera of a rig.
_BASELINE, _FAN = 0.25, np.radians(12)

Rng = np.random.Generator


@dataclass(frozen=True)
class _Plot:
    """A disc of floor that one thing, or a thing and what circles it, never leaves."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class _Thing:
    """An instance before it has an id and a colour."""

    name: str
    shape: Shape
    path: RigidPath
    motion: MotionKind


def random_world(
    seed: int,
    *,
    num_frames: int = 24,
    size: tuple[int, int] = (128, 128),
    motion: str = "rigid",
    camera: str = "moving",
    num_views: int = 1,
    fps: float = 12.0,
    background: str = "room",
    lens: str = "plain",
) -> World:
    """Draw a world of things that stand, move and deform on a floor; a pure function of its arguments.

    Nothing cuts into anything else or into the floor. With motion "rigid" or "mixed" and a camera that does
    not only rotate, one thing leaves the picture and comes back in any clip of 1.5 s or more.

    Args:
        seed: Any non-negative integer.
        num_frames: T.
        size: (W, H) pixels of every view.
        motion: "static" (nothing moves), "rigid" (some things move), "points" (some deform) or "mixed".
        camera: "moving" (arc or dolly), "static" or "rotating" (about its own centre only).
        num_views: Cameras on one rig: "camera", "camera_1", ...; the second is a stereo partner to the right
            of the first, with parallel axis; further ones are turned to the right as well.
        fps: Frames per second.
        background: "room" (every ray hits something) or "open" (a finite floor under an empty sky).
        lens: "plain" (square pixels, centred, fixed) or "general" (fx != fy, off centre, slowly zooming).

    Returns:
        The world.

    Raises:
        UsageError: An argument is not one of those above.
    """
    _check_choice("motion", motion, tuple(_CAST))
    _check_choice("camera", camera, ("moving", "static", "rotating"))
    _check_choice("background", background, ("room", "open"))
    _check_choice("lens", lens, ("plain", "general"))
    if min(num_frames, num_views, *size) < 1 or fps <= 0:
        raise UsageError("A world needs frames, views and pixels", found=(num_frames, num_views, size, fps))
    stage, look, paint = (np.random.default_rng([seed, k]) for k in range(3))
    times = np.arange(num_frames) / fps
    duration = float(num_frames / fps)
    azimuth = stage.uniform(0, 2 * np.pi)
    things = _things(stage, motion, azimuth, duration)
    views = _views(look, camera, azimuth, duration, size, num_views, lens)
    return World(
        name=f"{motion}-{camera}-{seed:05d}",
        seed=seed,
        num_frames=num_frames,
        fps=fps,
        views={name: make_view(path, size, times) for name, path in views.items()},
        instances=tuple(_instance(paint, k, thing, times) for k, thing in enumerate(things, start=1)),
        background=_background(paint, background, times),
    )


def _check_choice(name: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise UsageError(f"Unknown {name}", expected=", ".join(choices), found=found)


def _instance(rng: Rng, id: int, thing: _Thing, times: Float) -> WorldInstance:
    texture = random_texture(rng, longest=0.9, shortest=0.1, contrast=0.14, tint=0.5)
    return make_instance(id, thing.name, thing.shape, thing.path, texture, motion=thing.motion, times=times)


def _background(rng: Rng, kind: str, times: Float) -> WorldInstance:
    texture = random_texture(rng, longest=4.8, shortest=0.3, contrast=0.1, tint=0.25, shade=0.3)
    half = _ROOM_HALF
    shape: Shape = (
        Plane(half, half) if kind == "open" else Room((-half, -half, 0.0), (half, half, _ROOM_HEIGHT))
    )
    return make_instance(0, "background", shape, RigidPath(), texture, motion=MotionKind.STATIC, times=times)


# --- things ---------------------------------------------------------------------------------------------


def _things(rng: Rng, motion: str, azimuth: float, duration: float) -> list[_Thing]:
    builders = [builder for builder, num in _CAST[motion] for _ in range(num)]
    plots = _plots(rng, len(builders))
    things = [thing for builder, plot in zip(builders, plots, strict=True) for thing in builder(rng, plot)]
    if motion in ("rigid", "mixed"):
        things.append(_leaver(rng, azimuth, duration))
    return things


def _plots(rng: Rng, num: int) -> list[_Plot]:
    """Throw disjoint discs onto the stage, a little smaller whenever they do not fit; largest first."""
    shrink = 1.0
    while True:
        plots: list[_Plot] = []
        for _ in range(400):
            radius = shrink * rng.uniform(0.75, 1.05)
            reach, angle = (_STAGE_RADIUS - radius) * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
            plot = _Plot(reach * np.cos(angle), reach * np.sin(angle), radius)
            if all(np.hypot(plot.x - p.x, plot.y - p.y) > plot.radius + p.radius for p in plots):
                plots.append(plot)
            if len(plots) == num:
                return sorted(plots, key=lambda each: -each.radius)
        shrink *= 0.95


def _still(rng: Rng, plot: _Plot) -> list[_Thing]:
    shape, rest = _solid(rng, 0.7 * plot.radius)
    path = RigidPath(Still((plot.x, plot.y, rest)), Spin((0.0, 0.0, rng.uniform(0, 2 * np.pi))))
    return [_Thing(_name("still", shape), shape, path, MotionKind.STATIC)]


def _slider(rng: Rng, plot: _Plot) -> list[_Thing]:
    shape, rest = _solid(rng, 0.45 * plot.radius)
    reach, angle = 0.5 * plot.radius, rng.uniform(0, 2 * np.pi)
    swing = (reach * np.cos(angle), reach * np.sin(angle), 0.0)
    curve = Sway((plot.x, plot.y, rest), swing, rng.uniform(1.0, 2.2), rng.uniform(0, 2 * np.pi))
    return [_rigid("slider", shape, curve, _turn(rng, 1.5))]


def _roller(rng: Rng, plot: _Plot) -> list[_Thing]:
    radius, angle = 0.4 * plot.radius, rng.uniform(0, 2 * np.pi)
    reach, speed = plot.radius - radius, rng.uniform(0.3, 0.6)
    ahead = np.array([np.cos(angle), np.sin(angle), 0.0])
    # In a long clip it rolls to and fro. Its spin never turns back, so there it slips.
    curve = Sway((plot.x, plot.y, radius), _vec(reach * ahead), speed / reach, -0.5)
    spin = Spin((0, 0, rng.uniform(0, 6)), _vec(np.cross((0, 0, 1), ahead)), speed / radius)
    return [_rigid("roller", Sphere(radius), curve, spin)]


def _orbiter(rng: Rng, plot: _Plot) -> list[_Thing]:
    pillar = Cylinder(0.2 * plot.radius, rng.uniform(0.5, 0.75))
    upright = RigidPath(Still((plot.x, plot.y, pillar.half_height)))
    shape, rest = _solid(rng, 0.28 * plot.radius)
    omega = rng.uniform(1.2, 2.4) * rng.choice([-1, 1])
    centre = (plot.x, plot.y, rest + rng.uniform(0.0, 0.3))
    curve = Orbit(centre, 0.7 * plot.radius, omega, rng.uniform(0, 2 * np.pi))
    return [
        _Thing("still-pillar", pillar, upright, MotionKind.STATIC),
        _rigid("orbiter", shape, curve, Spin((0, 0, rng.uniform(0, 6)), (0, 0, 1), omega)),
    ]


def _bouncer(rng: Rng, plot: _Plot) -> list[_Thing]:
    shape, _ = _solid(rng, 0.5 * plot.radius)
    shape = _within(shape, 0.5 * plot.radius)
    height, angle = rng.uniform(0.5, 1.1), rng.uniform(0, 2 * np.pi)
    reach = 0.45 * plot.radius
    swing = (reach * np.cos(angle), reach * np.sin(angle), 0.0)
    period = 2 * np.sqrt(2 * height / 9.81)
    curve = Bounce((plot.x, plot.y, shape.bound_radius), height, period, rng.uniform(0.1, 0.9), swing)
    return [_rigid("bouncer", shape, curve, _tumble(rng, 2.5))]


def _leaver(rng: Rng, azimuth: float, duration: float) -> _Thing:
    """Drive along the far side of the stage, out of the picture and back again."""
    shape, rest = _solid(rng, 0.6)
    back, side = _back_and_side(azimuth)
    lane = back * (_STAGE_RADIUS + 0.8)
    side = side * rng.choice([-1, 1])
    at = lane + 2.2 * side
    curve = Sway((at[0], at[1], rest), _vec(4.4 * side), np.pi / max(duration, 1.5), 0.0)
    return _rigid("leaver", shape, curve, _turn(rng, 1.0))


def _flag(rng: Rng, plot: _Plot) -> list[_Thing]:
    sheet = _sheet(rng, 0.85 * plot.radius, rng.uniform(0.45, 0.7))
    stand = (np.pi / 2, 0.0, 0.0)  # rest plane upright: local y points up
    curve = Sway((plot.x, plot.y, sheet.half_y + sheet.max_height + 0.15), (0, 0, 0.1), rng.uniform(1.0, 2.0))
    spin = Spin(stand, (0, 0, 1), rng.uniform(-0.8, 0.8))
    return [_Thing("flag", sheet, RigidPath(curve, spin), MotionKind.POINTS)]


def _carpet(rng: Rng, plot: _Plot) -> list[_Thing]:
    side = 0.58 * plot.radius
    sheet = _sheet(rng, side, side)
    curve = Sway((plot.x, plot.y, rng.uniform(0.5, 0.9)), (0.1 * plot.radius, 0, 0.08), rng.uniform(1.0, 2.0))
    spin = Spin((rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15), 0), (0, 0, 1), rng.uniform(-0.6, 0.6))
    return [_Thing("carpet", sheet, RigidPath(curve, spin), MotionKind.POINTS)]


def _jelly(rng: Rng, plot: _Plot) -> list[_Thing]:
    swell = rng.uniform(0.12, 0.22)
    half = _vec(rng.uniform(0.55, 0.8, size=3) * plot.radius / (1 + swell))
    jelly = Jelly(half, swell, rng.uniform(3, 6), _vec(rng.uniform(0, 2 * np.pi, size=3)))
    path = RigidPath(Still((plot.x, plot.y, half[2] * (1 + swell))), _turn(rng, 1.0))
    return [_Thing("jelly", jelly, path, MotionKind.POINTS)]


_Builder = Callable[[Rng, _Plot], list[_Thing]]
# Who needs most room comes first.
_CAST: dict[str, tuple[tuple[_Builder, int], ...]] = {
    "static": ((_still, 7),),
    "rigid": ((_orbiter, 1), (_bouncer, 1), (_slider, 1), (_roller, 1), (_still, 2)),
    "points": ((_flag, 1), (_carpet, 1), (_jelly, 1), (_still, 2)),
    "mixed": ((_orbiter, 1), (_flag, 1), (_jelly, 1), (_bouncer, 1), (_still, 1)),
}


def _rigid(role: str, shape: Shape, curve: Curve, spin: Spin) -> _Thing:
    return _Thing(_name(role, shape), shape, RigidPath(curve, spin), MotionKind.RIGID)


def _name(role: str, shape: Shape) -> str:
    return f"{role}-{type(shape).__name__.lower()}"


def _solid(rng: Rng, reach: float) -> tuple[Shape, float]:
    """Draw a solid within `reach` of its z axis; return it and the height of its centre at rest."""
    kind = rng.choice(["sphere", "box", "cylinder"])
    if kind == "sphere":
        return Sphere(reach), reach
    half_height = rng.uniform(0.6, 1.3) * reach
    if kind == "cylinder":
        return Cylinder(0.8 * reach, half_height), half_height
    angle = rng.uniform(0.5, 1.0)
    return Box((reach * np.cos(angle), reach * np.sin(angle), half_height)), half_height


def _within(shape: Shape, radius: float) -> Shape:
    """Shrink a solid until it may tumble within a ball."""
    by = radius / shape.bound_radius
    if isinstance(shape, Sphere):
        return Sphere(shape.radius * by)
    if isinstance(shape, Cylinder):
        return Cylinder(shape.radius * by, shape.half_height * by)
    return replace(shape, half=_vec(by * shape.box_hi))  # type: ignore[type-var]


def _sheet(rng: Rng, half_x: float, half_y: float) -> Sheet:
    waves = []
    for amplitude, length in ((0.05, 1.3), (0.03, 0.8), (0.012, 0.45)):
        angle = rng.uniform(0, 2 * np.pi)
        k = 2 * np.pi / (length * rng.uniform(0.8, 1.2))
        speed = rng.uniform(2.0, 6.0) * rng.choice([-1, 1])
        waves.append(Wave(amplitude, k * np.cos(angle), k * np.sin(angle), speed, rng.uniform(0, 2 * np.pi)))
    return Sheet(half_x, half_y, tuple(waves))


def _turn(rng: Rng, rate: float) -> Spin:
    """Draw a turn about the vertical of at most `rate` rad/s."""
    return Spin((0.0, 0.0, rng.uniform(0, 2 * np.pi)), (0.0, 0.0, 1.0), rng.uniform(-rate, rate))


def _tumble(rng: Rng, rate: float) -> Spin:
    axis, start = rng.normal(size=3), rng.uniform(-3, 3, size=3)
    return Spin(_vec(start), _vec(axis / np.linalg.norm(axis)), rng.uniform(0.4, 1.0) * rate)


def _vec(values: Float) -> Vec3:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


# --- cameras --------------------------------------------------------------------------------------------


def _back_and_side(azimuth: float) -> tuple[Float, Float]:
    """Return the level directions away from the camera and to its side."""
    back = -np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    return back, np.array([-back[1], back[0], 0.0])


def _views(
    rng: Rng, camera: str, azimuth: float, duration: float, size: tuple[int, int], num_views: int, lens: str
) -> dict[str, CameraPath]:
    eye, target = _camera_curves(rng, camera, azimuth, duration)
    path = _lens(rng, lens, eye, target, size)
    return {
        "camera" if k == 0 else f"camera_{k}": replace(
            path, mount_from_cam=((0.0, max(0, k - 1) * _FAN, 0.0), (k * _BASELINE, 0.0, 0.0))
        )
        for k in range(num_views)
    }


def _lens(rng: Rng, lens: str, eye: Curve, target: Curve, size: tuple[int, int]) -> CameraPath:
    width, height = size
    focal, middle = _FOCAL * max(size), (width / 2, height / 2)
    if lens == "plain":
        return CameraPath(eye, target, (focal, focal), middle)
    stretch = rng.uniform(0.03, 0.06)
    off_u, off_v = rng.uniform(0.02, 0.05, size=2) * rng.choice([-1, 1], size=2)
    centre = (middle[0] + off_u * width, middle[1] + off_v * height)
    return CameraPath(eye, target, (focal, focal * (1 + stretch)), centre, zoom=rng.uniform(0.02, 0.04))


def _camera_curves(rng: Rng, camera: str, azimuth: float, duration: float) -> tuple[Curve, Curve]:
    distance, height = rng.uniform(6.0, 7.0), rng.uniform(1.8, 3.0)
    back, side = _back_and_side(azimuth)
    eye = -distance * back + (0, 0, height)
    target = np.array([0.0, 0.0, 0.5])
    sign = rng.choice([-1, 1])
    if camera == "static":
        return Still(_vec(eye)), Still(_vec(target))
    if camera == "rotating":
        swing = 1.4 * side + (0, 0, 0.3)
        return Still(_vec(eye)), Sway(_vec(target), _vec(sign * swing), 1.2, rng.uniform(-1, 1))
    look = Sway(_vec(target), (0.15, -0.1, 0.1), 1.5, rng.uniform(0, 6))
    if rng.uniform() < 0.3:
        travel = _rate(rng.uniform(0.7, 1.1), 4.0, duration)
        start = eye - sign * side * travel * duration / 2
        return Linear(_vec(start), _vec(sign * side * travel + (0, 0, 0.1))), look
    sweep = _rate(np.radians(rng.uniform(10, 16)), _MAX_SWEEP, duration) * sign
    climb = _rate(0.25, 0.8, duration) * rng.choice([-1, 1])
    level = height - climb * duration / 2
    return Orbit((0.0, 0.0, level), distance, sweep, azimuth - sweep * duration / 2, climb), look


def _rate(rate: float, span: float, duration: float) -> float:
    """Slow a speed down where a long clip would carry it further than `span`."""
    return min(rate, span / duration)
