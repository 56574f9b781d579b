"""Carry world points from one time to another by each kind of motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError
from datakit.scene.records import MotionRecord

from .kinds import Reason

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


def instance_rows(motion: MotionRecord, instance: NDArray[np.uint32]) -> Index:
    """Find the row of each instance id in the motion record; -1 where it has none."""
    at = np.searchsorted(motion.instance_ids, instance)
    at = np.minimum(at, len(motion.instance_ids) - 1)
    return np.where(motion.instance_ids[at] == instance, at, -1).astype(np.int64)


def carry_points(
    motion: MotionRecord,
    points_world: Float,
    instance: NDArray[np.uint32],
    m_src: Index,
    m_tgt: Index,
) -> tuple[Float, NDArray[np.uint8]]:
    """Move points that belong to instances from one sample of the motion clock to another.

    Args:
        motion: The scene's motion.
        points_world: (N, 3) at m_src.
        instance: (N,) instance ids.
        m_src: (N,) sample of the motion clock, -1 for none.
        m_tgt: (N,) likewise.

    Returns:
        points_world (N, 3) at m_tgt, NaN unknown; and reason (N,) `Reason`, SEEN where the motion is known.
    """
    out, follows = _move(motion, points_world, instance, m_src, m_tgt)
    lost = np.isfinite(points_world).all(axis=-1) & np.isnan(out).any(axis=-1)
    reason = np.full(len(points_world), Reason.SEEN, np.uint8)
    reason[lost] = np.where(follows[lost], Reason.NO_TRAJECTORY_NEAR, Reason.MOTION_UNKNOWN)
    return out, reason


def move_points(
    motion: MotionRecord, points_world: Float, instance: NDArray[np.uint32], m_src: Index, m_tgt: Index
) -> Float:
    """Do what `carry_points` does, without reasons."""
    return _move(motion, points_world, instance, m_src, m_tgt)[0]


def _move(
    motion: MotionRecord, points_world: Float, instance: NDArray[np.uint32], m_src: Index, m_tgt: Index
) -> tuple[Float, Mask]:
    """Move points, and tell which of them trajectories can carry."""
    out, rows, follows = _carry_by_pose(motion, points_world, instance, m_src, m_tgt, are_points=True)
    along = np.flatnonzero(follows)
    if along.size and motion.points_world is not None:
        out[along] = _follow(motion, points_world[along], rows[along], m_src[along], m_tgt[along])
    return out, follows


def carry_directions(
    motion: MotionRecord,
    vectors_world: Float,
    instance: NDArray[np.uint32],
    m_src: Index,
    m_tgt: Index,
) -> Float:
    """Turn directions, such as normals, with their instances.

    Args:
        motion: The scene's motion.
        vectors_world: (N, 3) at m_src.
        instance: (N,) instance ids.
        m_src: (N,) sample of the motion clock, -1 for none.
        m_tgt: (N,) likewise.

    Returns:
        (N, 3) at m_tgt; NaN for deforming or unknown motion.
    """
    return _carry_by_pose(motion, vectors_world, instance, m_src, m_tgt, are_points=False)[0]


def _carry_by_pose(
    motion: MotionRecord,
    vectors: Float,
    instance: NDArray[np.uint32],
    m_src: Index,
    m_tgt: Index,
    *,
    are_points: bool,
) -> tuple[Float, Index, Mask]:
    """Carry what is at rest or rigid, NaN else.

    Returns:
        (N, 3); row of each point's instance in the motion record, -1 for none; whether trajectories can carry it.
    """
    from .carry_kernels import carry

    poses = np.ascontiguousarray(motion.world_from_instance, np.float64)
    count = len(motion.instance_ids)
    expected = (len(motion.times), count, 4, 4)
    if poses.shape != expected or motion.instance_motion.shape != (count,):
        raise ConventionError("Motion has poses of another shape", expected=expected, found=poses.shape)
    out, rows, follows, off_clock = carry(
        np.ascontiguousarray(vectors, np.float64),
        np.ascontiguousarray(instance, np.uint32),
        np.ascontiguousarray(m_src, np.int64),
        np.ascontiguousarray(m_tgt, np.int64),
        np.ascontiguousarray(motion.instance_ids, np.uint32),
        np.ascontiguousarray(motion.instance_motion, np.uint8),
        poses,
        are_points,
    )
    if off_clock:
        raise ConventionError(
            "Points name samples that the motion's clock does not have",
            expected=f"-1..{len(motion.times) - 1}",
            found=f"{off_clock} others",
        )
    return out, rows, follows


def _follow(
    motion: MotionRecord,
    points_world: Float,
    rows: Index,
    m_src: Index,
    m_tgt: Index,
) -> Float:
    """Sort points into groups of one instance and one source sample, and move each with the trajectories around."""
    from .carry_kernels import follow

    assert motion.points_world is not None and motion.point_instance is not None  # for the type checker
    tracks = np.ascontiguousarray(motion.points_world)
    expected = (len(motion.point_instance), len(motion.times), 3)
    if tracks.shape != expected:
        raise ConventionError(
            "Motion has trajectories of another shape", expected=expected, found=tracks.shape
        )
    member = np.argsort(motion.point_instance, kind="stable")
    owner = motion.point_instance[member]
    key = rows * tracks.shape[1] + m_src
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.append(0, np.flatnonzero(np.diff(key)) + 1)
    out = np.empty_like(points_world)
    out[order] = follow(
        points_world[order],
        m_tgt[order],
        np.append(first, len(key)),
        key[first] % tracks.shape[1],
        tracks,
        member,
        np.searchsorted(owner, motion.instance_ids, "left"),
        np.searchsorted(owner, motion.instance_ids, "right"),
        key[first] // tracks.shape[1],
    )
    return out
