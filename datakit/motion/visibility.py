"""Decide whether points are seen, from the target frame's depth and instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kinds import Reason, Visibility
from .sampling import Quad, depth_windows, label_windows

Float = NDArray[np.float64]

#: How far behind the observed surface a visible point may be, as a share of its depth, by depth kind. Rendered
#: depth is exact up to interpolation; the others follow the noise of their source at common working distances.
DEPTH_TOLERANCE = {"rendered": 0.005, "mvs": 0.02, "sensor": 0.03, "lidar": 0.05, "pseudo": 0.05}

#: State and reason of what `surface_kernels.compare` finds: SEEN, BEHIND, AT_EDGE, BEHIND_OTHER, IN_FRONT, NO_DEPTH.
_VERDICTS = np.array(
    [
        (Visibility.VISIBLE, Reason.SEEN),
        (Visibility.OCCLUDED, Reason.BEHIND_SURFACE),
        (Visibility.UNKNOWN, Reason.TARGET_DEPTH_EDGE),
        (Visibility.OCCLUDED, Reason.BEHIND_OTHER_INSTANCE),
        (Visibility.UNKNOWN, Reason.TARGET_CONTRADICTS),
        (Visibility.UNKNOWN, Reason.TARGET_NO_DEPTH),
    ],
    np.uint8,
)


def depth_test(
    quad: Quad,
    z_point: Float,
    instance: NDArray[np.uint32],
    z_depth: Any,
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
    from .surface_kernels import compare

    verdict = compare(
        *quad.place,
        depth_windows(quad, z_depth),
        label_windows(quad, instances),
        np.ascontiguousarray(z_point, np.float64),
        # Without labels the windows are all of one label, and so are the points.
        np.zeros(len(z_point), np.uint32) if instances is None else np.ascontiguousarray(instance, np.uint32),
        DEPTH_TOLERANCE[depth_kind],
        quad.size[1],
        quad.size[0],
    )
    state, reason = _VERDICTS[verdict].T
    return state, reason
