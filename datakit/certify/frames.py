"""Frames as the checks need them, kept for a short while."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion.carry import instance_rows
from datakit.scene import Scene, View
from datakit.scene.records import MotionRecord

from .raster import Float, band, smoothed
from .shutter import Shutter, shutter_of


class FrameData:
    """One frame of one view; each layer is decoded when it is first asked for."""

    def __init__(self, view: View, index: int, smoothing_px: float, has_time: bool) -> None:
        self.view = view
        self._has_time = has_time
        self.index = index
        self.colour_intrinsics: Float = view.intrinsics[index]
        self.depth_intrinsics: Float = view.depth_intrinsics[index]
        self.world_from_cam: Float = view.world_from_cam[index]
        self.sample = int(view.motion_index[index])
        self._smoothing_px = smoothing_px
        self._rows: NDArray[np.int64] | None = None
        self._poses: dict[float, Float] = {}
        self._contrast: dict[int, tuple[NDArray[np.float32], float]] = {}

    @cached_property
    def z_depth(self) -> NDArray[np.float32]:
        """(H, W) of the depth grid as stored; all NaN where the view has no depth."""
        z = self.view.z_depth(self.index)
        return np.full(self.view.depth_size[::-1], np.nan, np.float32) if z is None else z

    @cached_property
    def inverse_depth(self) -> Float:
        """(H, W) float64 1/z, NaN unknown or not positive; blurred where the source's depth is noisy."""
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(self.z_depth > 0, 1.0 / self.z_depth.astype(np.float64), np.nan)
        inverse[~np.isfinite(inverse)] = np.nan
        return inverse if self.is_sparse else smoothed(inverse, self._smoothing_px)

    @cached_property
    def is_sparse(self) -> bool:
        """Whether known depth pixels stand alone, as projected lidar points do."""
        known = np.isfinite(self.z_depth)
        together = known[1:-1, 1:-1] & known[1:-1, 2:] & known[1:-1, :-2] & known[2:, 1:-1] & known[:-2, 1:-1]
        return bool(together.sum() < 0.2 * known[1:-1, 1:-1].sum())

    @cached_property
    def grey(self) -> NDArray[np.float32]:
        """(H, W) mean of the colours, 0..255, on the colour grid."""
        return self.view.rgb(self.index).mean(axis=2, dtype=np.float32)

    def contrast(self, octave: int) -> tuple[NDArray[np.float32], float]:
        """Return (H, W) on the colour grid and its spread in grey levels, see `band`."""
        if octave not in self._contrast:
            self._contrast[octave] = band(self.grey, octave)
        return self._contrast[octave]

    @cached_property
    def instances(self) -> NDArray[np.uint32] | None:
        """(H, W) instance ids on their own grid, or None."""
        return self.view.instances(self.index)

    @cached_property
    def normals(self) -> NDArray[np.float32] | None:
        """(H, W, 3) world normals on their own grid, or None."""
        return self.view.normals(self.index)

    @cached_property
    def object_coords(self) -> NDArray[np.float32] | None:
        """(H, W, 3) on their own grid, or None."""
        return self.view.object_coords(self.index)

    def from_depth_grid(self, layer: str, uv_px: Float) -> Float:
        """Map pixels of the depth grid to a layer's grid ("rgb" stands for the colour grid)."""
        to = self.colour_intrinsics if layer == "rgb" else self.view.layer_intrinsics(layer)[self.index]
        if np.array_equal(to, self.depth_intrinsics):
            return uv_px
        return g.homography_points(to @ np.linalg.inv(self.depth_intrinsics), uv_px)

    def nearest(self, layer: str, raster: NDArray[Any], uv_px: Float) -> NDArray[Any]:
        """Read the pixel of a layer that contains each depth-grid position; positions off it are clamped."""
        uv = self.from_depth_grid(layer, uv_px)
        with np.errstate(invalid="ignore"):
            cols = np.clip(np.nan_to_num(uv[:, 0]), 0, raster.shape[1] - 1).astype(np.int64)
            rows = np.clip(np.nan_to_num(uv[:, 1]), 0, raster.shape[0] - 1).astype(np.int64)
        return raster[rows, cols]

    def motion_rows(self, motion: MotionRecord) -> NDArray[np.int64]:
        """Return the row in the motion record of each pixel of the depth grid, (H, W); -1 for unknown ids."""
        if self._rows is None:
            height, width = self.inverse_depth.shape
            if self.instances is None:
                ids: NDArray[Any] = np.zeros((height, width), np.uint32)
            else:
                uv = g.pixel_centres((width, height)).reshape(-1, 2)
                ids = self.nearest("instances", self.instances, uv).reshape(height, width)
            self._rows = instance_rows(motion, ids)
        return self._rows

    def pose_at(self, offset: float) -> Float:
        """Return world_from_cam `offset` frames later, between neighbours or beyond the ends by extrapolation.

        Photos without an order have no later: their pose stays.
        """
        if not self._has_time:
            return self.world_from_cam
        if offset not in self._poses:
            poses, known = self.view.world_from_cam, self.view.pose_is_known
            self._poses[offset] = interpolate_pose(poses, known, self.index, offset)
        return self._poses[offset]

    @cached_property
    def shutter(self) -> Shutter | None:
        """How the picture was read out, None for a global shutter or an unknown motion."""
        return shutter_of(self.view, self.index, self.pose_at) if self._has_time else None

    def delay(self, uv_px: Float, k: Float) -> Float:
        """Give when pixels (N, 2) of a grid with this K were exposed after the frame's own time, (N,) s."""
        assert self.shutter is not None
        axis, colour = self.shutter.axis, self.colour_intrinsics
        line = (uv_px[:, axis] - k[axis, 2]) / k[axis, axis] * colour[axis, axis] + colour[axis, 2]
        return self.shutter.delay(line)

    def neighbour_index(self, step: int) -> int | None:
        """Return the index of the frame `step` later, or None past an end or without an order in time."""
        index = self.index + step
        return index if self._has_time and 0 <= index < self.view.num_frames else None


def interpolate_pose(poses: Float, known: NDArray[np.bool_], index: int, offset: float) -> Float:
    """Move along a list of rigid poses by a part of a step.

    Args:
        poses: (T, ..., 4, 4).
        known: (T, ...) bool.
        index: Where to start; known.
        offset: In steps, between -1 and 1. Where the neighbour on that side is unknown or missing, the step is
            the other neighbour's, mirrored.

    Returns:
        (..., 4, 4); the pose at `index` where it has no known neighbour.
    """
    out = poses[index]
    if offset == 0:
        return out
    side = 1 if offset > 0 else -1
    # The neighbour that is asked for first comes last, and so wins.
    for step, amount in ((-side, -abs(offset)), (side, abs(offset))):
        if 0 <= index + step < len(poses) and known[index + step].any():
            moved = advance(poses[index], poses[index + step], amount)
            out = np.where(known[index + step][..., None, None], moved, out)
    return out


def advance(first: Float, second: Float, amount: float) -> Float:
    """Go `amount` of the way from rigid poses to others: translation linearly, rotation about its axis."""
    relative = np.swapaxes(first[..., :3, :3], -1, -2) @ second[..., :3, :3]
    turn = g.rotation_from_axis_angle(amount * rotation_vector(relative))
    return g.rigid_from(
        first[..., :3, :3] @ turn, first[..., :3, 3] + amount * (second[..., :3, 3] - first[..., :3, 3])
    )


def rotation_vector(rotation: Float) -> Float:
    """Return axis times angle (rad) of (..., 3, 3) rotations."""
    quaternion = g.quaternion_wxyz_from_rotation(rotation)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1)
    angle = 2 * np.arctan2(sine, quaternion[..., 0])
    is_turned = sine > 1e-12
    return quaternion[..., 1:] * np.where(is_turned, angle / np.where(is_turned, sine, 1.0), 2.0)[..., None]


class FrameStore:
    """Hands out frames and remembers the last few, so that memory does not grow with the scene."""

    def __init__(self, scene: Scene, smoothing_px: float, capacity: int = 6) -> None:
        self.scene = scene
        self._smoothing_px = smoothing_px
        self._capacity = capacity
        self._frames: OrderedDict[tuple[str, int], FrameData] = OrderedDict()

    def get(self, view: str, index: int) -> FrameData:
        """Return a frame of a view."""
        key = (view, index)
        if key not in self._frames:
            self._frames[key] = FrameData(
                self.scene.views[view], index, self._smoothing_px, self.scene.time_kind == "sequence"
            )
        self._frames.move_to_end(key)
        while len(self._frames) > self._capacity:
            self._frames.popitem(last=False)
        return self._frames[key]
