"""Cameras from answers: focal lengths from one frame's points, poses from points told in two cameras.

The rules are those of arXiv 2512.08924, section 3 (intrinsics by the median of z (u - 1/2) / x, extrinsics by
Umeyama); where it is silent, `InferParams` says what is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g

from .answers import OpenClip
from .grids import cell_centres, grid_shape
from .params import InferParams
from .robust import fit_similarity, mean_pose

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: A fit without any error would have infinite weight.
_LEAST_RESIDUAL = 1e-9


@dataclass(frozen=True)
class Cameras:
    """Cameras of a clip's T frames.

    The model's camera has its principal point in the middle of the picture. Where a video's lies elsewhere (it was
    cropped, say), points are still those of the true camera, and so are poses; but focal lengths are off, by 0.05 %,
    1.2 % and 4.8 % for a centre 1 %, 5 % and 10 % of the width beside the middle (room of tests/infer/oracles.py),
    and `intrinsics_residual` is about as large as that distance.

    Attributes:
        fx_fy: (T, 2) float64 focal lengths in image widths and heights, NaN unknown.
        intrinsics_residual: (T,) median distance between where points were asked for and where they project, in
            widths and heights; NaN unknown.
        world_from_cam: (T, 4, 4) float64, world = camera of frame 0, in the clip's unit; NaN unknown.
        pose_residual: (T,) weighted mean distance after alignment as a share of depth, NaN unknown, 0 for frame 0.
        pose_scale: (T,) scale between the two point sets if it were free: 1 in a clip that does not contradict
            itself.
    """

    fx_fy: Float
    intrinsics_residual: Float
    world_from_cam: Float
    pose_residual: Float
    pose_scale: Float

    @property
    def pose_is_known(self) -> Mask:
        """(T,) bool."""
        return np.asarray(np.isfinite(self.world_from_cam).all(axis=(1, 2)))


def find_cameras(clip: OpenClip, params: InferParams) -> Cameras:
    """Ask for the cameras of a clip: `camera_queries` queries."""
    columns, rows = grid_shape(params.camera_grid, clip.info.size)
    uv, count = cell_centres(columns, rows), clip.num_frames
    own, own_confidence = np.empty((count, len(uv), 3)), np.empty((count, len(uv)))
    for t in range(count):
        answer = clip.ask(uv, *_times(len(uv), t, t, t))
        own[t], own_confidence[t] = answer.xyz, answer.confidence
    fx_fy, residual = find_focal(uv, own, own_confidence, params)
    return Cameras(fx_fy, residual, *_find_poses(clip, uv, own, own_confidence, params))


def camera_queries(params: InferParams, num_frames: int, size: tuple[int, int]) -> int:
    """Count the queries of `find_cameras`."""
    columns, rows = grid_shape(params.camera_grid, size)
    pairs = sum(len(_star(num_frames, key, params)) for key in keyframes(num_frames, params))
    return columns * rows * (num_frames + pairs)


def find_focal(uv: Float, xyz: Float, confidence: Float, params: InferParams) -> tuple[Float, Float]:
    """Find focal lengths from points told in their own frame's camera.

    Args:
        uv: (N, 2) where points were asked for.
        xyz: (T, N, 3) answers with t_src = t_tgt = t_cam.
        confidence: (T, N).
        params: How.

    Returns:
        fx_fy (T, 2) and the residual (T,) as in `Cameras`.
    """
    found = np.array([_focal(uv, *of_frame, params) for of_frame in zip(xyz, confidence, strict=True)])
    if params.focal == "shared":
        found[:] = _median_of_known(found)
    residual = np.full(len(xyz), np.nan)
    for t, (points, trust) in enumerate(zip(xyz, confidence, strict=True)):
        use = is_trusted(points, trust, params)
        if use.any() and np.isfinite(found[t]).all():
            projected = found[t] * points[use, :2] / points[use, 2:] + 0.5
            residual[t] = np.median(np.linalg.norm(projected - uv[use], axis=1))
    return found, residual


def _focal(uv: Float, points: Float, confidence: Float, params: InferParams) -> Float:
    out, trusted = np.full(2, np.nan), is_trusted(points, confidence, params)
    for axis in range(2):
        off = uv[:, axis] - 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = points[:, 2] * off / points[:, axis]
        # A negative one says that left is right: the answer is wrong, but it is no less wrong than a large one.
        use = trusted & (np.abs(off) >= params.axis_margin) & np.isfinite(ratios)
        if use.sum() >= params.least_points:
            middle = np.median(ratios[use])
            out[axis] = middle if middle > 0 else np.nan
    return out


def _median_of_known(found: Float) -> Float:
    known = np.isfinite(found).all(axis=1)
    return np.median(found[known], axis=0) if known.any() else np.full(2, np.nan)


def is_trusted(points: Float, confidence: Float, params: InferParams) -> Mask:
    """Tell which points (N, 3) in their own camera can be used: known, in front, and not much less sure than others."""
    with np.errstate(invalid="ignore"):
        known = np.isfinite(points).all(axis=1) & (points[:, 2] > 0) & (confidence >= params.least_confidence)
    if not known.any():
        return np.asarray(known)
    return np.asarray(known & (confidence >= params.relative_confidence * np.median(confidence[known])))


def keyframes(num_frames: int, params: InferParams) -> list[int]:
    """Return the frames whose stars tie a clip together: the first, and every `star` frames."""
    step = _step(num_frames, params)
    return list(range(0, max(num_frames - 1, 1), step))


def _step(num_frames: int, params: InferParams) -> int:
    return params.star or max(1, -(-num_frames // 2))


def _star(num_frames: int, key: int, params: InferParams) -> list[int]:
    """Frames that a keyframe's points are told in: up to the keyframes on both sides."""
    step = _step(num_frames, params)
    return [t for t in range(max(0, key - step), min(num_frames, key + step + 1)) if t != key]


@dataclass(frozen=True)
class _Relation:
    """What one pair of frames tells: a pose, how well points fit, and their scale if it is free."""

    pose: Float
    residual: float
    scale: float


def _find_poses(
    clip: OpenClip, uv: Float, own: Float, own_confidence: Float, params: InferParams
) -> tuple[Float, Float, Float]:
    """Find world_from_cam, residual and scale of every frame: stars around keyframes, chained and averaged.

    All points of one fit are at one time, so what moves needs no mask.
    """
    count, keys = clip.num_frames, keyframes(clip.num_frames, params)
    key_from: dict[tuple[int, int], _Relation] = {}
    for key in keys:
        for frame in _star(count, key, params):
            found = _relate(clip, uv, own[key], own_confidence[key], key, frame, params)
            if found is not None:
                key_from[key, frame] = found
    world_from = {0: _Relation(np.eye(4), 0.0, 1.0)}
    for frame in [*keys[1:], *(t for t in range(count) if t not in keys)]:
        guesses = list(_guesses(frame, key_from, {key: world_from[key] for key in keys if key in world_from}))
        if guesses:
            world_from[frame] = _average(guesses)
    poses, rest = np.full((count, 4, 4), np.nan), np.full((2, count), np.nan)
    for frame, relation in world_from.items():
        poses[frame], rest[:, frame] = relation.pose, (relation.residual, relation.scale)
    return poses, rest[0], rest[1]


def _relate(
    clip: OpenClip, uv: Float, own: Float, own_confidence: Float, key: int, frame: int, params: InferParams
) -> _Relation | None:
    """Return key_from_frame: the same points, at the time of `key`, told in both cameras."""
    answer = clip.ask(uv, *_times(len(uv), key, key, frame))
    there = np.asarray(answer.xyz, np.float64)
    confidence = np.minimum(own_confidence, answer.confidence)
    # Behind the other camera is no fault: only the frame of the points has to see them.
    use = is_trusted(own, confidence, params) & np.isfinite(there).all(axis=1)
    if use.sum() < params.least_points:
        return None
    src, dst, weights, depth = own[use], there[use], confidence[use], own[use, 2]
    rigid, free = (
        fit_similarity(src, dst, weights, depth, with_scale=with_scale, rounds=params.huber_rounds)
        for with_scale in (False, True)
    )
    if rigid is None or free is None:
        return None
    return _Relation(g.invert_rigid(rigid.matrix()), rigid.residual, free.scale)


def _guesses(
    frame: int, key_from: Mapping[tuple[int, int], _Relation], world_from_key: Mapping[int, _Relation]
) -> Iterator[_Relation]:
    """Yield what each keyframe that is known says of a frame, and what the frame says of it."""
    for key, known in world_from_key.items():
        out, back = key_from.get((key, frame)), key_from.get((frame, key))
        if out is not None:
            yield _Relation(known.pose @ out.pose, out.residual, out.scale)
        if back is not None:
            yield _Relation(known.pose @ g.invert_rigid(back.pose), back.residual, 1 / back.scale)


def _average(guesses: Sequence[_Relation]) -> _Relation:
    weights = np.array([1 / max(guess.residual, _LEAST_RESIDUAL) ** 2 for guess in guesses])
    pose = mean_pose(np.stack([guess.pose for guess in guesses]), weights)
    residual, scale = (
        float(np.average([getattr(guess, name) for guess in guesses], weights=weights))
        for name in ("residual", "scale")
    )
    return _Relation(pose, residual, scale)


def _times(count: int, *times: int) -> list[Index]:
    return [np.full(count, t, np.int64) for t in times]
