"""Tracks on demand: any pixel of any frame, followed to any time, whatever the dataset's kind of motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import ConventionError, UsageError
from datakit.geometry import (
    homography_points,
    invert_rigid,
    pixel_centres,
    transform_points,
    unproject_distorted,
)
from datakit.scene.read import Scene, View

from .carry import carry_points, instance_rows
from .kinds import Reason, Tracks, Visibility
from .sampling import is_one_surface, quad_at, sample_vectors, sample_z
from .sweeps import Sweeps, along_rays, project_at_once, project_into
from .visibility import SPARSE, depth_test

Float = NDArray[np.float64]
Index = NDArray[np.int64]


def track(
    scene: Scene,
    view: str,
    uv_px: ArrayLike,
    t_src: ArrayLike,
    t_tgt: ArrayLike,
    *,
    view_tgt: str | None = None,
    via: str = "motion",
) -> Tracks:
    """Follow points from pixels of source frames to target times and say whether they are seen there.

    Every needed frame is decoded once as a source and once as a target, one at a time.

    Args:
        scene: Open scene.
        view: Name of the source view.
        uv_px: (N, 2) continuous pixels of the source view's colour grid, corner origin.
        t_src: (N,) or scalar, source frames.
        t_tgt: (N,) or scalar, target frames (of the target view).
        view_tgt: Target view; None for the source view.
        via: "motion" follows the motion record from the depth map's point; "object_coords" reads the source's
            object coordinates instead of depth, an independent path to the same rigid tracks.

    Returns:
        Tracks of N points.

    Raises:
        UsageError: Unknown view, frame out of range, or unknown `via`.
        ConventionError: Shapes do not fit.
    """
    source, target = _view(scene, view), _view(scene, view if view_tgt is None else view_tgt)
    uv, src, tgt = _broadcast(uv_px, t_src, t_tgt)
    _check_frames(source, src, "t_src")
    _check_frames(target, tgt, "t_tgt")
    if via not in ("motion", "object_coords"):
        raise UsageError("Unknown way to track", expected="motion or object_coords", found=via)

    instance = np.zeros(len(uv), np.uint32)
    reason = np.full(len(uv), Reason.SEEN, np.uint8)
    points = np.full((len(uv), 3), np.nan)
    m_src, m_tgt = source.motion_index[src], target.motion_index[tgt]
    lift = _lift_depth if via == "motion" else _lift_object_coords
    for t in np.unique(src):
        at = np.flatnonzero(src == t)
        points[at], instance[at], reason[at] = lift(scene, source, uv[at], int(t))
    known = reason == Reason.SEEN
    if via == "motion":
        points[known], reason[known] = carry_points(
            scene.motion, points[known], instance[known], m_src[known], m_tgt[known]
        )
    else:
        points[known], reason[known] = _from_box(scene, points[known], instance[known], m_tgt[known])

    state = np.full(len(uv), Visibility.UNKNOWN, np.uint8)
    uv_out, z_out = np.full((len(uv), 2), np.nan), np.full(len(uv), np.nan)
    sweeps = Sweeps(scene) if target.depth_kind in SPARSE else None
    for t in np.unique(tgt):
        at = np.flatnonzero((tgt == t) & (reason == Reason.SEEN))
        state[at], reason[at], uv_out[at], z_out[at] = _look(target, int(t), points[at], instance[at], sweeps)
    # A pixel sees its own point: no interpolation may say otherwise.
    own = (src == tgt) & np.isfinite(points).all(axis=-1) & (source is target)
    state[own], reason[own] = Visibility.VISIBLE, Reason.SEEN
    return Tracks(points, state, reason, uv_out, z_out)


def _view(scene: Scene, name: str) -> View:
    if name not in scene.views:
        raise UsageError("Scene has no such view", where=scene.path, expected=list(scene.views), found=name)
    return scene.views[name]


def _broadcast(uv_px: ArrayLike, t_src: ArrayLike, t_tgt: ArrayLike) -> tuple[Float, Index, Index]:
    uv = np.asarray(uv_px, dtype=np.float64)
    if uv.ndim != 2 or uv.shape[1] != 2:
        raise ConventionError("uv_px must be (N, 2)", found=uv.shape)
    times = []
    for name, value in (("t_src", t_src), ("t_tgt", t_tgt)):
        array = np.asarray(value)
        if not np.issubdtype(array.dtype, np.integer) or array.shape not in ((), (len(uv),)):
            raise ConventionError(
                f"{name} must be integers, (N,) or scalar", found=f"{array.dtype} {array.shape}"
            )
        times.append(np.broadcast_to(array, (len(uv),)).astype(np.int64))
    return uv, times[0], times[1]


def _check_frames(view: View, t: Index, name: str) -> None:
    if t.size and (t.min() < 0 or t.max() >= view.num_frames):
        raise UsageError(
            f"{name} is out of range",
            where=f"view {view.name}",
            expected=f"0..{view.num_frames - 1}",
            found=f"{t.min()}..{t.max()}",
        )


def _on_layer(view: View, name: str, uv_px: Float, t: int) -> Float:
    """Map colour-grid pixels to a layer's own grid; exact, since both share centre, axes and distortion."""
    colour, layer = view.intrinsics[t], view.layer_intrinsics(name)[t]
    return uv_px if np.array_equal(colour, layer) else homography_points(layer @ np.linalg.inv(colour), uv_px)


def _depth_maps(view: View, t: int) -> tuple[NDArray[np.float32] | None, NDArray[np.uint32] | None]:
    """Depth and instances of frame t on the depth grid, as stacks of one: (1, H, W) each, or None."""
    z_depth, instances = view.z_depth(t), view.instances(t)
    if z_depth is None:
        return None, None
    if instances is not None:
        instances = _on_depth_grid(view, t, instances)[None]
    return z_depth[None], instances


def _on_depth_grid(view: View, t: int, instances: NDArray[np.uint32]) -> NDArray[np.uint32]:
    own, depth = view.layer_intrinsics("instances")[t], view.depth_intrinsics[t]
    if instances.shape[::-1] == view.depth_size and np.array_equal(own, depth):
        return instances
    # Labels are never interpolated: each depth pixel takes the label of the pixel its centre falls on.
    centres = homography_points(own @ np.linalg.inv(depth), pixel_centres(view.depth_size).reshape(-1, 2))
    quad = quad_at(centres, view.layer_size("instances"))
    return instances[quad.row, quad.col].reshape(view.depth_size[::-1])


def _lift_depth(
    scene: Scene, view: View, uv_px: Float, t: int
) -> tuple[Float, NDArray[np.uint32], NDArray[np.uint8]]:
    """World points, instance ids and reasons of pixels of frame t, from its depth map."""
    z_maps, ids_maps = _depth_maps(view, t)
    ids = np.zeros(len(uv_px), np.uint32)
    z = np.full(len(uv_px), np.nan)
    if z_maps is not None:
        quad = quad_at(_on_layer(view, "z_depth", uv_px, t), view.depth_size)
        z, _ = sample_z(quad, z_maps, is_one_surface(quad, z_maps, ids_maps))
        if ids_maps is not None:
            ids = ids_maps[quad.frame, quad.row, quad.col]
    rays = unproject_distorted(
        uv_px, np.ones(len(uv_px)), view.intrinsics[t], view.record["camera_model"], view.record["distortion"]
    )
    points = along_rays(view, t, uv_px, rays, z)
    return points, ids, _source_reason(view, uv_px, t, np.isfinite(z))


def _lift_object_coords(
    scene: Scene, view: View, uv_px: Float, t: int
) -> tuple[Float, NDArray[np.uint32], NDArray[np.uint8]]:
    """Object coordinates (not world points), instance ids and reasons of pixels of frame t."""
    coords, instances, z_map = view.object_coords(t), view.instances(t), view.z_depth(t)
    if coords is None or instances is None:
        raise UsageError(
            "View has no object coordinates", where=f"{scene.path}, view {view.name}", found=view.layers
        )
    quad = quad_at(_on_layer(view, "object_coords", uv_px, t), view.layer_size("object_coords"))
    smooth = np.zeros(len(uv_px), bool)
    if z_map is not None and z_map.shape == instances.shape == coords.shape[:2]:
        smooth = is_one_surface(quad, z_map[None], instances[None])
    ids = instances[quad.row, quad.col]
    return sample_vectors(quad, coords[None], smooth), ids, _source_reason(view, uv_px, t, quad.is_inside)


def _source_reason(view: View, uv_px: Float, t: int, has_value: NDArray[np.bool_]) -> NDArray[np.uint8]:
    reason = np.where(has_value, Reason.SEEN, Reason.SOURCE_NO_DEPTH).astype(np.uint8)
    if not view.pose_is_known[t]:
        reason[:] = Reason.SOURCE_NO_POSE
    reason[~((uv_px >= 0) & (uv_px <= view.size)).all(axis=-1)] = Reason.SOURCE_OUT_OF_IMAGE
    return reason


def _from_box(
    scene: Scene, object_coords: Float, instance: NDArray[np.uint32], m_tgt: Index
) -> tuple[Float, NDArray[np.uint8]]:
    motion = scene.motion
    if motion.world_from_box is None:
        raise UsageError("Scene has no boxes for its object coordinates", where=scene.path)
    rows = instance_rows(motion, instance)
    has_box = (rows >= 0) & (m_tgt >= 0)
    points = np.full_like(object_coords, np.nan)
    points[has_box] = transform_points(
        motion.world_from_box[m_tgt[has_box], rows[has_box]], object_coords[has_box]
    )
    known = np.isfinite(points).all(axis=-1)
    return points, np.where(known, Reason.SEEN, Reason.NO_OBJECT_COORDS).astype(np.uint8)


def _look(
    view: View, t: int, points_world: Float, instance: NDArray[np.uint32], sweeps: Sweeps | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Float, Float]:
    """State, reason, pixel and depth of world points in frame t; `sweeps` add to sparse depth."""
    count = len(points_world)
    state = np.full(count, Visibility.UNKNOWN, np.uint8)
    reason = np.full(count, Reason.TARGET_NO_POSE, np.uint8)
    if not view.pose_is_known[t] or not count:
        return state, reason, np.full((count, 2), np.nan), np.full(count, np.nan)
    points_cam = transform_points(invert_rigid(view.world_from_cam[t]), points_world)
    uv, z = project_into(view, t, points_cam)
    reason[:] = Reason.TARGET_NO_DEPTH
    z_maps, ids_maps = _depth_maps(view, t)
    if z_maps is not None and view.depth_kind is not None:
        at = uv
        if sweeps is not None and ids_maps is not None:
            z_map, ids_map = sweeps.onto(view, t)
            z_maps, ids_maps = z_map[None], ids_map[None]
            at, _ = project_at_once(view, t, points_cam)
        quad = quad_at(_on_layer(view, "z_depth", at, t), view.depth_size)
        state, reason = depth_test(quad, z, instance, z_maps, ids_maps, view.depth_kind)
    is_outside = ~((uv >= 0) & (uv <= view.size)).all(axis=-1)
    state[is_outside], reason[is_outside] = Visibility.OUTSIDE, Reason.OUT_OF_IMAGE
    state[z <= 0], reason[z <= 0] = Visibility.OUTSIDE, Reason.BEHIND_CAMERA
    return state, reason, uv, z
