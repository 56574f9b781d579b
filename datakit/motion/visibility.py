"""Decide whether points are seen, from the target frame's depth and instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kinds import Reason, Visibility
from .sampling import Quad, is_one_surface, sample_z

Float = NDArray[np.float64]

#: How far behind the observed surface a visible point may be, as a share of its depth, by depth kind. Rendered
#: depth is exact up to interpolation; the others follow the noise of their source at common working distances.
DEPTH_TOLERANCE = {"rendered": 0.005, "mvs": 0.02, "sensor": 0.03, "lidar": 0.05, "pseudo": 0.05}


def depth_test(
    quad: Quad,
    z_point: Float,
    instance: NDArray[np.uint32],
    z_depth: NDArray[Any],
    instances: NDArray[Any] | None,
    depth_kind: str,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Compare points with the depth map around their projection.

    The tolerance is relative to z plus a quarter of the depth's local change, so that slanted surfaces do not
    occlude themselves. A point in front of everything observed contradicts the depth map: unknown, not visible.
    So is a point at a depth edge that is behind the pixel it falls in but fits the pixel beside it.

    Args:
        quad: Where N points project on the depth grid.
        z_point: (N,) their depth.
        instance: (N,) their instance id.
        z_depth: (T, H, W), NaN unknown.
        instances: (T, H, W) on the same grid, or None.
        depth_kind: Key of `DEPTH_TOLERANCE`.

    Returns:
        state (N,) `Visibility`, reason (N,) `Reason`.
    """
    around = z_depth[quad.frame[:, None], quad.rows, quad.cols].astype(np.float64)
    smooth = is_one_surface(quad, z_depth, instances)
    observed, change = sample_z(quad, z_depth, smooth)
    margin = DEPTH_TOLERANCE[depth_kind] * z_point + change / 4
    with np.errstate(invalid="ignore"):
        is_behind = z_point > observed + margin
        is_in_front = z_point < observed - margin
        # At a depth edge the containing pixel may show the far side while the point lies on the near one.
        agrees_nearby = (np.abs(around - z_point[:, None]) <= margin[:, None]).any(axis=1)
    contradicts = is_in_front & ~agrees_nearby
    is_at_edge = is_behind & agrees_nearby & ~smooth
    is_other = np.zeros(len(z_point), dtype=bool)
    if instances is not None:
        is_other = (instances[quad.frame[:, None], quad.rows, quad.cols] != instance[:, None]).all(axis=1)
    state = np.full(len(z_point), Visibility.VISIBLE, np.uint8)
    reason = np.full(len(z_point), Reason.SEEN, np.uint8)
    for mask, new_state, new_reason in (
        (is_behind, Visibility.OCCLUDED, Reason.BEHIND_SURFACE),
        (is_at_edge, Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE),
        (is_other, Visibility.OCCLUDED, Reason.BEHIND_OTHER_INSTANCE),
        (contradicts, Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS),
        (np.isnan(observed), Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH),
    ):
        state[mask], reason[mask] = new_state, new_reason
    return state, reason
