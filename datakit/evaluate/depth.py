"""Depth of a clip against truth, up to one scale for the whole clip."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

Alignment = Literal["scale", "median", "none"]
Float = NDArray[np.float64]

#: As CUT3R's `scale` (8bc15dc, eval/video_depth/tools.py:238-269): steps, and the least scale.
_WEISZFELD_STEPS, _SCALE_FLOOR = 10, 1e-3
#: Least residual that a weight is the inverse of.
_RESIDUAL_FLOOR = 1e-8


def depth_scale(predicted: ArrayLike, target: ArrayLike, align: Alignment = "scale") -> float:
    """Return the factor that fits predicted depths to true ones.

    Args:
        predicted: Any shape; entries that are not finite in either are left out.
        target: Of the same shape.
        align: `scale` minimises sum |s d - g| in ten Weiszfeld steps from mean(g) / mean(d), at least 1e-3, as
            CUT3R's evaluation does; `median` is median(g) / median(d), as MonST3R's; `none` is 1.

    Returns:
        The factor; NaN without a pair of finite depths.
    """
    d, g = _pairs(predicted, target, np.isfinite(np.asarray(target, np.float64)))
    d, g = d[np.isfinite(d)], g[np.isfinite(d)]
    if align == "none":
        return 1.0
    if not d.size:
        return float("nan")
    if align == "median":
        return float(np.median(g) / np.median(d))
    scale = max(float(g.mean() / d.mean()), _SCALE_FLOOR)
    for _ in range(_WEISZFELD_STEPS):
        weight = 1 / np.maximum(np.abs(scale * d - g), _RESIDUAL_FLOOR)
        scale = max(float((weight * d * g).sum() / (weight * d * d).sum()), _SCALE_FLOOR)
    return scale


def abs_rel(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, align: Alignment = "scale") -> float:
    """Return mean |s d - g| / g over a clip, s as `depth_scale` finds it.

    Args:
        predicted: z depths of a clip, any shape, any unit.
        target: True z depths, same shape, positive wherever `mask`.
        mask: bool, same shape: where truth is known.
        align: As of `depth_scale`.

    Returns:
        The error; infinite where a prediction is not finite, so that nothing is gained by not answering; NaN if
        nothing is known.

    Raises:
        UsageError: Shapes differ, or a known depth is not positive.
    """
    d, g = _pairs(predicted, target, mask)
    if not g.size:
        return float("nan")
    error = np.abs(depth_scale(d, g, align) * d - g) / g
    return float(np.where(np.isfinite(error), error, np.inf).mean())


def delta1(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike, align: Alignment = "scale") -> float:
    """Return the share with max(s d / g, g / (s d)) < 1.25; arguments as of `abs_rel`."""
    d, g = _pairs(predicted, target, mask)
    if not g.size:
        return float("nan")
    fitted = depth_scale(d, g, align) * d
    with np.errstate(invalid="ignore"):
        return float(((fitted < 1.25 * g) & (g < 1.25 * fitted)).mean())


def _pairs(predicted: ArrayLike, target: ArrayLike, mask: ArrayLike) -> tuple[Float, Float]:
    d, g = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    known = np.asarray(mask, bool)
    if not d.shape == g.shape == known.shape:
        raise UsageError("Depths do not fit each other", found=(d.shape, g.shape, known.shape))
    if not (g[known] > 0).all():
        raise UsageError("A known depth is not positive", mend="mask points that lie behind their camera")
    return d[known], g[known]
