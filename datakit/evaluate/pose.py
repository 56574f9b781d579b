"""Camera poses of a clip against truth.

Trajectories (ATE, RPE) go through the package evo (26d0953 / 1.38.1, GPL-3.0, the extra `evaluate`; imported only when
asked for, never copied), called as CUT3R does (8bc15dc, eval/relpose/evo_utils.py:163-240). Pose AUC is VGGT's, as
StreamVGGT keeps it (3e28c5c, test_co3d.py:43-188).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError
from datakit.geometry import invert_rigid, quaternion_xyzw_from_rotation

Float = NDArray[np.float64]

_TRAJECTORY = ("ate", "rpe_trans", "rpe_rot")
#: Second singular value of the positions' covariance relative to the first, below which they lie on a line.
_RANK_TOLERANCE = 1e-12
#: MegaSaM's floor of the unit, and the share of the path below which first and last place are the same.
_UNIT_FLOOR, _CLOSED_LOOP = 1e-8, 1e-6
#: Added to norms, and least loss, of the pairwise angles (test_co3d.py: compare_translation_by_angle).
_ANGLE_EPS = 1e-15
#: Translation between two frames, relative to the largest position, that counts as none.
_STATIC = 1e-12
_FAILURE_DEG = 1e6


def trajectory(predicted: ArrayLike, target: ArrayLike, *, official: bool = False) -> dict[str, float]:
    """Score a trajectory after a Sim(3) that fits its positions to truth.

    Args:
        predicted: (T, 4, 4) world_from_cam in any world and unit. A pose that is not finite makes all errors infinite.
        target: (T, 4, 4) world_from_cam, metres; frames that are not finite are left out of both.
        official: Add what evo itself gives, NaN where it raises, as `<name>_official`.

    Returns:
        ate (metres, rmse of positions), rpe_trans (metres) and rpe_rot (degrees), rmse over neighbouring frames;
        num_frames, num_unanswered. ate and rpe_trans are NaN where truth or prediction stands still or goes straight,
        which fixes no rotation (evo raises, or fits rounding); rpe_rot needs no alignment and stays defined.

    Raises:
        UsageError: Shapes differ, or evo is not installed.
    """
    ours, theirs = _poses(predicted, target)
    known = np.isfinite(theirs).all(axis=(1, 2))
    ours, theirs = ours[known], theirs[known]
    unanswered = int((~np.isfinite(ours).all(axis=(1, 2))).sum())
    out = dict.fromkeys(_TRAJECTORY, float("nan"))
    said = dict(out)
    if unanswered:
        out = dict.fromkeys(_TRAJECTORY, float("inf"))
    elif len(theirs) > 1:
        out["rpe_rot"] = _rotation_only(ours, theirs)
        said = _by_evo(ours, theirs)
        if _fixes_rotation(ours[:, :3, 3], theirs[:, :3, 3]):
            out = dict(said)
    out |= {"num_frames": float(len(theirs)), "num_unanswered": float(unanswered)}
    return out | ({f"{name}_official": said[name] for name in _TRAJECTORY} if official else {})


def megasam(predicted: ArrayLike, target: ArrayLike, *, official: bool = False) -> dict[str, float]:
    """Score a trajectory in units of the distance between truth's first and last position (mega-sam c2e0099).

    A closed loop has no such unit: ate and rpe_trans are undefined (the official unit is then 1e-8).

    Args and Returns: as of `trajectory`; ate and rpe_trans have no unit.
    """
    ours, theirs = _poses(predicted, target)
    theirs = theirs.copy()
    known = theirs[np.isfinite(theirs).all(axis=(1, 2)), :3, 3]
    if not len(known):
        return trajectory(ours, theirs, official=official)
    unit = float(np.linalg.norm(known[-1] - known[0]))
    path = float(np.linalg.norm(np.diff(known, axis=0), axis=1).sum())
    theirs[:, :3, 3] /= max(unit, _UNIT_FLOOR)
    out = trajectory(ours, theirs, official=official)
    if unit <= max(_UNIT_FLOOR, _CLOSED_LOOP * path):
        out |= {"ate": float("nan"), "rpe_trans": float("nan")}
    return out


def pose_auc(
    predicted: ArrayLike,
    target: ArrayLike,
    thresholds: Sequence[int] = (30, 15, 5, 3),
    *,
    official: bool = False,
) -> dict[str, float]:
    """Score relative poses of all pairs of frames by angles.

    The error of a pair is the larger of its rotation's angle and the angle between its translations' directions, which
    is folded to at most 90 degrees: a prediction with all translations reversed is perfect (`_signed` does not fold).
    Truth that does not move between two frames has no direction: such pairs are undefined and left out (the official
    script gives them 90 degrees, so that a perfect static camera scores 0).

    Args:
        predicted: (T, 4, 4) world_from_cam; NaN pairs are failures.
        target: (T, 4, 4) world_from_cam.
        thresholds: Degrees.
        official: Add auc_{T}_official.

    Returns:
        auc_{T}, auc_{T}_signed, auc_rotation_{T} (rotations alone, over all pairs), rra_{T}, rta_{T} (shares below T),
        num_pairs, num_pairs_undefined. auc_{T} is the mean over 1..T degrees of the share below.

    Raises:
        UsageError: Shapes differ.
    """
    ours, theirs = _poses(predicted, target)
    first, second = np.triu_indices(len(theirs), 1)
    relative = [_relative(poses, first, second) for poses in (ours, theirs)]
    rotation = _rotation_deg(relative[0][:, :3, :3], relative[1][:, :3, :3])
    folded = _direction_deg(relative[0][:, :3, 3], relative[1][:, :3, 3])
    signed = _direction_deg(relative[0][:, :3, 3], relative[1][:, :3, 3], fold=False)
    size = max(1.0, float(np.nanmax(np.abs(theirs[:, :3, 3]), initial=0.0)))
    # Not finite truth has no direction either.
    moves = np.linalg.norm(relative[1][:, :3, 3], axis=1) > _STATIC * size
    out = {"num_pairs": float(len(first)), "num_pairs_undefined": float((~moves).sum())}
    for most in thresholds:
        out[f"auc_{most}"] = _auc(np.maximum(rotation, folded)[moves], most)
        out[f"auc_{most}_signed"] = _auc(np.maximum(rotation, signed)[moves], most)
        out[f"auc_rotation_{most}"] = _auc(rotation, most)
        out[f"rra_{most}"] = _share(rotation, most)
        out[f"rta_{most}"] = _share(folded[moves], most)
        if official:
            out[f"auc_{most}_official"] = _auc(np.maximum(rotation, folded), most)
    return out


def _poses(predicted: ArrayLike, target: ArrayLike) -> tuple[Float, Float]:
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    if ours.shape != theirs.shape or theirs.ndim != 3 or theirs.shape[1:] != (4, 4):
        raise UsageError(
            "Poses do not fit each other", expected="(T, 4, 4)", found=(ours.shape, theirs.shape)
        )
    return ours, theirs


def _evo() -> Any:
    try:
        from evo.core import geometry, metrics, trajectory
    except ImportError as error:
        raise UsageError("evo is not installed", mend="pip install 'datakit[evaluate]'") from error
    return geometry, metrics, trajectory


def _by_evo(ours: Float, theirs: Float) -> dict[str, float]:
    """ATE and RPE of evo after its Umeyama alignment with scale; NaN where it raises."""
    geometry, metrics, paths = _evo()
    reference = paths.PosePath3D(poses_se3=list(theirs))
    estimate = paths.PosePath3D(poses_se3=list(ours))
    try:
        estimate.align(reference, correct_scale=True)
    except geometry.GeometryException:
        return dict.fromkeys(_TRAJECTORY, float("nan"))
    ate = metrics.APE(metrics.PoseRelation.translation_part)
    ate.process_data((reference, estimate))
    return {
        "ate": float(ate.get_statistic(metrics.StatisticsType.rmse)),
        "rpe_trans": _rpe(metrics, reference, estimate, metrics.PoseRelation.translation_part),
        "rpe_rot": _rpe(metrics, reference, estimate, metrics.PoseRelation.rotation_angle_deg),
    }


def _rotation_only(ours: Float, theirs: Float) -> float:
    """RPE-R without alignment, which cannot change it: a Sim(3) turns all poses alike."""
    _, metrics, paths = _evo()
    reference, estimate = (paths.PosePath3D(poses_se3=list(poses)) for poses in (theirs, ours))
    return _rpe(metrics, reference, estimate, metrics.PoseRelation.rotation_angle_deg)


def _rpe(metrics: Any, reference: Any, estimate: Any, relation: Any) -> float:
    rpe = metrics.RPE(relation, delta=1, delta_unit=metrics.Unit.frames, all_pairs=True)
    rpe.process_data((reference, estimate))
    return float(rpe.get_statistic(metrics.StatisticsType.rmse))


def _fixes_rotation(ours: Float, theirs: Float) -> bool:
    """Whether two sets of positions fix the rotation between them: their covariance has rank 2."""
    covariance = (theirs - theirs.mean(axis=0)).T @ (ours - ours.mean(axis=0))
    singular = np.linalg.svd(covariance, compute_uv=False)
    return bool(singular[1] > _RANK_TOLERANCE * singular[0])


def _relative(world_from_cam: Float, first: NDArray[np.int64], second: NDArray[np.int64]) -> Float:
    """Poses of the second camera seen by the first: w2c_i inv(w2c_j)."""
    return np.asarray(invert_rigid(world_from_cam)[first] @ world_from_cam[second])


def _rotation_deg(ours: Float, theirs: Float) -> Float:
    known = np.isfinite(ours).all(axis=(1, 2)) & np.isfinite(theirs).all(axis=(1, 2))
    out = np.full(len(ours), _FAILURE_DEG)
    if known.any():
        a, b = (quaternion_xyzw_from_rotation(rotations[known]) for rotations in (ours, theirs))
        loss = np.maximum(1 - np.square((a * b).sum(axis=1)), _ANGLE_EPS)
        out[known] = np.degrees(np.arccos(np.clip(1 - 2 * loss, -1, 1)))
    return out


def _direction_deg(ours: Float, theirs: Float, *, fold: bool = True) -> Float:
    """Angle between directions; 90 degrees where one has none, a failure where one is not finite."""
    a, b = (t / (np.linalg.norm(t, axis=1, keepdims=True) + _ANGLE_EPS) for t in (ours, theirs))
    cosine = (a * b).sum(axis=1)
    loss = np.maximum(1 - cosine**2, _ANGLE_EPS)
    angle = np.degrees(np.arccos(np.sqrt(np.maximum(1 - loss, 0))))
    if not fold:
        angle = np.where(cosine < 0, 180 - angle, angle)
    return np.where(np.isfinite(angle), angle, _FAILURE_DEG)


def _auc(errors_deg: Float, most: int) -> float:
    """Mean of the cumulative histogram in bins of one degree; the last bin holds its right edge."""
    if not errors_deg.size:
        return float("nan")
    counts, _ = np.histogram(errors_deg, bins=np.arange(most + 1))
    return float(np.mean(np.cumsum(counts / len(errors_deg))))


def _share(errors_deg: Float, most: int) -> float:
    return float((errors_deg < most).mean()) if errors_deg.size else float("nan")
