"""Decide whether points are seen, from the target frame's depth and instances."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kinds import Reason, Visibility
from .sampling import Quad, depth_windows, label_windows, windows

Float = NDArray[np.float64]

#: How far behind the observed surface a visible point may be, as a share of its depth, by depth kind. Rendered
#: depth is exact up to interpolation; the others follow the noise of their source at common working distances.
DEPTH_TOLERANCE = {"rendered": 0.005, "mvs": 0.02, "sensor": 0.03, "lidar": 0.05, "pseudo": 0.05}

#: Depth kinds of which single pixels are known, and the (even) size of the window that is looked at around a place.
SPARSE = {"lidar": 32}

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

    Of lidar depth few pixels are known. Where one is missing around a point, or they differ by more than the tolerance,
    it is judged by known depths on all four sides of it (above left, above right, below left, below right), no further
    than they usually are from each other there: seen where they are of one surface and of its instance and it lies
    among them, hidden where on all sides there is one surface that is nearer by a quarter. A point that fits the pixel
    it falls in is seen too, unless such a surface is before it. Anywhere else nothing is known.

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
    from .surface_kernels import AT_EDGE, BEHIND, BEHIND_OTHER, SEEN, compare

    # Without labels the windows are all of one label, and so are the points.
    label = (
        np.zeros(len(z_point), np.uint32) if instances is None else np.ascontiguousarray(instance, np.uint32)
    )
    z = np.ascontiguousarray(z_point, np.float64)
    z_around = depth_windows(quad, z_depth)
    verdict = compare(
        *quad.place,
        z_around,
        label_windows(quad, instances),
        z,
        label,
        DEPTH_TOLERANCE[depth_kind],
        quad.size[1],
        quad.size[0],
    )
    if depth_kind in SPARSE:
        low, high = z_around.min(axis=(1, 2)), z_around.max(axis=(1, 2))
        is_even = high <= (1 + DEPTH_TOLERANCE[depth_kind]) * low  # false where one is unknown
        gaps = np.flatnonzero(quad.is_inside & ~is_even)
        around = _look_around(quad.at(gaps), z[gaps], label[gaps], z_depth, instances, depth_kind)
        # The depth in the pixel itself may be of what was seen past an edge.
        is_hidden = (around == BEHIND) | (around == BEHIND_OTHER)
        verdict[gaps] = np.where(verdict[gaps] == SEEN, np.where(is_hidden, AT_EDGE, SEEN), around)
    # A tenth of the time of _VERDICTS[verdict].
    state, reason = _VERDICTS.take(verdict, axis=0).T
    return state, reason


def _look_around(
    quad: Quad,
    z_point: Float,
    label: NDArray[np.uint32],
    z_depth: Any,
    instances: NDArray[Any] | None,
    depth_kind: str,
) -> NDArray[np.uint8]:
    """Compare points with the single depths known around them: verdicts (N,) of `surface_kernels.compare_sparse`."""
    from .surface_kernels import compare_sparse

    size = SPARSE[depth_kind]
    labels = np.zeros((len(z_point), size, size)) if instances is None else windows(quad, instances, size)
    verdict: NDArray[np.uint8] = compare_sparse(
        *quad.place,
        np.ascontiguousarray(windows(quad, z_depth, size), np.float32),
        np.ascontiguousarray(labels, np.uint32),
        z_point,
        label,
        DEPTH_TOLERANCE[depth_kind],
        quad.size[1],
        quad.size[0],
    )
    return verdict
