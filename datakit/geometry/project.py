"""Pinhole projection, unprojection, and the two meanings of depth.

`z_depth` is the distance along the optical axis. Kubric, Blender's "depth" and lidars give the distance along the
ray; the two differ by sqrt(1 + |xy / f|^2), a bug that stays hidden in the middle of the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .pixels import pixel_centres
from .transforms import Float, _f64


def project_points(points_cam: ArrayLike, intrinsics: ArrayLike) -> tuple[Float, Float]:
    """Project camera-frame points.

    Args:
        points_cam: (..., 3), x right, y down, z forward.
        intrinsics: (..., 3, 3) pixels, corner origin; broadcast against the points' leading axes.

    Returns:
        uv_px (..., 2), NaN where z <= 0 or not finite; and z (...).

    >>> uv, z = project_points([[1.0, 2.0, 4.0], [0, 0, -1]], [[100, 0, 50], [0, 100, 40], [0, 0, 1]])
    >>> uv.tolist(), z.tolist()
    ([[75.0, 90.0], [nan, nan]], [4.0, -1.0])
    """
    pts, mat = _f64(points_cam), _f64(intrinsics)
    z = pts[..., 2]
    safe_z = np.where(z > 0, z, np.nan)
    xy = pts[..., :2] / safe_z[..., None]
    uv = np.einsum("...ij,...j->...i", mat[..., :2, :2], xy) + mat[..., :2, 2]
    return uv, z


def unproject_pixels(uv_px: ArrayLike, z_depth: ArrayLike, intrinsics: ArrayLike) -> Float:
    """Lift pixels with z depth to camera-frame points.

    Args:
        uv_px: (..., 2) pixels, corner origin.
        z_depth: (...) along the optical axis, NaN unknown.
        intrinsics: (..., 3, 3), broadcast; skew is honoured.

    Returns:
        (..., 3) float64 camera frame, NaN where depth is.

    >>> unproject_pixels([75.0, 90.0], 4.0, [[100, 0, 50], [0, 100, 40], [0, 0, 1]]).tolist()
    [1.0, 2.0, 4.0]
    """
    return np.asarray(camera_rays(uv_px, intrinsics) * _f64(z_depth)[..., None])


def camera_rays(uv_px: ArrayLike, intrinsics: ArrayLike) -> Float:
    """Give the camera-frame ray of each pixel, scaled to z = 1.

    Args:
        uv_px: (..., 2).
        intrinsics: (..., 3, 3), broadcast.

    Returns:
        (..., 3) float64.

    >>> camera_rays([75.0, 90.0], [[100, 0, 50], [0, 100, 40], [0, 0, 1]]).tolist()
    [0.25, 0.5, 1.0]
    """
    uv, mat = _f64(uv_px), _f64(intrinsics)
    y = (uv[..., 1] - mat[..., 1, 2]) / mat[..., 1, 1]
    x = (uv[..., 0] - mat[..., 0, 2] - mat[..., 0, 1] * y) / mat[..., 0, 0]
    return np.stack(np.broadcast_arrays(x, y, np.ones_like(x)), axis=-1)


def _ray_length_per_z(raster: Float, intrinsics: ArrayLike) -> Float:
    height, width = raster.shape[-2:]
    mat = _f64(intrinsics)[..., None, None, :, :]
    return np.asarray(np.linalg.norm(camera_rays(pixel_centres((width, height)), mat), axis=-1))


def z_from_ray_distance(ray_distance: ArrayLike, intrinsics: ArrayLike) -> Float:
    """Turn a raster of distances along the ray into z depth, at pixel centres.

    Args:
        ray_distance: (..., H, W), NaN unknown.
        intrinsics: (..., 3, 3) of that raster's grid.

    Returns:
        (..., H, W) float64.

    >>> round(float(z_from_ray_distance([[np.sqrt(3.0)]], [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]])[0, 0]), 12)
    1.0
    """
    dist = _f64(ray_distance)
    return np.asarray(dist / _ray_length_per_z(dist, intrinsics))


def ray_distance_from_z(z_depth: ArrayLike, intrinsics: ArrayLike) -> Float:
    """Turn a raster of z depth into distances along the ray, at pixel centres.

    >>> round(float(ray_distance_from_z([[1.0]], [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]])[0, 0] ** 2), 12)
    3.0
    """
    z = _f64(z_depth)
    return np.asarray(z * _ray_length_per_z(z, intrinsics))
