"""Small worlds put together by hand."""

from __future__ import annotations

import numpy as np

from datakit.motion import MotionKind
from datakit.worlds import (
    CameraPath,
    Plane,
    RigidPath,
    Room,
    Still,
    World,
    make_instance,
    make_view,
    random_texture,
)

FPS = 10.0


def camera_at_origin(focal: float = 100.0, size: tuple[int, int] = (64, 48)) -> CameraPath:
    """A still camera at the origin that looks along world +x, z up."""
    return CameraPath(
        eye=Still((0.0, 0.0, 0.0)),
        target=Still((1.0, 0.0, 0.0)),
        focal=(focal, focal),
        centre=(size[0] / 2, size[1] / 2),
    )


def hand_world(things, *, camera=None, background=None, num_frames=5, size=(64, 48)) -> World:
    """Build a world from (shape, path, motion) triples; without a background the sky is open."""
    times, rng = np.arange(num_frames) / FPS, np.random.default_rng(0)
    far_floor = Plane(1e-3, 1e-3), RigidPath(Still((0.0, 0.0, -1e3)))
    shape, path = far_floor if background is None else background
    ground = make_instance(0, "background", shape, path, _texture(rng), motion=MotionKind.STATIC, times=times)
    instances = tuple(
        make_instance(k, f"thing-{k}", s, p, _texture(rng), motion=m, times=times)
        for k, (s, p, m) in enumerate(things, start=1)
    )
    view = make_view(camera or camera_at_origin(size=size), size, times)
    return World("hand", 0, num_frames, FPS, {"camera": view}, instances, ground)


def big_room() -> tuple[Room, RigidPath]:
    return Room((-5.0, -8.0, -3.0), (10.0, 8.0, 4.0)), RigidPath()


def _texture(rng):
    return random_texture(rng, longest=1.0, shortest=0.2)
