"""Carry pixels of one frame to another by depth, pose and motion - as stored, or as they would be with a fault.

Every check asks the same two things: how far is what the scene predicts from what it stores, and how would that
residual change if K, depth, poses or clocks were slightly different. The second is what turns a residual into a
bias in pixels, per cent or frames, and what tells a good scene from one in which the fault cannot be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.motion import MotionKind
from datakit.scene.records import MotionRecord

from .frames import FrameData, interpolate_pose
from .raster import Float, Mask, gather, interpolate, is_smooth, neighbourhood, stencil_at


@dataclass(frozen=True)
class Tweak:
    """A change to a scene's cameras, depth and clocks; the default changes nothing.

    Attributes:
        shift_px: (u, v) added to the principal point of the depth grid, in pixels of the colour grid.
        colour_shift_px: (u, v) added to the principal point of the colour grid.
        log_focal: Added to log f of both grids.
        log_scale: Added to log z.
        ray: 1 reads stored depth as distance along the ray, -1 undoes that for depth stored so.
        pose_frames: Camera poses are taken so many frames later.
        motion_frames: Instance poses are taken so many samples later.
        depth_frames: Depth is taken so many frames later.
        drift_px: (u, v) added to where points are seen on the target's colour grid.
        move_pose: Applied to every world_from_cam.
        move_instances: Applied to world_from_instance or world_from_box of all instances at once, (I, 4, 4).
    """

    shift_px: tuple[float, float] = (0.0, 0.0)
    colour_shift_px: tuple[float, float] = (0.0, 0.0)
    log_focal: float = 0.0
    log_scale: float = 0.0
    ray: float = 0.0
    pose_frames: float = 0.0
    motion_frames: float = 0.0
    depth_frames: float = 0.0
    drift_px: tuple[float, float] = (0.0, 0.0)
    move_pose: Callable[[Float], Float] | None = None
    move_instances: Callable[[Float], Float] | None = None


NO_TWEAK = Tweak()
#: Where a point is seen depends on the line's time, and that on where it is seen. Things pass by a hundredth of the
#: way that the readout goes, so that each step takes as large a part of what is left.
_SHUTTER_STEPS = 2


@dataclass(frozen=True)
class Points:
    """N pixels of a source frame that the scene can carry to a target frame.

    Attributes:
        uv_px: (N, 2) on the source's depth grid.
        inverse_depth: (N,) there.
        rows: (N,) row of the pixel's instance in the motion record.
        is_rigid: (N,) bool; False for static points.
        before: (N,) 1/z of the same pixel one frame earlier; NaN where not smooth or not there.
        after: (N,) likewise one frame later.
    """

    uv_px: Float
    inverse_depth: Float
    rows: NDArray[np.int64]
    is_rigid: Mask
    before: Float
    after: Float

    def take(self, mask: Mask) -> Points:
        """Return the points where `mask` is True."""
        return Points(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Prediction:
    """Where points are in the target: camera-frame points, colour-grid and depth-grid pixels, both frames."""

    points_cam: Float
    uv_depth: Float
    uv_colour: Float
    uv_colour_source: Float


class PairData:
    """Two frames and the points carried between them."""

    def __init__(self, source: FrameData, target: FrameData, motion: MotionRecord, baseline: int) -> None:
        self.source, self.target, self.motion, self.baseline = source, target, motion, baseline
        self._moves: dict[float, Float] = {}

    def depth_k(self, frame: FrameData, tweak: Tweak) -> Float:
        """Return K of a frame's depth grid under a tweak."""
        k = frame.depth_intrinsics.copy()
        colour = frame.colour_intrinsics
        k[0, 2] += tweak.shift_px[0] * k[0, 0] / colour[0, 0]
        k[1, 2] += tweak.shift_px[1] * k[1, 1] / colour[1, 1]
        k[[0, 1], [0, 1]] *= np.exp(tweak.log_focal)
        return k

    def colour_k(self, frame: FrameData, tweak: Tweak) -> Float:
        """Return K of a frame's colour grid under a tweak."""
        k = frame.colour_intrinsics.copy()
        k[:2, 2] += tweak.colour_shift_px
        k[[0, 1], [0, 1]] *= np.exp(tweak.log_focal)
        return k

    def lift(self, frame: FrameData, uv_px: Float, inverse_depth: Float, tweak: Tweak) -> Float:
        """Turn depth-grid pixels with 1/z into camera-frame points, (N, 3)."""
        record = frame.view.record
        k = self.depth_k(frame, tweak)
        rays = g.unproject_distorted(
            uv_px, np.ones(len(uv_px)), k, record["camera_model"], record["distortion"]
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.exp(tweak.log_scale) / inverse_depth
        if tweak.ray:
            # Between the two readings of a stored number the step is geometric, so that -1 undoes +1.
            z = z * np.linalg.norm(rays, axis=1) ** -tweak.ray
        if frame.shutter is not None:
            return frame.shutter.leave(frame.delay(uv_px, k), rays, z)
        return rays * z[:, None]

    def project(self, frame: FrameData, points_cam: Float, k: Float) -> Float:
        """Project camera-frame points by a K of a frame's view, (N, 2); each line at its own time."""
        record = frame.view.record
        lens = record["camera_model"], record["distortion"]
        uv_px = g.project_distorted(points_cam, k, *lens)[0]
        if frame.shutter is not None:
            for _ in range(_SHUTTER_STEPS):
                seen = frame.shutter.meet(frame.delay(uv_px, k), points_cam)
                uv_px = g.project_distorted(seen, k, *lens)[0]
        return uv_px

    def pose(self, frame: FrameData, tweak: Tweak) -> Float:
        """Return world_from_cam of a frame under a tweak."""
        pose = frame.pose_at(tweak.pose_frames)
        return pose if tweak.move_pose is None else tweak.move_pose(pose)

    def carry(self, points: Points, points_world: Float, tweak: Tweak) -> Float:
        """Move world points of the source's time to the target's time."""
        out = points_world.copy()
        if points.is_rigid.any():
            moves = self._instance_moves(tweak)[points.rows[points.is_rigid]]
            moved = np.einsum("nij,nj->ni", moves[:, :3, :3], points_world[points.is_rigid])
            out[points.is_rigid] = moved + moves[:, :3, 3]
        return out

    def _instance_moves(self, tweak: Tweak) -> Float:
        """Return what carries the points of each instance from the source's time to the target's, (I, 4, 4)."""
        if tweak.move_instances is not None:
            poses = self.motion.world_from_instance
            start, end = (tweak.move_instances(poses[f.sample]) for f in (self.source, self.target))
            return end @ g.invert_rigid(start)
        # Most tweaks leave the instances alone, and a pair is carried some eighty times.
        if tweak.motion_frames not in self._moves:
            start, end = (
                self._instance_poses(f.sample, tweak.motion_frames) for f in (self.source, self.target)
            )
            self._moves[tweak.motion_frames] = end @ g.invert_rigid(start)
        return self._moves[tweak.motion_frames]

    def _instance_poses(self, sample: int, offset: float) -> Float:
        """Return world_from_instance of all rows `offset` samples after one of the motion clock, (I, 4, 4)."""
        poses = self.motion.world_from_instance
        if offset == 0:
            return poses[sample]
        near = slice(max(sample - 1, 0), sample + 2)
        known = np.asarray(np.isfinite(poses[near]).all(axis=(2, 3)))
        return interpolate_pose(poses[near], known, sample - near.start, offset)

    def world_points(self, points: Points, tweak: Tweak) -> Float:
        """Lift source pixels to the world, (N, 3)."""
        inverse = points.inverse_depth
        if tweak.depth_frames:
            other = points.after if tweak.depth_frames > 0 else points.before
            mirror = points.before if tweak.depth_frames > 0 else points.after
            step = np.where(np.isfinite(other), other - inverse, inverse - mirror)
            inverse = inverse + abs(tweak.depth_frames) * step
        return g.transform_points(
            self.pose(self.source, tweak), self.lift(self.source, points.uv_px, inverse, tweak)
        )

    def predict(self, points: Points, tweak: Tweak = NO_TWEAK) -> Prediction:
        """Say where source pixels are in the target frame."""
        moved = self.carry(points, self.world_points(points, tweak), tweak)
        return self.look(points, moved, tweak)

    def look(self, points: Points, points_world: Float, tweak: Tweak) -> Prediction:
        """Project world points at the target's time into the target frame."""
        cam = g.transform_points(g.invert_rigid(self.pose(self.target, tweak)), points_world)
        start = self.lift(self.source, points.uv_px, points.inverse_depth, tweak)
        return Prediction(
            points_cam=cam,
            uv_depth=self.project(self.target, cam, self.depth_k(self.target, tweak)),
            uv_colour=self.project(self.target, cam, self.colour_k(self.target, tweak)) + tweak.drift_px,
            uv_colour_source=self.project(self.source, start, self.colour_k(self.source, tweak)),
        )

    def observed(self, uv_depth: Float, tweak: Tweak, bend: float, step: float) -> tuple[Float, Mask]:
        """Read the target's depth at depth-grid positions.

        Returns:
            log z (N,), NaN where the surface is not smooth there; and whether the position is on the grid.
        """
        raster = self.target.inverse_depth
        if self.target.is_sparse:
            return self._observed_nearby(uv_depth, tweak)
        stencil = stencil_at(uv_depth, raster.shape[::-1])
        patch = gather(stencil, raster)
        smooth = is_smooth(patch, bend, step) & stencil.is_inside
        inverse = np.where(smooth, interpolate(stencil, patch), np.nan)
        points = self.lift(self.target, np.where(np.isfinite(uv_depth), uv_depth, 0.0), inverse, tweak)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(points[:, 2]), stencil.is_inside

    def _observed_nearby(self, uv_depth: Float, tweak: Tweak) -> tuple[Float, Mask]:
        """Read sparse depth: the known pixel nearest to the position among the 3x3 around it."""
        row, col, inside = self._known_pixel(uv_depth)
        found = np.where(inside, self.target.inverse_depth[row, col], np.nan)
        points = self.lift(self.target, centres(row, col), found, tweak)
        with np.errstate(invalid="ignore"):
            return np.log(points[:, 2]), inside

    def _known_pixel(self, uv_depth: Float) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
        """Find the pixel with depth nearest to each position among the 3x3 around it: row, column, on the grid."""
        raster = self.target.inverse_depth
        height, width = raster.shape
        with np.errstate(invalid="ignore"):
            inside: Mask = np.all((uv_depth >= 1) & (uv_depth < np.array([width - 1, height - 1])), axis=1)
        safe = np.where(inside[:, None], uv_depth, 1.5)
        base = np.floor(safe).astype(np.int64)
        patch = neighbourhood(raster, base[:, 1], base[:, 0]).reshape(len(base), 9)
        offset = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(9, 2)
        distance = np.linalg.norm(base[:, None] + offset + 0.5 - safe[:, None], axis=2)
        best = base + offset[np.argmin(np.where(np.isfinite(patch), distance, np.inf), axis=1)]
        return best[:, 1], best[:, 0], inside

    def depth_residual(
        self, points: Points, tweak: Tweak, bend: float, step: float
    ) -> tuple[Float, Mask, Mask]:
        """Compare predicted with observed depth in the target.

        Returns:
            log z predicted - log z observed (N,), NaN where nothing can be compared; whether the prediction is
            on the target's grid; whether the target's pixel belongs to the same instance.
        """
        return self.residual_of(self.predict(points, tweak), points, tweak, bend, step)

    def residual_of(
        self, prediction: Prediction, points: Points, tweak: Tweak, bend: float, step: float
    ) -> tuple[Float, Mask, Mask]:
        """Compare a prediction with the target's depth; returns as `depth_residual`."""
        observed, inside = self.observed(prediction.uv_depth, tweak, bend, step)
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.log(prediction.points_cam[:, 2]) - observed
        return residual, inside, self.same_instance(prediction.uv_depth, points.rows)

    def same_instance(self, uv_depth: Float, rows: NDArray[np.int64]) -> Mask:
        """Tell where the target shows the instance a point is on."""
        if self.target.instances is None:
            return np.ones(len(rows), dtype=bool)
        if self.target.is_sparse:
            # Instances of sparse depth may be known only where depth is.
            row, col, _ = self._known_pixel(uv_depth)
            uv_depth = centres(row, col)
        ids = self.target.nearest("instances", self.target.instances, uv_depth)
        return np.asarray(ids == self.motion.instance_ids[rows], dtype=np.bool_)


def centres(row: NDArray[np.int64], col: NDArray[np.int64]) -> Float:
    """Return the centres (N, 2) px of pixels."""
    return np.stack([col, row], axis=-1).astype(np.float64) + 0.5


def kind_of(motion: MotionRecord, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the `MotionKind` of motion rows; UNKNOWN for -1."""
    return np.where(rows >= 0, motion.instance_motion[rows], MotionKind.UNKNOWN).astype(np.uint8)
