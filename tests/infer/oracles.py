"""Small worlds whose cameras' principal point is in the middle, opened by a perfect oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datakit import geometry as g
from datakit.infer.answers import ClipInfo
from datakit.infer.truth import Errors, TruthAnswers, TruthClip
from datakit.motion import MotionKind
from datakit.worlds import Box, CameraPath, Linear, Orbit, Plane, RigidPath, Spin, Still, Sway, World
from tests.worlds.helpers import big_room, hand_world

SIZE = (48, 36)


def room_world(num_frames: int = 8, centre: tuple[float, float] = (24.0, 18.0), focal=(40.0, 44.0)) -> World:
    """A room with a box that flies through it; the camera goes round and turns."""
    camera = CameraPath(
        eye=Orbit((0.0, 0.0, 0.0), radius=1.5, omega=1.4, phase=0.3, climb=0.4),
        target=Sway((6.0, 0.0, 0.0), (0.0, 1.0, -0.7), omega=2.0),
        focal=focal,
        centre=centre,
    )
    flying = RigidPath(Linear((5.0, -1.5, 0.5), (0.0, 2.5, -0.5)), Spin(axis=(0.0, 0.0, 1.0), rate=0.8))
    return hand_world(
        [(Box((0.8, 0.9, 0.7)), flying, MotionKind.RIGID)],
        camera=camera,
        background=big_room(),
        num_frames=num_frames,
        size=SIZE,
    )


def wall_world(num_frames: int, size: tuple[int, int], step_px: tuple[float, float] = (0.0, 0.0)) -> World:
    """A wall square to the view, over which the picture slides by so many pixels a frame (FPS 10)."""
    focal, distance = 40.0, 10.0
    # The camera looks along +x with z up: right is -y, down is -z.
    right, down = (10 * distance * step / focal for step in step_px)
    camera = CameraPath(
        eye=Linear((0.0, 0.0, 0.0), (0.0, -right, -down)),
        target=Linear((1.0, 0.0, 0.0), (0.0, -right, -down)),
        focal=(focal, focal),
        centre=(size[0] / 2, size[1] / 2),
    )
    wall = Plane(100.0, 100.0), RigidPath(Still((distance, 0.0, 0.0)), Spin(start=(0.0, np.pi / 2, 0.0)))
    return hand_world([], camera=camera, background=wall, num_frames=num_frames, size=size)


@dataclass(frozen=True)
class CutPath:
    """A still camera that looks the other way from a time on."""

    path: CameraPath
    cut_s: float

    def world_from_cam(self, times):
        poses = self.path.world_from_cam(times)
        back = poses.copy()
        back[:, :3, :3] = poses[:, :3, :3] @ g.rotation_from_axis_angle([0.0, np.pi, 0.0])
        return np.where((np.atleast_1d(times) < self.cut_s)[:, None, None], poses, back)

    def intrinsics(self, times):
        return self.path.intrinsics(times)


def open_clip(
    world: World, frames: range | None = None, errors: Errors | None = None, max_frames: int = 48
) -> TruthClip:
    numbers = np.arange(world.num_frames) if frames is None else np.array(frames)
    answers = TruthAnswers.of_world(world, errors=errors, max_frames=max_frames)
    return answers.open_info(ClipInfo(world.views["camera"].size, world.times[numbers], numbers))


def true_poses(world: World, frames: range | None = None) -> np.ndarray:
    """world_from_cam with the first frame's camera as world."""
    poses = world.views["camera"].world_from_cam
    poses = poses if frames is None else poses[frames.start : frames.stop]
    return g.invert_rigid(poses[0]) @ poses


def true_focal(world: World) -> np.ndarray:
    k = world.views["camera"].intrinsics
    return np.stack([k[:, 0, 0], k[:, 1, 1]], axis=1) / world.views["camera"].size
