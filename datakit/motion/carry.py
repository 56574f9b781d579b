"""Carry world points from one time to another by each kind of motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit.geometry import invert_rigid, transform_points
from datakit.scene.records import MotionRecord

from .kinds import MotionKind, Reason

Float = NDArray[np.float64]

#: Trajectories used for the local motion around a point, and how many typical spacings away they may be.
_NEIGHBOURS = 8
_MAX_SPACINGS = 2.0


def instance_rows(motion: MotionRecord, instance: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Find the row of each instance id in the motion record; -1 where it has none."""
    at = np.searchsorted(motion.instance_ids, instance)
    at = np.minimum(at, len(motion.instance_ids) - 1)
    return np.where(motion.instance_ids[at] == instance, at, -1).astype(np.int64)


def carry_points(
    motion: MotionRecord,
    points_world: Float,
    instance: NDArray[np.uint32],
    m_src: NDArray[np.int64],
    m_tgt: NDArray[np.int64],
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
    rows = instance_rows(motion, instance)
    kind = np.where(rows >= 0, motion.instance_motion[rows], MotionKind.UNKNOWN)
    on_clock = (m_src >= 0) & (m_tgt >= 0)
    out = np.full_like(points_world, np.nan)
    reason = np.full(len(points_world), Reason.SEEN, np.uint8)

    static = kind == MotionKind.STATIC
    out[static] = points_world[static]

    rigid = (kind == MotionKind.RIGID) & on_clock
    pose = motion.world_from_instance
    tgt_from_src = pose[m_tgt[rigid], rows[rigid]] @ invert_rigid(pose[m_src[rigid], rows[rigid]])
    out[rigid] = transform_points(tgt_from_src, points_world[rigid])

    along = np.flatnonzero((kind == MotionKind.POINTS) & on_clock)
    if along.size and motion.points_world is not None:
        out[along] = _carry_along(motion, points_world[along], instance[along], m_src[along], m_tgt[along])
    known_source = np.isfinite(points_world).all(axis=-1)
    lost = known_source & ~np.isfinite(out).all(axis=-1)
    no_track = (kind == MotionKind.POINTS) & on_clock
    reason[lost] = np.where(no_track[lost], Reason.NO_TRAJECTORY_NEAR, Reason.MOTION_UNKNOWN)
    return out, reason


def _carry_along(
    motion: MotionRecord,
    points_world: Float,
    instance: NDArray[np.uint32],
    m_src: NDArray[np.int64],
    m_tgt: NDArray[np.int64],
) -> Float:
    out = np.full_like(points_world, np.nan)
    for ident, sample in sorted({(int(i), int(m)) for i, m in zip(instance, m_src, strict=True)}):
        mine = (instance == ident) & (m_src == sample)
        out[mine] = _follow_neighbours(motion, points_world[mine], ident, sample, m_tgt[mine])
    return out


def _follow_neighbours(
    motion: MotionRecord, points_world: Float, ident: int, sample: int, m_tgt: NDArray[np.int64]
) -> Float:
    """Move points by the affine motion that best fits the trajectories around each of them."""
    from scipy.spatial import cKDTree

    assert motion.points_world is not None and motion.point_instance is not None  # for the type checker
    tracks = motion.points_world[motion.point_instance == ident].astype(np.float64)
    out = np.full_like(points_world, np.nan)
    tracks = tracks[np.isfinite(tracks[:, sample]).all(axis=-1)]
    if len(tracks) < 2:
        return out
    tree = cKDTree(tracks[:, sample])
    spacing = np.median(tree.query(tracks[:, sample], k=2)[0][:, 1])
    count = min(_NEIGHBOURS, len(tracks))
    distance, nearest = tree.query(points_world, k=count)
    for m in np.unique(m_tgt):
        at = np.flatnonzero((m_tgt == m) & (distance[:, 0] <= _MAX_SPACINGS * spacing))
        src = tracks[nearest[at], sample]
        moved = tracks[nearest[at], m] - src
        use = np.isfinite(moved).all(axis=-1) & (distance[at] <= 2 * _MAX_SPACINGS * spacing)
        weight = use * np.exp(-0.5 * (distance[at] / max(spacing, 1e-12)) ** 2)
        out[at] = points_world[at] + _local_affine(
            src, np.nan_to_num(moved), weight, points_world[at], spacing
        )
    return out


def _local_affine(src: Float, moved: Float, weight: Float, at: Float, spacing: float) -> Float:
    """Fit displacement = a + B (x - at) / spacing by weighted least squares; return a, NaN without support.

    Trajectories lie on a surface, so B is open along its normal; a small ridge leaves it zero there.
    """
    local = (src - at[:, None]) / max(spacing, 1e-12)
    design = np.concatenate([np.ones_like(local[..., :1]), local], axis=-1)
    weighted = design * weight[..., None]
    normal = np.einsum("nki,nkj->nij", weighted, design)
    normal += np.diag([1e-12, 1e-4, 1e-4, 1e-4]) * np.maximum(weight.sum(axis=1), 1e-12)[:, None, None]
    right = np.einsum("nki,nkj->nij", weighted, moved)
    solution: Float = np.linalg.solve(normal, right)[:, 0]
    solution[weight.sum(axis=1) <= 0] = np.nan
    return solution
