"""A world seen from a moving vehicle: five cameras on its roof, traffic around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from datakit import geometry as g
from datakit.motion import MotionKind

from .paths import Linear, Orbit, RigidPath, Spin, Still
from .shapes import Box, Cylinder, Float, Room, Shape
from .textures import Texture, random_texture
from .world import World, WorldInstance, make_instance, make_view

#: Yaw in rad and height over width of each camera; the side cameras are lower, as on real rigs.
CAMERAS = {
    "front": (0.0, 2 / 3),
    "front_left": (np.pi / 4, 2 / 3),
    "front_right": (-np.pi / 4, 2 / 3),
    "side_left": (np.pi / 2, 0.46),
    "side_right": (-np.pi / 2, 0.46),
}
_ROOF = np.array([1.5, 0.0, 2.1])
_FOCAL = 1.07
_OPENCV_FROM_VEHICLE = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])


@dataclass(frozen=True)
class MountedCamera:
    """A camera fixed to a vehicle.

    Attributes:
        vehicle: The vehicle's path; x forward, y left, z up.
        vehicle_from_cam: (4, 4), OpenCV camera axes.
        matrix: (3, 3) intrinsics, corner-origin pixels.
    """

    vehicle: RigidPath
    vehicle_from_cam: Float
    matrix: Float

    def world_from_cam(self, times: ArrayLike) -> Float:
        """Return (K, 4, 4) poses at times (K,) in seconds."""
        return self.vehicle.world_from_instance(times) @ self.vehicle_from_cam

    def intrinsics(self, times: ArrayLike) -> Float:
        """Return (K, 3, 3), the same at all times."""
        return np.broadcast_to(self.matrix, (np.atleast_1d(np.asarray(times)).size, 3, 3)).copy()


@dataclass(frozen=True, eq=False)
class DrivingWorld(World):
    """A world with a vehicle in it. Instance names begin with what they are: vehicle-, pedestrian-, ...

    Attributes:
        ego: The vehicle's path.
    """

    ego: RigidPath


def driving_world(
    seed: int, *, num_frames: int = 24, size: tuple[int, int] = (192, 128), fps: float = 10.0
) -> DrivingWorld:
    """Draw a street: the vehicle turns at about 10 m/s among cars, people and signs. Pure in its arguments.

    Cars drive on circles or straight lines with their heading along the way; everything stands upright.

    Args:
        seed: Any non-negative integer.
        num_frames: T.
        size: (W, H) of the forward cameras; the side cameras are as wide.
        fps: Frames per second.
    """
    stage, paint = (np.random.default_rng([seed, k, 77]) for k in range(2))
    times = np.arange(num_frames) / fps
    ego = _drive(np.zeros(2), stage.uniform(-3, 3), stage.uniform(8, 11), stage.choice([-1, 1]) * 0.12, 0.0)
    views = {
        name: make_view(
            _mounted(ego, stage, yaw, (size[0], round(size[0] * share))),
            (size[0], round(size[0] * share)),
            times,
        )
        for name, (yaw, share) in CAMERAS.items()
    }
    things = _traffic(stage, ego)
    return DrivingWorld(
        name=f"driving-{seed:05d}",
        seed=seed,
        num_frames=num_frames,
        fps=fps,
        views=views,
        instances=tuple(
            make_instance(k, name, shape, path, _paint(paint), motion=motion, times=times)
            for k, (name, shape, path, motion) in enumerate(things, start=1)
        ),
        background=_street(paint, times),
        ego=ego,
    )


def _mounted(ego: RigidPath, rng: np.random.Generator, yaw: float, size: tuple[int, int]) -> MountedCamera:
    turn = g.rotation_from_axis_angle(np.array([0.0, 0.0, yaw])) @ _OPENCV_FROM_VEHICLE.T
    aside = np.array([0.0, 0.1 * np.sin(yaw), 0.0])
    focal = _FOCAL * size[0] * rng.uniform(0.99, 1.01)
    centre = size[0] / 2 * rng.uniform(0.98, 1.02), size[1] / 2 * rng.uniform(0.95, 1.05)
    matrix = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    return MountedCamera(ego, g.rigid_from(turn, _ROOF + aside), matrix)


_Thing = tuple[str, Shape, RigidPath, MotionKind]


def _traffic(rng: np.random.Generator, ego: RigidPath) -> list[_Thing]:
    """Put traffic where the vehicle will see it, each thing in a lane of its own."""
    start = ego.world_from_instance([0.0])[0]

    def place(ahead: float, left: float) -> Float:
        return np.asarray((start @ np.array([ahead, left, 0.0, 1.0]))[:2])

    heading = float(np.arctan2(start[1, 0], start[0, 0]))
    still = RigidPath(Still((*place(14 + rng.uniform(0, 4), -9.0), 0.75)), Spin((0, 0, heading + 0.3)))
    return [
        (
            "vehicle-lead",
            Box((2.3, 1.0, 0.8)),
            _drive(place(17, 0.5), heading, 12.0, 0.1, 0.8),
            MotionKind.RIGID,
        ),
        # Its heading runs through the jump from pi to -pi.
        (
            "vehicle-turning",
            Box((2.6, 1.1, 0.95)),
            _drive(place(26, 12), np.pi - 0.2, 6.0, 0.25, 0.95),
            MotionKind.RIGID,
        ),
        ("vehicle-parked", Box((2.2, 0.95, 0.75)), still, MotionKind.STATIC),
        (
            "pedestrian-crossing",
            Cylinder(0.35, 0.9),
            _walk(place(12, -5), heading + np.pi / 2, 1.4, 0.9),
            MotionKind.RIGID,
        ),
        (
            "cyclist-left",
            Box((0.9, 0.35, 0.85)),
            _drive(place(7, 6.5), heading, 4.0, 0.0, 0.85),
            MotionKind.RIGID,
        ),
        (
            "sign-right",
            Box((0.1, 0.45, 0.45)),
            RigidPath(Still((*place(20, -8), 2.4)), Spin((0, 0, heading + 0.2))),
            MotionKind.STATIC,
        ),
    ]


def _drive(at: Float, heading: float, speed: float, turn_rate: float, height: float) -> RigidPath:
    """Drive along a circle (or a line) with the x axis ahead; `at` is the place at time 0."""
    spin = Spin((0.0, 0.0, float(heading)), (0.0, 0.0, 1.0), turn_rate)
    ahead = np.array([np.cos(heading), np.sin(heading)])
    x, y = (float(v) for v in at)
    if turn_rate == 0:
        return RigidPath(Linear((x, y, height), (speed * ahead[0], speed * ahead[1], 0.0)), spin)
    radius = speed / turn_rate  # signed: the centre is on the left of a left turn
    centre = (x - radius * ahead[1], y + radius * ahead[0], height)
    phase = float(heading - np.sign(turn_rate) * np.pi / 2)
    return RigidPath(Orbit(centre, abs(radius), turn_rate, phase), spin)


def _walk(at: Float, heading: float, speed: float, height: float) -> RigidPath:
    return _drive(at, heading, speed, 0.0, height)


def _paint(rng: np.random.Generator) -> Texture:
    return random_texture(rng, longest=2.0, shortest=0.3, contrast=0.12, tint=0.5)


def _street(rng: np.random.Generator, times: Float) -> WorldInstance:
    texture = random_texture(rng, longest=12.0, shortest=0.8, contrast=0.1, tint=0.25, shade=0.3)
    shape = Room((-70.0, -70.0, 0.0), (70.0, 70.0, 20.0))
    return make_instance(0, "street", shape, RigidPath(), texture, motion=MotionKind.STATIC, times=times)
