"""When frames and boxes are, and how labelled objects move between labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datakit.geometry import rigid_from

from .segment import Box, Float, FrameHead, Labelled

#: A frame's pose is of about the middle of the 0.1 s sweep that starts at timestamp_micros (dataset.proto:393-403).
HALF_SWEEP = 0.05
#: Seconds around a frame whose pictures' poses tell the vehicle's path.
_AROUND = 0.16
#: Below this speed (m/s) a path does not tell the time: 1 cm of noise would be 10 ms.
_LEAST_SPEED = 1.0
#: Labels further apart than this (s) are two appearances; motion is carried past the first and last by half of it.
MAX_GAP = 0.25


def label_times(heads: Sequence[FrameHead]) -> tuple[Float, float]:
    """Tell the time that each frame's own pose, labels and points belong to.

    The release does not say it. The pictures' poses and times give the vehicle's path, and where on it the frame's
    pose lies gives the frame's time; the median over the segment is used, HALF_SWEEP where the vehicle stands.

    Args:
        heads: All frames.

    Returns:
        (T,) seconds since the epoch, and the offset from `timestamp_micros` used, s.
    """
    starts = np.array([head.timestamp_micros for head in heads]) * 1e-6
    images = [image for head in heads for image in head.images.values()]
    times = np.array([image.pose_time for image in images])
    places = np.array([image.global_from_vehicle[:3, 3] for image in images]).reshape(-1, 3)
    offsets = []
    for start, head in zip(starts, heads, strict=True):
        near = np.abs(times - start - HALF_SWEEP) < _AROUND
        if near.sum() >= 4 and np.ptp(times[near]) > _AROUND / 2:
            place = head.global_from_vehicle[:3, 3]
            offset = _time_on_path(times[near] - start, places[near] - place)
            if offset is not None:
                offsets.append(offset)
    offset = float(np.median(offsets)) if offsets else HALF_SWEEP
    return starts + offset, offset


def _time_on_path(times: Float, offsets: Float) -> float | None:
    """Find when a path of (K, 3) metres at (K,) s is nearest to the origin; None if it hardly moves."""
    a, b, c = np.polyfit(times, offsets, 2)
    t = HALF_SWEEP
    for _ in range(5):
        velocity = 2 * a * t + b
        if np.linalg.norm(velocity) < _LEAST_SPEED:
            return None
        t -= float((a * t * t + b * t + c) @ velocity / (velocity @ velocity))
    return t if abs(t - HALF_SWEEP) < _AROUND else None


@dataclass(frozen=True)
class ObjectPath:
    """An object's labels in the world: K of them, in time.

    Attributes:
        frames: (K,) the labels' frames.
        times: (K,) s.
        centres: (K, 3) metres, world.
        rotations: K of box to world.
        speeds: (K, 3) m/s, world; NaN unknown.
    """

    frames: NDArray[np.int64]
    times: Float
    centres: Float
    rotations: Rotation
    speeds: Float

    def at(self, times: Float) -> Float:
        """Interpolate the pose of the box.

        Between labels the centre follows a cubic through both with the labelled speeds, the rotation the shortest
        arc; before the first and after the last label both go on as they were for up to half of MAX_GAP.

        Args:
            times: (M,) s.

        Returns:
            world_from_box (M, 4, 4), NaN where the object is not labelled around that time.
        """
        out = np.full((len(times), 4, 4), np.nan)
        if len(self.times) == 1:
            near = np.abs(times - self.times[0]) <= MAX_GAP / 2
            shift = np.nan_to_num(self.speeds[0]) * (times[near] - self.times[0])[:, None]
            out[near] = rigid_from(self.rotations[0].as_matrix(), self.centres[0] + shift)
            return out
        left = np.clip(np.searchsorted(self.times, times, side="right") - 1, 0, len(self.times) - 2)
        step = np.diff(self.times)[left]
        part = (times - self.times[left]) / step
        beyond = np.maximum(np.maximum(-part, part - 1), 0) * step
        known = np.where(beyond > 0, beyond <= MAX_GAP / 2, True) & (step <= MAX_GAP)
        left, step, part = left[known], step[known], part[known]
        turn = (self.rotations[left + 1] * self.rotations[left].inv()).as_rotvec()
        rotation = Rotation.from_rotvec(turn * part[:, None]) * self.rotations[left]
        out[known] = rigid_from(rotation.as_matrix(), self._centres(left, step, part))
        return out

    def _centres(self, left: NDArray[np.int64], step: Float, part: Float) -> Float:
        start, end = self.centres[left], self.centres[left + 1]
        chord = (end - start) / step[:, None]
        v0 = np.where(np.isfinite(self.speeds[left]), self.speeds[left], chord)
        v1 = np.where(np.isfinite(self.speeds[left + 1]), self.speeds[left + 1], chord)
        s, h = np.clip(part, 0, 1)[:, None], step[:, None]
        inner = (
            (2 * s**3 - 3 * s**2 + 1) * start
            + (s**3 - 2 * s**2 + s) * h * v0
            + (3 * s**2 - 2 * s**3) * end
            + (s**3 - s**2) * h * v1
        )
        before, after = np.minimum(part, 0)[:, None], np.maximum(part - 1, 0)[:, None]
        return inner + before * h * v0 + after * h * v1


def object_paths(
    heads: Sequence[FrameHead], times: Float, world_from_vehicle: Float
) -> dict[str, tuple[ObjectPath, list[Labelled]]]:
    """Collect the labels of each object over a segment, keyed by its id, sorted.

    Args:
        heads: T frames.
        times: (T,) s, of the labels.
        world_from_vehicle: (T, 4, 4) of the frames' own poses.
    """
    found: dict[str, list[tuple[int, Labelled]]] = {}
    for t, head in enumerate(heads):
        for label in head.objects:
            found.setdefault(label.id, []).append((t, label))
    return {
        ident: (_path(found[ident], times, world_from_vehicle), [x for _, x in found[ident]])
        for ident in sorted(found)
    }


def _path(labels: list[tuple[int, Labelled]], times: Float, world_from_vehicle: Float) -> ObjectPath:
    frames = np.array([t for t, _ in labels])
    poses = world_from_vehicle[frames] @ np.array([box_pose(label.box) for _, label in labels])
    return ObjectPath(
        frames=frames,
        times=times[frames],
        centres=poses[:, :3, 3],
        rotations=Rotation.from_matrix(poses[:, :3, :3]),
        # Speeds are in the global frame, whose axes are the world's.
        speeds=np.array([label.speed_global for _, label in labels]),
    )


def box_pose(box: Box) -> Float:
    """Give vehicle_from_box (4, 4) of an upright box."""
    return rigid_from(Rotation.from_euler("z", box.heading).as_matrix(), box.centre)
