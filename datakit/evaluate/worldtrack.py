"""Tracks in one world: WorldTrack's numbers, and the world-frame numbers of the D4RT paper.

WorldTrack is St4RTrack's (fork 0a4ebfd, dust3r/track_eval_util.py:235-334 and track_eval.py:261-345): tracks visible in
frame 0, world = camera of frame 0, every frame counts, occluded ones too, and no visibility is asked. What differs
here: a prediction that is not finite is a miss (the original's medians become NaN, the OpenD4RT restatement drops the
point, so that not answering pays), points without truth do not count, and RANSAC is seeded.

D4RT (arXiv 2512.08924, Table 4) names world-frame APD3D and L1 without the alignment or how intrinsics enter; nobody
has reproduced them. `world_apd` says which settings it used; it cannot claim to be theirs.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

from .jaccard import THRESHOLDS_PX, Array, Mask, keep_floating
from .tracks3d import intrinsics_at_256, median_scale

Align = Literal["global", "per_traj", "sim3", "sim3_closed"]
#: Metres; a distance of exactly a threshold is within (track_eval_util.py:6-11, 316-321).
THRESHOLDS_M = (0.1, 0.3, 0.5, 1.0)
#: Metres of path beyond which a track is dynamic (track_eval.py:261-345).
DYNAMIC_PATH_M = 0.01
_NORM_FLOOR, _VARIANCE_FLOOR = 1e-12, 1e-12
_RANSAC_STEPS, _RANSAC_METRES, _RANSAC_POINTS = 1000, 0.05, 16384


def worldtrack(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    *,
    align: Align = "global",
    seed: int = 0,
    official: bool = False,
) -> dict[str, float]:
    """Score the tracks of one clip that are visible in its first frame.

    Args:
        predicted: (N, T, 3) in any one frame for the clip, up to what `align` fits; NaN is a miss.
        target: (N, T, 3) metres in the camera of frame 0; NaN where truth is unknown, which does not count.
        visible: (N, T) bool, truth; only frame 0 is looked at.
        align: `global`, one ratio of median norms; `per_traj`, one for each track; `sim3`, RANSAC over 3 points with
            5 cm, 1000 steps, at most 16,384 points; `sim3_closed`, least squares.
        seed: Of RANSAC.
        official: Add what the original prints, as `<name>_official`.

    Returns:
        apd, pts_within_{m}, epe (infinite if a point is unanswered), epe_answered, num_tracks, num_unanswered; and
        the same of tracks that move more than 1 cm, with `_dynamic`. NaN without a point.

    Raises:
        UsageError: Shapes differ, or an alignment is unknown.
    """
    ours, theirs, seen = _arrays(predicted, target, visible)
    if align not in get_args(Align):
        raise UsageError("Unknown alignment", where="align", expected=", ".join(get_args(Align)), found=align)
    start = seen[:, 0] if seen.shape[1] else np.zeros(len(seen), bool)
    ours, theirs = ours[start], theirs[start]
    use: Mask = np.isfinite(np.concatenate([ours, theirs], axis=-1)).all(axis=-1)
    fitted = _fit(ours, theirs, use, align, seed)
    dynamic = _path_length(theirs) > DYNAMIC_PATH_M
    out = _errors(fitted, theirs)
    out |= {f"{name}_dynamic": value for name, value in _errors(fitted[dynamic], theirs[dynamic]).items()}
    if official:
        out |= _official(fitted, theirs, use, align)
    return out


def world_apd(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    z_depth: ArrayLike,
    fx_fy_cx_cy: ArrayLike,
    size: tuple[float, float] | None = None,
    *,
    scaling: Literal["median", "none"] = "median",
) -> dict[str, float]:
    """Score tracks in the world with TAPVid-3D's thresholds: k pixels at the true depth in each frame's camera.

    Args:
        predicted: (N, T, 3) in the target's frame, up to scale with `median`; NaN is a miss.
        target: (N, T, 3) metres in one frame for the clip.
        visible: (N, T) bool: the points that count.
        z_depth: (N, T) metres, true depth in the camera of each frame.
        fx_fy_cx_cy: (4,) px.
        size: (W, H) of the intrinsics' image; None if they are those at a shorter side of 256.
        scaling: One ratio of median norms for the clip, or none.

    Returns:
        apd3d, pts_within_{k}, l1 (mean over coordinates, metres), l1_sum (mean over points of the sum of three),
        num_points; errors are infinite if a point is unanswered, NaN without a point.

    Raises:
        UsageError: Shapes differ, or a scaling is unknown.
    """
    ours, theirs, seen = _arrays(predicted, target, visible)
    if scaling not in ("median", "none"):
        raise UsageError("Unknown scaling", where="scaling", expected="median or none", found=scaling)
    camera = np.asarray(fx_fy_cx_cy, np.float64) if size is None else intrinsics_at_256(fx_fy_cx_cy, size)
    pixel = (np.asarray(z_depth, np.float64) / np.sqrt(camera[0] * camera[1]))[seen]
    scale = median_scale(ours, theirs, seen) if scaling == "median" else 1.0
    points, truth = scale * ours[seen], theirs[seen]
    out = {"num_points": float(len(truth))}
    if not len(truth):
        return out | dict.fromkeys(_WORLD_NAMES, float("nan"))
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(points - truth, axis=-1)
        out |= {f"pts_within_{k}": float((distance < k * pixel).mean()) for k in THRESHOLDS_PX}
    out["apd3d"] = float(np.mean([out[f"pts_within_{k}"] for k in THRESHOLDS_PX]))
    off = _unanswered_is_infinite(np.abs(points - truth).sum(axis=-1))
    return out | {"l1": float(off.mean() / 3), "l1_sum": float(off.mean())}


_WORLD_NAMES = ("apd3d", "l1", "l1_sum", *(f"pts_within_{k}" for k in THRESHOLDS_PX))


def _errors(fitted: Array, target: Array) -> dict[str, float]:
    known: Mask = np.asarray(np.isfinite(target).all(axis=-1))
    distance = _unanswered_is_infinite(np.linalg.norm(fitted - target, axis=-1)[known])
    answered = distance[np.isfinite(distance)]
    out = {
        f"pts_within_{m}": float((distance <= m).mean()) if distance.size else float("nan")
        for m in THRESHOLDS_M
    }
    return {
        "apd": float(np.mean(list(out.values()))),
        **out,
        "epe": float(distance.mean()) if distance.size else float("nan"),
        "epe_answered": float(answered.mean()) if answered.size else float("nan"),
        "num_tracks": float(len(target)),
        "num_unanswered": float(distance.size - answered.size),
    }


def _official(fitted: Array, theirs: Array, use: Mask, align: Align) -> dict[str, float]:
    """What the original gives: the median of a value that is not a number is none, and nothing is near it."""
    whole = np.asarray(use.all(axis=1)) if align == "per_traj" else np.full(len(use), bool(use.all()))
    points = np.where(whole[:, None, None], fitted, np.nan)
    distance = np.linalg.norm(points - theirs, axis=-1)
    known = distance[np.isfinite(distance)]
    within = [float((distance <= m).mean()) if distance.size else float("nan") for m in THRESHOLDS_M]
    return {
        "apd_official": float(np.mean(within)),
        "epe_official": float(known.mean()) if known.size else float("inf"),
    }


def _unanswered_is_infinite(errors: Array) -> Array:
    return np.where(np.isnan(errors), np.inf, errors)


def _path_length(points: Array) -> Array:
    """Sum of the steps between frames; unknown steps add nothing."""
    return np.asarray(np.nansum(np.linalg.norm(np.diff(points, axis=1), axis=-1), axis=1))


def _fit(ours: Array, theirs: Array, use: Mask, align: Align, seed: int) -> Array:
    if not use.any():
        return np.full_like(ours, np.nan)
    if align == "global":
        return ours * (_middle(theirs[use]) / _middle(ours[use]))
    if align == "per_traj":
        ratios = np.array(
            [
                _middle(g[u]) / _middle(p[u]) if u.any() else np.nan
                for g, p, u in zip(theirs, ours, use, strict=True)
            ]
        )
        return np.asarray(ours * ratios[:, None, None])
    # In the order of the original, (T, N), so that the same draw is the same points.
    picked = use.T
    src, dst = ours.swapaxes(0, 1)[picked], theirs.swapaxes(0, 1)[picked]
    if len(src) < 3:
        return np.full_like(ours, np.nan)
    scale, rotation, shift = _ransac(src, dst, seed) if align == "sim3" else _similarity(src, dst)
    return np.asarray(scale * (ours @ rotation.T) + shift)


def _middle(points: Array) -> float:
    norms = np.maximum(np.linalg.norm(points, axis=-1), _NORM_FLOOR)
    return max(float(np.median(norms)), _NORM_FLOOR)


def _similarity(src: Array, dst: Array) -> tuple[float, Array, Array]:
    """Closed-form Sim(3) as the original's: its scale adds singular values without the sign of a reflection."""
    src, dst = src.astype(np.float64), dst.astype(np.float64)
    mean_src, mean_dst = src.mean(axis=0), dst.mean(axis=0)
    moved = src - mean_src
    left, singular, right_t = np.linalg.svd(moved.T @ (dst - mean_dst))
    rotation = right_t.T @ left.T
    if np.linalg.det(rotation) < 0:
        right_t[-1] *= -1
        rotation = right_t.T @ left.T
    scale = float(singular.sum() / (np.square(moved).sum() + _VARIANCE_FLOOR))
    return scale, rotation, mean_dst - scale * rotation @ mean_src


def _ransac(src: Array, dst: Array, seed: int) -> tuple[float, Array, Array]:
    """Sim(3) of the draw of three points with the most others within 5 cm, fitted again to those."""
    rng = np.random.default_rng(seed)
    if len(src) > _RANSAC_POINTS:
        picked = rng.choice(len(src), size=_RANSAC_POINTS, replace=False)
        src, dst = src[picked], dst[picked]
    best, near = -1, np.ones(len(src), bool)
    model = _similarity(src, dst)
    for _ in range(_RANSAC_STEPS):
        three = rng.choice(len(src), size=3, replace=False)
        scale, rotation, shift = _similarity(src[three], dst[three])
        within = np.linalg.norm(scale * (src @ rotation.T) + shift - dst, axis=1) < _RANSAC_METRES
        count = int(within.sum())
        if count > best:
            best, near, model = count, within, (scale, rotation, shift)
    return _similarity(src[near], dst[near]) if near.sum() >= 3 else model


def _arrays(
    predicted: ArrayLike, target: ArrayLike, visible: ArrayLike
) -> tuple[Array, Array, NDArray[np.bool_]]:
    ours, theirs, seen = keep_floating(predicted), keep_floating(target), np.asarray(visible, bool)
    if (
        ours.shape != theirs.shape
        or theirs.ndim != 3
        or theirs.shape[-1] != 3
        or seen.shape != theirs.shape[:-1]
    ):
        raise UsageError(
            "Tracks do not fit each other",
            expected="points (N, T, 3) and visibility (N, T)",
            found=(ours.shape, theirs.shape, seen.shape),
        )
    return ours, theirs, seen
