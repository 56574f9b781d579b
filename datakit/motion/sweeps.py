"""Evidence from several sweeps: the sparse depth of frames around a time, carried to it and seen from one camera.

A lidar scene's depth map knows few pixels. What stands still stays in sight of later and earlier sweeps and of the
other cameras, and what moves rigidly is carried along, so that more places have depths on all sides of them. What
moves in unknown ways is left where it is: in its own frame.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datakit.geometry import (
    homography_points,
    invert_rigid,
    project_distorted,
    transform_points,
    unproject_distorted,
)
from datakit.scene.read import Scene, View

from .carry import carry_points

Float = NDArray[np.float64]

#: Seconds around a frame whose sweeps count. At 10 Hz two before and two after: rows of beams move by more than the
#: gap between them within that time, and errors of labelled boxes stay below the tolerance.
REACH = 0.25
#: Frames whose points are kept between targets: five views, and as many frames as are within reach.
_KEPT = 48
#: Where a point is seen depends on the line's time, and that on where it is seen. A thing 5 m beside a camera of 10 m/s
#: passes a tenth as fast as Waymo's readout goes, and each step leaves as large a part of the way.
_SHUTTER_STEPS = 3


class Sweeps:
    """The points of a scene's sparse depth maps, frame by frame; of the last ones read they are kept.

    Args:
        scene: Open scene.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._points: OrderedDict[tuple[str, int], tuple[Float, NDArray[np.uint32]]] = OrderedDict()

    def onto(self, view: View, t: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Draw what the sweeps around frame t of a view tell, as seen from its pose: the nearest point of each pixel.

        Args:
            view: Target view; its pose is known.
            t: Its frame.

        Returns:
            z_depth (H, W), NaN unknown, and instances (H, W).
        """
        points, ids = [], []
        for name, frame in self._around(view, t):
            world, own = self._of(name, frame)
            if (name, frame) != (view.name, t):
                m_src, m_tgt = self._scene.views[name].motion_index[frame], view.motion_index[t]
                world, _ = carry_points(
                    self._scene.motion, world, own, np.full(len(own), m_src), np.full(len(own), m_tgt)
                )
            known = np.isfinite(world).all(axis=-1)
            points.append(world[known])
            ids.append(own[known])
        return _draw(view, t, np.concatenate(points), np.concatenate(ids))

    def _around(self, view: View, t: int) -> list[tuple[str, int]]:
        """List the frames whose points count, the frame itself first."""
        others = [
            (name, int(frame))
            for name, other in self._scene.views.items()
            if other.depth_kind == view.depth_kind
            for frame in np.flatnonzero(
                (np.abs(other.times - view.times[t]) <= REACH)
                & other.pose_is_known
                & (other.motion_index >= 0)
            )
        ]
        return [(view.name, t), *(key for key in others if key != (view.name, t))]

    def _of(self, name: str, frame: int) -> tuple[Float, NDArray[np.uint32]]:
        key = (name, frame)
        if key not in self._points:
            self._points[key] = _points_of(self._scene.views[name], frame)
        self._points.move_to_end(key)
        while len(self._points) > _KEPT:
            self._points.popitem(last=False)
        return self._points[key]


def _points_of(view: View, t: int) -> tuple[Float, NDArray[np.uint32]]:
    """World points (N, 3) of a frame's known depths, and their instance ids (N,)."""
    z_depth, instances = view.z_depth(t), view.instances(t)
    if z_depth is None or (instances is not None and instances.shape != z_depth.shape):
        return np.zeros((0, 3)), np.zeros(0, np.uint32)
    row, col = np.nonzero(np.isfinite(z_depth))
    uv = np.stack([col + 0.5, row + 0.5], axis=-1)
    uv = homography_points(view.intrinsics[t] @ np.linalg.inv(view.depth_intrinsics[t]), uv)
    rays_cam = unproject_distorted(
        uv, np.ones(len(uv)), view.intrinsics[t], view.record["camera_model"], view.record["distortion"]
    )
    ids = np.zeros(len(row), np.uint32) if instances is None else instances[row, col]
    return along_rays(view, t, uv, rays_cam, z_depth[row, col].astype(np.float64)), ids


def along_rays(view: View, t: int, uv_px: Float, rays_cam: Float, z: Float) -> Float:
    """Go along pixels' rays to where z in the frame's own pose is given, (N, 3) world.

    With a rolling shutter each ray leaves from where the camera was when its row or column was exposed.
    """
    pose, lines = view.world_from_cam[t], _lines(view, t)
    if lines is None:
        return transform_points(pose, rays_cam * z[:, None])
    axis, poses = lines
    at = _line_of(uv_px[:, axis], len(poses))
    rays = np.einsum("nij,nj->ni", poses[at, :3, :3], rays_cam)
    start, ahead = poses[at, :3, 3] - pose[:3, 3], pose[:3, 2]
    way = (z - start @ ahead) / (rays @ ahead)
    return poses[at, :3, 3] + way[:, None] * rays


def _lines(view: View, t: int) -> tuple[int, Float] | None:
    """Tell where a rolling shutter had the camera at each line.

    Returns:
        0 where columns are read out one by one, 1 where rows are; world_from_cam (S, 4, 4) at each of them. None
        where all pixels are exposed at once, or nothing says when or where.
    """
    times, axis = view.record.get("shutter_times"), view.record["shutter_axis"]
    if axis == "global" or times is None or view.pose_is_known.sum() < 2:
        return None
    return 0 if axis == "column" else 1, _poses_at(view, np.asarray(times)[t])


def _line_of(along_px: Float, count: int) -> NDArray[np.int64]:
    """Give the line (N,) that positions along the axis of the readout are on; beyond an end, the last one there."""
    return np.clip(np.nan_to_num(np.floor(along_px)), 0, count - 1).astype(np.int64)


def _poses_at(view: View, times: Float) -> Float:
    """Interpolate a view's known poses (S, 4, 4) at times (S,) s, at its ends by going on as between the last two."""
    known = np.flatnonzero(view.pose_is_known)
    clock, poses = view.times[known], view.world_from_cam[known]
    left = np.clip(np.searchsorted(clock, times, side="right") - 1, 0, len(known) - 2)
    part = (times - clock[left]) / (clock[left + 1] - clock[left])
    rotations = Rotation.from_matrix(poses[:, :3, :3])
    turn = (rotations[left].inv() * rotations[left + 1]).as_rotvec()
    out = poses[left].copy()
    out[:, :3, :3] = (rotations[left] * Rotation.from_rotvec(turn * part[:, None])).as_matrix()
    out[:, :3, 3] += part[:, None] * (poses[left + 1, :3, 3] - poses[left, :3, 3])
    return out


def _draw(
    view: View,
    t: int,
    points_world: Float,
    ids: NDArray[np.uint32],
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    points_cam = transform_points(invert_rigid(view.world_from_cam[t]), points_world)
    # Evidence and what is judged by it are seen from the one pose; both are known to half a pixel only.
    uv, z = project_at_once(view, t, points_cam)
    uv = homography_points(view.depth_intrinsics[t] @ np.linalg.inv(view.intrinsics[t]), uv)
    width, height = view.depth_size
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero((z > 0) & ((uv >= 0) & (uv < (width, height))).all(axis=-1))
    z_depth = np.full((height, width), np.nan, np.float32)
    instances = np.zeros((height, width), np.uint32)
    order = inside[np.argsort(-z[inside], kind="stable")]
    col, row = np.floor(uv[order]).astype(np.int64).T
    z_depth[row, col], instances[row, col] = z[order], ids[order]
    return z_depth, instances


def project_into(view: View, t: int, points_cam: Float) -> tuple[Float, Float]:
    """Project points (N, 3) of a frame's camera to where the picture shows them: each line sees at its own time.

    Returns:
        uv (N, 2) px of the colour grid, infinite outside the lens, NaN behind the camera; z (N,) in the frame's own
        pose, as depth is stored.
    """
    uv, z = project_at_once(view, t, points_cam)
    lines = _lines(view, t)
    if lines is None:
        return uv, z
    axis, poses = lines
    line_from_own = invert_rigid(poses) @ view.world_from_cam[t]
    for _ in range(_SHUTTER_STEPS):
        move = line_from_own[_line_of(uv[:, axis], len(poses))]
        seen_cam = np.einsum("nij,nj->ni", move[:, :3, :3], points_cam) + move[:, :3, 3]
        uv, _ = project_at_once(view, t, seen_cam)
    return uv, z


def project_at_once(view: View, t: int, points_cam: Float) -> tuple[Float, Float]:
    """Project points (N, 3) of a frame's camera through its lens as if all lines were exposed at the frame's pose.

    A lens model is fitted inside the picture; far outside, its polynomial turns round and would put points back into
    it. Points further from the axis than a picture's corner, and a tenth, are put outside.

    Returns:
        uv (N, 2) px of the colour grid, infinite outside the lens, NaN behind the camera; z (N,).
    """
    model, distortion = view.record["camera_model"], view.record["distortion"]
    uv, z = project_distorted(points_cam, view.intrinsics[t], model, distortion)
    if len(distortion):
        width, height = view.size
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
        rays = unproject_distorted(corners, np.ones(4), view.intrinsics[t], model, distortion)
        reach = 1.1 * np.sqrt((rays[:, :2] ** 2).sum(axis=1).max())
        uv[np.linalg.norm(points_cam[:, :2], axis=1) > reach * np.abs(z)] = np.inf
    return uv, z


__all__ = ["REACH", "Sweeps", "along_rays", "project_at_once", "project_into"]
