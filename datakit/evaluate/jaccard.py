"""The three scores of point tracking, shared by its 2D and its 3D form.

tapnet c2cbab8, tapvid/evaluation_datasets.py:107-192 and tapvid3d/evaluation/metrics.py:252-320.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Pixels of a 256 raster.
THRESHOLDS_PX = (1, 2, 4, 8, 16)

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def track_scores(
    within: Callable[[int], Mask],
    predicted_visible: Mask,
    visible: Mask,
    weights: Array,
    axis: int | tuple[int, ...] | None,
) -> dict[str, Array]:
    """Count occlusion accuracy, points within each threshold, and Jaccard.

    Args:
        within: Threshold k -> bool array, whether a point lies within it (strictly, by the caller).
        predicted_visible: bool, as of all arrays here.
        visible: Truth.
        weights: How much each entry counts; bool for "is evaluated".
        axis: What is summed over; None for all.

    Returns:
        occlusion_accuracy, pts_within_k, jaccard_k, and the means over k: average_pts_within_thresh,
        average_jaccard. NaN where a denominator is 0.
    """

    def total(mask: Mask) -> Array:
        return np.asarray((mask * weights).sum(axis=axis), np.float64)

    positives = total(visible)
    with np.errstate(invalid="ignore", divide="ignore"):
        every = np.ones(np.broadcast_shapes(visible.shape, np.shape(weights)), bool)
        out = {"occlusion_accuracy": total(predicted_visible == visible) / total(every)}
        for k in THRESHOLDS_PX:
            near = within(k)
            right = near & visible
            # A visible point that is missed by distance is a false positive and stays a positive of truth.
            false = predicted_visible & ~right
            out[f"pts_within_{k}"] = total(right) / positives
            out[f"jaccard_{k}"] = total(right & predicted_visible) / (positives + total(false))
    return out | averages(out)


def averages(values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the means over thresholds; NaN if one of them is."""
    return {
        mean: np.asarray(np.mean([values[f"{name}_{k}"] for k in THRESHOLDS_PX], axis=0))
        for mean, name in (("average_jaccard", "jaccard"), ("average_pts_within_thresh", "pts_within"))
    }


def as_floats(values: Mapping[str, Array]) -> dict[str, float]:
    """Return arrays of one element as numbers."""
    return {name: float(value) for name, value in values.items()}


def keep_floating(values: Any) -> Array:
    """Return an array of the float type it has, which official scripts compute in; float64 for anything else."""
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
