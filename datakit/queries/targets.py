"""Answers to queries, with one mask per target."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.motion import Visibility
from datakit.motion.carry import carry_directions, move_points
from datakit.motion.sampling import (
    Quad,
    depth_windows,
    label_windows,
    quad_at,
    read_z,
    sample_vectors,
    smooth_at,
    windows,
)
from datakit.motion.visibility import depth_test

from .clip_view import ClipView, Draw

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


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

    Raises:
        UsageError: The questions do not fit the clip.
        ConventionError: The clip's frames are not on its motion's clock.
    """
    from .kernels import lift, map_pixels, relate

    draw = draw.checked(clip)
    on_depth = map_pixels(clip.depth_from_network, draw.t_src, draw.uv_px)
    quad = quad_at(on_depth, clip.depth_size, draw.t_src)
    z_around, labels_around = depth_windows(quad, clip.z_depth), label_windows(quad, clip.instances)
    smooth = smooth_at(quad, z_around, labels_around)
    z, _ = read_z(quad, z_around, smooth)
    points_src = lift(draw.uv_px, draw.t_src, z, clip.intrinsics, clip.world_from_cam)
    if clip.normals_world is not None:
        normals = sample_vectors(quad, clip.normals_world, smooth)
    else:
        normals = _normals_from_depth(clip, quad, z_around)

    instance = _own_label(quad, labels_around)
    m_src, m_tgt = clip.motion_index.take(draw.t_src), clip.motion_index.take(draw.t_tgt)
    points_tgt = move_points(clip.motion, points_src, instance, m_src, m_tgt)
    normals_tgt = carry_directions(clip.motion, normals, instance, m_src, m_tgt)
    # No motion has to be known to stay in one frame.
    same_time = draw.t_src == draw.t_tgt
    points_tgt[same_time], normals_tgt[same_time] = points_src[same_time], normals[same_time]

    width, height = clip.size
    xyz, uv, displacement, normal, known = relate(
        points_src, points_tgt, normals_tgt, draw.t_cam, clip.intrinsics, clip.world_from_cam, width, height
    )
    visible, has_visible = _visible(clip, draw, points_tgt, instance)
    return {
        "xyz": xyz,
        "target_uv": uv,
        "displacement": displacement,
        "normal": normal,
        "visible": visible,
        "has_xyz": known[0],
        "has_uv": known[1],
        "has_displacement": known[2],
        "has_normal": known[3],
        "has_visible": has_visible,
    }


def _own_label(quad: Quad, labels_around: NDArray[np.uint32]) -> NDArray[np.uint32]:
    place = 2 * (quad.row - quad.top) + quad.col - quad.left
    return labels_around.reshape(-1).take(4 * np.arange(len(place)) + place)


def _visible(
    clip: ClipView, draw: Draw, points_world: Float, instance: NDArray[np.uint32]
) -> tuple[Mask, Mask]:
    """Whether the network's frame t_tgt shows the points, and whether that is known."""
    from .kernels import look, map_pixels

    uv, z = look(points_world, draw.t_tgt, clip.intrinsics, clip.world_from_cam)
    quad = quad_at(map_pixels(clip.depth_from_network, draw.t_tgt, uv), clip.depth_size, draw.t_tgt)
    state, _ = depth_test(quad, z, instance, clip.z_depth, clip.instances, clip.depth_kind)
    # The depth grid may reach beyond the crop, or not cover it: the former is outside, the latter unknown.
    located = np.isfinite(z)
    state[~(quad.is_inside & located)] = Visibility.UNKNOWN
    state[located & ~clip.is_inside(uv)] = Visibility.OUTSIDE
    # A pixel sees its own point: no interpolation may say otherwise.
    state[located & (draw.t_src == draw.t_tgt)] = Visibility.VISIBLE
    return state == Visibility.VISIBLE, state != Visibility.UNKNOWN


def _normals_from_depth(clip: ClipView, quad: Quad, z_around: NDArray[np.float32]) -> Float:
    """(N, 3) unit world normals of the containing pixels where depth is locally planar, else NaN.

    A pixel counts as planar where 1/z at it is the mean of its neighbours' on both lines through it.
    """
    from .kernels import normals_from_depth

    width, height = clip.depth_size
    labels = np.zeros((len(z_around), 4, 4)) if clip.instances is None else windows(quad, clip.instances, 4)
    normals: Float = normals_from_depth(
        quad.top,
        quad.left,
        quad.row,
        quad.col,
        quad.is_inside,
        z_around,
        np.ascontiguousarray(labels, np.uint32),
        quad.frame,
        clip.depth_intrinsics,
        clip.world_from_cam,
        height,
        width,
    )
    return normals
