"""Points within a pixel's worth of depth: TAPVid-3D's APD3D (tapnet c2cbab8, tapvid3d/evaluation/metrics.py)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

#: Pixels of an image whose shorter side is 256 (metrics.py:23-29).
THRESHOLDS_PX = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Shorter side of the image that thresholds are meant for (evaluate_model.py:99-105).
_REFERENCE_SIDE = 256.0
#: Least norm that scales are divided by (metrics.py:225-232).
_NORM_FLOOR = 1e-6

Alignment = Literal["median", "none"]
Float = NDArray[np.float64]


def focal_at_256(intrinsics: ArrayLike, size: tuple[float, float]) -> Float:
    """Return sqrt(fx fy) in pixels of the image scaled to a shorter side of 256.

    Args:
        intrinsics: (..., 3, 3) in pixels of an image of `size`.
        size: (W, H).
    """
    matrix = np.asarray(intrinsics, np.float64)
    return np.sqrt(matrix[..., 0, 0] * matrix[..., 1, 1]) * (_REFERENCE_SIDE / min(size))


def median_scale(predicted: ArrayLike, target: ArrayLike, use: ArrayLike) -> float:
    """Return median |target| / median |predicted| over the points in use; NaN without any.

    Norms of the 3D vectors, not depths (metrics.py:225-232). Points that are not finite are left out.

    Args:
        predicted: (..., 3).
        target: (..., 3).
        use: (...) bool: in TAPVid-3D the points that are visible in truth and in the prediction.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    keep = np.asarray(use, bool) & np.isfinite(ours).all(axis=-1) & np.isfinite(theirs).all(axis=-1)
    if not keep.any():
        return float("nan")
    own = max(float(np.median(np.linalg.norm(ours[keep], axis=-1))), _NORM_FLOOR)
    return float(np.median(np.linalg.norm(theirs[keep], axis=-1))) / own


def points_within(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    focal_px: ArrayLike,
    *,
    align: Alignment = "median",
    predicted_visible: ArrayLike | None = None,
) -> Float:
    """Share of the visible points that lie within each threshold, k pixels at the true depth: k z / f.

    One clip at a time: the scale is the clip's. A prediction that is not finite is a miss, never left out.

    Args:
        predicted: (..., 3) camera frame, up to scale with `align="median"`.
        target: (..., 3) camera frame, finite wherever `visible`.
        visible: (...) bool, truth. Points of unknown visibility are not to be counted: False.
        focal_px: sqrt(fx fy) at a shorter side of 256 (`focal_at_256`), broadcastable to (...).
        align: One scale for the clip, or none.
        predicted_visible: (...) bool that the scale's points must satisfy too; None for all.

    Returns:
        (5,) shares for `THRESHOLDS_PX`; NaN if no point is visible.

    Raises:
        UsageError: Shapes differ, or a visible target is not finite.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    seen = np.asarray(visible, bool)
    if ours.shape != theirs.shape or ours.shape[:-1] != seen.shape or ours.shape[-1:] != (3,):
        raise UsageError(
            "Points do not fit each other",
            expected="predicted and target (..., 3), visible (...)",
            found=(ours.shape, theirs.shape, seen.shape),
        )
    if not np.isfinite(theirs[seen]).all():
        raise UsageError("A visible target is not finite", mend="leave points without truth out of `visible`")
    if not seen.any():
        return np.full(len(THRESHOLDS_PX), np.nan)
    scale = 1.0
    if align == "median":
        use = seen if predicted_visible is None else seen & np.asarray(predicted_visible, bool)
        scale = median_scale(ours, theirs, use)
    error = np.linalg.norm(scale * ours[seen] - theirs[seen], axis=-1)
    pixel = theirs[seen][:, 2] / np.broadcast_to(np.asarray(focal_px, np.float64), seen.shape)[seen]
    with np.errstate(invalid="ignore"):
        # Strict, as metrics.py:271-274; a comparison with NaN is false, which makes it a miss.
        return np.array([(error < k * pixel).mean() for k in THRESHOLDS_PX])


def apd3d(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    focal_px: ArrayLike,
    *,
    align: Alignment = "median",
    predicted_visible: ArrayLike | None = None,
) -> float:
    """Return the mean of `points_within` over its thresholds: APD3D of one clip; NaN if no point is visible."""
    shares = points_within(
        predicted, target, visible, focal_px, align=align, predicted_visible=predicted_visible
    )
    return float(shares.mean())
