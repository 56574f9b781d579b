"""What `datakit.queries.answer` and `cut_patches` compute, in plain numpy: an independent oracle for tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.geometry import camera_rays, homography_points, invert_rigid, project_points, transform_points
from datakit.motion import MotionKind, Visibility
from datakit.motion.carry import instance_rows
from datakit.queries import ClipView, Draw
from tests.motion.reference import (
    Quad,
    carry_points,
    depth_test,
    is_one_surface,
    quad_at,
    sample_vectors,
    sample_z,
)

Float = NDArray[np.float64]
Index = NDArray[np.int64]


def answer(clip: ClipView, draw: Draw) -> dict[str, NDArray[Any]]:
    """Compute every target and mask of N queries.

    The rules are those of `schemas/query.yaml`: `xyz` is the point at time t_tgt in the camera of t_cam;
    `target_uv` is where it projects in t_cam, seen or not; `visible` is whether frame t_tgt sees it, false outside
    the image, masked where unknown; `displacement` is its world motion from t_src to t_tgt rotated into t_cam;
    `normal` is at t_tgt in t_cam, so that it turns with its object.

    Args:
        clip: The clip.
        draw: The questions.

    Returns:
        xyz, target_uv, visible, displacement, normal, and has_xyz, has_uv, has_visible, has_displacement,
        has_normal, dtypes as in the table.
    """
    quad = quad_at(
        homography_points(clip.depth_from_network[draw.t_src], draw.uv_px), clip.depth_size, draw.t_src
    )
    smooth = is_one_surface(quad, clip.z_depth, clip.instances)
    z, _ = sample_z(quad, clip.z_depth, smooth)
    instance = _instance_at(clip, quad)
    source_pose = clip.world_from_cam[draw.t_src]
    points_src = transform_points(
        source_pose, camera_rays(draw.uv_px, clip.intrinsics[draw.t_src]) * z[:, None]
    )
    m_src, m_tgt = clip.motion_index[draw.t_src], clip.motion_index[draw.t_tgt]
    points_tgt, _ = carry_points(clip.motion, points_src, instance, m_src, m_tgt)
    same_time = draw.t_src == draw.t_tgt
    points_tgt[same_time] = points_src[same_time]

    cam_from_world = invert_rigid(clip.world_from_cam)[draw.t_cam]
    xyz = transform_points(cam_from_world, points_tgt)
    displacement = _rotate(cam_from_world, points_tgt - points_src)
    uv, has_uv = _target_uv(clip, draw, xyz)
    visible, has_visible = _visible(clip, draw, points_tgt, instance)
    normals = _normals_world(clip, quad, smooth, source_pose, draw)
    normal = _rotate(cam_from_world, _turn(clip, normals, instance, m_src, m_tgt, same_time))
    targets = {"xyz": xyz, "target_uv": uv, "displacement": displacement, "normal": normal}
    out: dict[str, NDArray[Any]] = {name: value.astype(np.float32) for name, value in targets.items()}
    for name in ("xyz", "displacement", "normal"):
        out[f"has_{name}"] = np.isfinite(out[name]).all(axis=-1)
        out[name][~out[f"has_{name}"]] = np.nan
    out["has_uv"] = has_uv
    out["target_uv"][~has_uv] = np.nan
    out["visible"], out["has_visible"] = visible, has_visible
    return out


def _instance_at(clip: ClipView, quad: Quad) -> NDArray[np.uint32]:
    if clip.instances is None:
        return np.zeros(len(quad.row), np.uint32)
    return clip.instances[quad.frame, quad.row, quad.col].astype(np.uint32)


def _rotate(a_from_b: Float, vectors_b: Float) -> Float:
    return np.asarray(np.einsum("nij,nj->ni", a_from_b[:, :3, :3], vectors_b))


def _target_uv(clip: ClipView, draw: Draw, xyz: Float) -> tuple[Float, NDArray[np.bool_]]:
    uv, _ = project_points(xyz, clip.intrinsics[draw.t_cam])
    return uv / clip.size, clip.is_inside(uv)


def _visible(
    clip: ClipView, draw: Draw, points_world: Float, instance: NDArray[np.uint32]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether the network's frame t_tgt shows the points, and whether that is known."""
    points_cam = transform_points(invert_rigid(clip.world_from_cam)[draw.t_tgt], points_world)
    uv, z = project_points(points_cam, clip.intrinsics[draw.t_tgt])
    located = np.isfinite(z)
    outside = located & ~clip.is_inside(uv)
    quad = quad_at(homography_points(clip.depth_from_network[draw.t_tgt], uv), clip.depth_size, draw.t_tgt)
    state, _ = depth_test(quad, z, instance, clip.z_depth, clip.instances, clip.depth_kind)
    # The depth grid may reach beyond the crop, or not cover it: the former is outside, the latter unknown.
    state[~quad.is_inside] = Visibility.UNKNOWN
    state[~located] = Visibility.UNKNOWN
    state[outside] = Visibility.OUTSIDE
    own = (draw.t_src == draw.t_tgt) & located
    state[own] = Visibility.VISIBLE
    return state == Visibility.VISIBLE, state != Visibility.UNKNOWN


def _normals_world(
    clip: ClipView, quad: Quad, smooth: NDArray[np.bool_], source_pose: Float, draw: Draw
) -> Float:
    """(N, 3) unit world normals at the source pixels: the source's own, else from depth where it is planar."""
    if clip.normals_world is not None:
        normals = sample_vectors(quad, clip.normals_world, smooth)
    else:
        normals = _rotate(source_pose, _normals_from_depth(clip, quad, draw))
    norm = np.linalg.norm(normals, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0.5, normals / norm, np.nan)


def _normals_from_depth(clip: ClipView, quad: Quad, draw: Draw) -> Float:
    """(N, 3) camera-frame normals of the containing pixels from central differences; NaN off planes and at edges.

    A pixel counts as planar where 1/z at it is the mean of its neighbours' on both lines through it.
    """
    height, width = clip.z_depth.shape[1:]
    row, col, frame = quad.row, quad.col, quad.frame
    inner = (row > 0) & (row < height - 1) & (col > 0) & (col < width - 1) & quad.is_inside
    row, col = np.clip(row, 1, height - 2), np.clip(col, 1, width - 2)
    points, inverse = [], []
    matrix = clip.depth_intrinsics[draw.t_src]
    for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)):
        z = clip.z_depth[frame, row + down, col + right].astype(np.float64)
        uv = np.stack([col + right + 0.5, row + down + 0.5], axis=-1)
        points.append(camera_rays(uv, matrix) * z[:, None])
        inverse.append(1 / z)
    left, right_, up, low, here = inverse
    with np.errstate(invalid="ignore"):
        planar = (np.abs(left + right_ - 2 * here) < _PLANAR * here) & (
            np.abs(up + low - 2 * here) < _PLANAR * here
        )
    if clip.instances is not None:
        ids = clip.instances
        for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0)):
            planar &= ids[frame, row + down, col + right] == ids[frame, row, col]
    normals = np.cross(points[3] - points[2], points[1] - points[0])
    away = np.einsum("ni,ni->n", normals, points[4]) > 0
    normals[away] *= -1
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
    normals[~(planar & inner)] = np.nan
    return normals


#: Largest bend of 1/z over two pixels, as a share of it, that counts as planar.
_PLANAR = 0.01


def _turn(
    clip: ClipView,
    normals_world: Float,
    instance: NDArray[np.uint32],
    m_src: Index,
    m_tgt: Index,
    same_time: NDArray[np.bool_],
) -> Float:
    """Rotate normals with their instances from one time to another; NaN for deforming or unknown motion."""
    motion = clip.motion
    rows = instance_rows(motion, instance)
    kind = np.where(rows >= 0, motion.instance_motion[rows], MotionKind.UNKNOWN)
    out = np.where((same_time | (kind == MotionKind.STATIC))[:, None], normals_world, np.nan)
    rigid = np.flatnonzero((kind == MotionKind.RIGID) & ~same_time & (m_src >= 0) & (m_tgt >= 0))
    pose = motion.world_from_instance
    tgt_from_src = pose[m_tgt[rigid], rows[rigid]] @ invert_rigid(pose[m_src[rigid], rows[rigid]])
    out[rigid] = _rotate(tgt_from_src, normals_world[rigid])
    return out


def cut_patches(clip: ClipView, draw: Draw) -> NDArray[np.uint8]:
    height, width = clip.patch_frames.shape[1:3]
    to_patch = clip.patch_intrinsics @ np.linalg.inv(clip.intrinsics)
    uv = np.floor(homography_points(to_patch[draw.t_src], draw.uv_px)).astype(np.int64)
    reach = np.arange(9) - 4
    cols = np.clip(uv[:, :1] + reach, 0, width - 1)
    rows = np.clip(uv[:, 1:] + reach, 0, height - 1)
    return clip.patch_frames[draw.t_src[:, None, None], rows[:, :, None], cols[:, None, :]].transpose(
        0, 3, 1, 2
    )
