"""Pixels at depth and motion boundaries, from which the sampler draws its hard queries.

Both are found with a Sobel filter, as the D4RT paper says; what the filter runs on is ours:

* depth: inverse depth, which is linear in the pixel on every plane, so that floors at grazing angles do not count
  (only the response beyond the smallest one nearby does), relative to the nearer side, so that scale cancels;
* motion: the displacement of each pixel's surface point in the world to the next frame, as seen from its distance.
  The edge of a thing at rest is no motion boundary, the edge of one that moves is, and so is a crease of a thing
  that bends.

Pixels beside unknown depth or unknown motion are no boundary: nothing is known about the step there.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind, carry_points
from datakit.scene import MotionRecord

from .difficulty import MOVING
from .stored_view import thin_step, thinned_intrinsics

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.int32]

_AROUND = np.ones((5, 5), np.uint8)
_BESIDE = np.ones((3, 3), np.uint8)


def depth_boundary(z_depth: NDArray[np.floating], edge: float, dilate: int) -> Mask:
    """Find the pixels of a depth map where the surface breaks.

    Args:
        z_depth: (H, W), NaN unknown.
        edge: Threshold: half of the step in 1/z between neighbouring pixels, relative to the nearer one.
        dilate: Pixels to grow by.

    Returns:
        (H, W) bool; only where depth is known.
    """
    z = np.asarray(z_depth, np.float32)
    known = np.isfinite(z) & (z > 0)
    inverse = np.where(known, 1 / np.where(known, z, 1), np.float32(np.nan))
    return _grown(_beyond(inverse[..., None]) > edge * _nearest(inverse), known, dilate)


def motion_boundary(
    displacement: Float, z_depth: NDArray[np.floating], focal: float, edge: float, dilate: int
) -> Mask:
    """Find the pixels of a frame where neighbouring surface points move differently.

    Args:
        displacement: (H, W, 3) world displacement per frame, NaN unknown.
        z_depth: (H, W), NaN unknown.
        focal: Focal length as a share of the image's longer side.
        edge: Threshold: half of the step in motion between neighbours, as a share of the image's longer side.
        dilate: Pixels to grow by.

    Returns:
        (H, W) bool; only where depth and motion are known.
    """
    z = np.asarray(z_depth, np.float32)
    known = np.isfinite(displacement).all(axis=-1) & np.isfinite(z) & (z > 0)
    inverse = np.where(known, 1 / np.where(known, z, 1), np.float32(np.nan))
    # Relative to the largest, so that nothing vanishes in float32.
    unit = float(np.nanmax(np.abs(displacement), initial=0.0)) or 1.0
    step = _beyond((displacement / unit).astype(np.float32))
    return _grown(step * (unit * focal) * _nearest(inverse) > edge, known, dilate)


def _beyond(raster: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sobel response of an (H, W, C) raster per pixel, less the smallest one in the 5 x 5 around; NaN unknown."""
    if min(raster.shape[:2]) < 3:
        return np.full(raster.shape[:2], np.nan, np.float32)
    total = np.zeros(raster.shape[:2], np.float32)
    for channel in np.moveaxis(raster, -1, 0):
        for dx, dy in ((1, 0), (0, 1)):
            total += cv2.Sobel(channel, cv2.CV_32F, dx, dy, ksize=3, borderType=cv2.BORDER_REPLICATE) ** 2
    response = np.sqrt(total) / 8  # the 3 x 3 filter sums 8 times the slope
    # Beyond the image nothing is known, so its outermost pixels take the response of the ones inside.
    response = np.pad(response[1:-1, 1:-1], 1, mode="edge")
    smallest = cv2.erode(np.where(np.isfinite(response), response, np.float32(np.inf)), _AROUND)
    return np.asarray(response - smallest)


def _nearest(inverse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Largest inverse depth in the 3 x 3 around each pixel."""
    return np.asarray(cv2.dilate(np.nan_to_num(inverse), _BESIDE))


def _grown(mask: Mask, known: Mask, dilate: int) -> Mask:
    if dilate:
        size = 2 * dilate + 1
        mask = cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)).astype(bool)
    return mask & known


def scene_displacement(
    z_depth: NDArray[np.floating],
    instances: NDArray[np.unsignedinteger] | None,
    intrinsics: Float,
    world_from_cam: Float,
    motion: MotionRecord,
    m_src: int,
    m_tgt: int,
) -> Float:
    """Move the surface point of every pixel of a frame from one sample of the motion clock to another.

    Args:
        z_depth: (H, W), NaN unknown.
        instances: (H, W) on the same grid; None where all is instance 0.
        intrinsics: (3, 3) of the grid.
        world_from_cam: (4, 4).
        motion: The motion.
        m_src: Sample of the frame.
        m_tgt: Sample to move to.

    Returns:
        (H, W, 3) world displacement, NaN unknown, exactly 0 on what is static.
    """
    height, width = z_depth.shape
    labels = np.zeros((height, width), np.uint32) if instances is None else instances.astype(np.uint32)
    row = np.minimum(np.searchsorted(motion.instance_ids, labels), len(motion.instance_ids) - 1)
    kind = np.where(motion.instance_ids[row] == labels, motion.instance_motion[row], MotionKind.UNKNOWN)
    out = np.full((height, width, 3), np.nan)
    out[kind == MotionKind.STATIC] = 0
    moving = np.isin(kind, MOVING) & np.isfinite(z_depth)
    if moving.any():
        uv = g.pixel_centres((width, height))[moving]
        points = g.transform_points(world_from_cam, g.unproject_pixels(uv, z_depth[moving], intrinsics))
        clock = np.full(len(points), m_src), np.full(len(points), m_tgt)
        out[moving] = carry_points(motion, points, labels[moving], *clock)[0] - points
    return out


def moves(motion: MotionRecord) -> bool:
    """Say whether anything in the record can move."""
    return bool(np.isin(motion.instance_motion, MOVING).any())


def frame_motion_boundary(
    z_depth: NDArray[np.floating],
    instances: NDArray[np.unsignedinteger] | None,
    intrinsics: Float,
    world_from_cam: Float,
    motion: MotionRecord,
    m_src: int,
    m_tgt: int,
    *,
    edge: float,
    dilate: int,
    grid: int,
) -> Mask:
    """Find a frame's motion boundary on its depth grid; arguments as of the two functions above.

    Large grids are thinned for it (to a longer side below twice `grid`); then one pixel per step is marked.
    """
    step = thin_step((z_depth.shape[1], z_depth.shape[0]), grid)
    first = (step - 1) // 2
    thin = (slice(first, None, step), slice(first, None, step))
    z = z_depth[thin]
    labels = None if instances is None else instances[thin]
    camera = thinned_intrinsics(intrinsics, step, first)
    displacement = scene_displacement(z, labels, camera, world_from_cam, motion, m_src, m_tgt)
    focal = float(np.sqrt(camera[0, 0] * camera[1, 1])) / max(z.shape)
    out = np.zeros(z_depth.shape, bool)
    out[thin] = motion_boundary(displacement, z, focal, edge, dilate)
    return out


def boundary_rows(mask: Mask, t: int, limit: int) -> Rows:
    """List the pixels of a mask, at most `limit` of them, spread evenly and always the same.

    Args:
        mask: (H, W).
        t: Frame of the clip.
        limit: Most rows.

    Returns:
        (B, 3) int32 rows (t, row, col) in raster order.
    """
    at = np.flatnonzero(mask)
    if len(at) > limit:
        at = np.sort(at[np.argsort(_scramble(at, t), kind="stable")[:limit]])
    row, col = np.unravel_index(at, mask.shape)
    return np.stack([np.full(len(at), t), row, col], axis=-1).astype(np.int32)


def _scramble(values: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Hash integers (the finaliser of splitmix64): an order without pattern that no library version changes."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) + np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) & (2**64 - 1))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(x ^ (x >> np.uint64(31)))
