"""Look at world points through one frame's depth: seen, hidden, outside, or nothing to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind, Visibility
from datakit.motion.carry import instance_rows
from datakit.motion.visibility import DEPTH_TOLERANCE
from datakit.scene import View
from datakit.scene.records import MotionRecord

Float = NDArray[np.float64]

#: Offsets of a pixel's 3x3 neighbourhood, (9,) each.
_ROWS, _COLS = (axis.ravel() for axis in np.mgrid[-1:2, -1:2])
#: Farthest over nearest depth of a neighbourhood of one surface; beyond it there is an edge.
_STEP = 1.15


@dataclass(frozen=True)
class DepthFrame:
    """What of a frame is needed to look at points through it.

    Attributes:
        z_depth: (H, W), NaN unknown.
        intrinsics: (3, 3) of the depth grid.
        camera_model: Of the view.
        distortion: Of the view.
        world_from_cam: (4, 4).
        tolerance: Share of its depth by which a point may differ from the surface.
        moving: (H, W) bool, where pixels are of things that may move; None for nowhere.
    """

    z_depth: NDArray[np.float32]
    intrinsics: Float
    camera_model: str
    distortion: tuple[float, ...]
    world_from_cam: Float
    tolerance: float
    moving: NDArray[np.bool_] | None = None


def depth_frame(
    view: View, t: int, motion: MotionRecord | None = None, tolerance: float | None = None
) -> DepthFrame | None:
    """Read what is needed of a frame; None where it has no depth or no pose.

    Args:
        view: Of an open scene.
        t: Frame.
        motion: The scene's, to find what may move; None calls everything static.
        tolerance: Share of depth; None for the depth kind's own.
    """
    z_depth, kind = view.z_depth(t), view.depth_kind
    if z_depth is None or kind is None or not view.pose_is_known[t]:
        return None
    return DepthFrame(
        z_depth,
        view.depth_intrinsics[t],
        view.record["camera_model"],
        tuple(view.record["distortion"]),
        view.world_from_cam[t],
        DEPTH_TOLERANCE[kind] if tolerance is None else tolerance,
        None if motion is None else _moving(view, t, motion),
    )


def _moving(view: View, t: int, motion: MotionRecord) -> NDArray[np.bool_] | None:
    """Tell on the depth grid which pixels are of instances that are not static; None for none of them."""
    static_ids = motion.instance_ids[motion.instance_motion == MotionKind.STATIC]
    ids = view.instances(t)
    if ids is None:
        return None if 0 in static_ids else np.ones(view.depth_size[::-1], bool)
    rows = instance_rows(motion, ids.ravel()).reshape(ids.shape)
    moving = (rows < 0) | ~np.isin(ids, static_ids)
    on_depth = g.homography_points(
        view.layer_intrinsics("instances")[t] @ np.linalg.inv(view.depth_intrinsics[t]),
        g.pixel_centres(view.depth_size),
    )
    col, row = (
        np.clip(np.floor(on_depth[..., axis]), 0, limit - 1).astype(np.int64)
        for axis, limit in enumerate(view.layer_size("instances"))
    )
    return np.asarray(moving[row, col])


def draw_points(frame: DepthFrame, count: int, rng: np.random.Generator) -> Float:
    """Draw pixels with static known depth, each once, and lift them: (K, 3) world points, K <= count."""
    usable = np.isfinite(frame.z_depth)
    if frame.moving is not None:
        usable &= ~frame.moving
    flat = np.flatnonzero(usable)
    if len(flat) > count:
        flat = rng.choice(flat, count, replace=False)
    row, col = np.divmod(np.sort(flat), frame.z_depth.shape[1])
    points_cam = g.unproject_distorted(
        np.stack([col, row], axis=1) + 0.5,
        frame.z_depth[row, col].astype(np.float64),
        frame.intrinsics,
        frame.camera_model,
        frame.distortion,
    )
    return g.transform_points(frame.world_from_cam, points_cam)


def look(frame: DepthFrame, points_world: Float) -> NDArray[np.uint8]:
    """Tell which static world points a frame sees.

    A point is visible if its depth is that of the pixel it falls in, to the tolerance and to what the surface changes
    over half a pixel: the smaller of the steps to the two neighbours, for the other may be an edge. Where that pixel
    has no depth, as in sparse depth, one beside it may stand for it.

    Args:
        frame: The frame.
        points_world: (N, 3).

    Returns:
        (N,) `Visibility`; UNKNOWN where there is no depth around, or where the point floats before the surface.
    """
    height, width = frame.z_depth.shape
    uv, z = g.project_distorted(
        g.transform_points(g.invert_rigid(frame.world_from_cam), points_world),
        frame.intrinsics,
        frame.camera_model,
        frame.distortion,
    )
    state = np.full(len(points_world), Visibility.OUTSIDE, np.uint8)
    with np.errstate(invalid="ignore"):
        inside = np.flatnonzero((z > 0) & ((uv >= 0) & (uv < (width, height))).all(axis=1))
    if not inside.size:
        return state
    col, row = np.floor(uv[inside]).astype(np.int64).T
    around = frame.z_depth[
        np.clip(row[:, None] + _ROWS, 0, height - 1), np.clip(col[:, None] + _COLS, 0, width - 1)
    ]
    centre, change = _surface(around.astype(np.float64))
    margin = frame.tolerance * centre + change
    own = z[inside]
    with np.errstate(invalid="ignore"):
        state[inside] = np.where(
            np.isnan(centre) | (own < centre - margin),
            Visibility.UNKNOWN,
            np.where(own > centre + margin, Visibility.OCCLUDED, Visibility.VISIBLE),
        )
    return state


def _surface(around: Float) -> tuple[Float, Float]:
    """Read (N, 9) neighbourhoods.

    Returns:
        Depth of the surface (N,), NaN unknown; and how much it may differ within half a pixel of the centre (N,).
    """
    centre = around[:, 4]
    steps = np.abs(around[:, [3, 5, 1, 7]] - centre[:, None])
    steps = np.where(np.isfinite(steps), steps, np.inf).reshape(-1, 2, 2).min(axis=2)
    change = np.where(np.isfinite(steps), steps, 0.0).sum(axis=1) / 2
    known = np.isfinite(around)
    nearest = np.where(known, around, np.inf).min(axis=1)
    farthest = np.where(known, around, -np.inf).max(axis=1)
    # Beside a hole in the depth, which of two surfaces goes on there cannot be told.
    is_hole = np.isnan(centre)
    is_surface = is_hole & known.any(axis=1) & (farthest <= _STEP * nearest)
    centre, change = centre.copy(), np.where(is_hole, 0.0, change)
    centre[is_surface] = (nearest[is_surface] + farthest[is_surface]) / 2
    change[is_surface] = (farthest[is_surface] - nearest[is_surface]) / 2
    return centre, change
