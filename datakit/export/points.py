"""Points of a scene's static surfaces with the frames that see them: for COLMAP's points3D and point clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.covisibility.look import depth_frame, draw_points, look
from datakit.motion import MotionKind, Visibility
from datakit.scene import Scene, View

from .frames import Float, Plan, colour_grid


@dataclass
class Cloud:
    """Static points.

    Attributes:
        xyz: (N, 3) world.
        rgb: (N, 3) uint8, from the first frame that sees each; grey where none does.
        seen: Per planned frame, rows of the points that it sees and their colour-grid pixels (K, 2).
    """

    xyz: Float
    rgb: NDArray[np.uint8]
    seen: list[tuple[NDArray[np.int64], Float]] = field(default_factory=list)


def static_points(scene: Scene, plans: Sequence[Plan], most: int, seed: int = 0) -> Cloud:
    """Gather points of what is static.

    Those of the motion record where it has some with visibility; else pixels drawn from the depth maps, and found
    again in the other frames by their depth.

    Args:
        scene: Open scene.
        plans: Frames that are exported.
        most: Largest number of points; 0 for none.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    kept = _stored(scene, most, rng) if most else np.zeros(0, np.int64)
    is_stored = bool(kept.size)
    xyz = _stored_xyz(scene, kept) if is_stored else _drawn(scene, plans, most, rng)
    cloud = Cloud(xyz, np.full((len(xyz), 3), 128, np.uint8))
    painted = np.zeros(len(xyz), bool)
    for plan in plans:
        view = scene.views[plan.view]
        if not len(xyz):
            rows = np.zeros(0, np.int64)
        elif is_stored:
            states = scene.motion.point_state.get(plan.view)
            told = np.zeros(len(kept), np.uint8) if states is None else states[kept, plan.t]
            rows = np.flatnonzero(told == Visibility.VISIBLE)
        else:
            frame = depth_frame(view, plan.t)
            told = np.zeros(len(xyz), np.uint8) if frame is None else look(frame, xyz)
            rows = np.flatnonzero(told == Visibility.VISIBLE)
        rows, uv = _inside_colour(view, plan.t, xyz, rows)
        cloud.seen.append((rows, uv))
        new = ~painted[rows]
        if new.any():
            col, row = uv[new].astype(np.int64).T
            cloud.rgb[rows[new]] = view.rgb(plan.t)[row, col]
            painted[rows[new]] = True
    return cloud


def _stored(scene: Scene, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of explicit points that are static, known and seen somewhere."""
    motion = scene.motion
    if motion.points_world is None or motion.point_instance is None or not motion.point_state:
        return np.zeros(0, np.int64)
    static = motion.instance_ids[motion.instance_motion == MotionKind.STATIC]
    good = np.isin(motion.point_instance, static) & np.isfinite(motion.points_world).all(axis=2).any(axis=1)
    good &= np.any(
        [(state == Visibility.VISIBLE).any(axis=1) for state in motion.point_state.values()], axis=0
    )
    rows = np.flatnonzero(good)
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _stored_xyz(scene: Scene, rows: NDArray[np.int64]) -> Float:
    points = np.asarray(scene.motion.points_world)[rows].astype(np.float64)
    # A static point is the same at every sample at which it is known.
    first = np.isfinite(points).all(axis=2).argmax(axis=1)
    return np.asarray(points[np.arange(len(points)), first])


def _drawn(scene: Scene, plans: Sequence[Plan], most: int, rng: np.random.Generator) -> Float:
    each = -(-most // len(plans))
    clouds = [np.zeros((0, 3))]
    for plan in plans:
        frame = depth_frame(scene.views[plan.view], plan.t, scene.motion) if most else None
        if frame is not None:
            clouds.append(draw_points(frame, each, rng))
    xyz = np.concatenate(clouds)
    return xyz if len(xyz) <= most else xyz[np.sort(rng.choice(len(xyz), most, replace=False))]


def _inside_colour(
    view: View, t: int, xyz: Float, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Float]:
    """Keep the rows that project into the colour image, which may show less than the depth grid does."""
    size, k = colour_grid(view, t)
    cam = g.transform_points(g.invert_rigid(view.world_from_cam[t]), xyz[rows])
    uv, _ = g.project_distorted(cam, k, view.record["camera_model"], view.record["distortion"])
    with np.errstate(invalid="ignore"):
        inside = ((uv >= 0) & (uv < size)).all(axis=1)
    return rows[inside], uv[inside]
