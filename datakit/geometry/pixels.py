"""Pixel grids and intrinsics.

The contract's pixels are continuous with the corner of the image as origin: the image spans [0, W] x [0, H] and
the centre of its first pixel is (0.5, 0.5). Crops and resizes of such intrinsics need no half-pixel term.
Sources that put pixel centres at integers convert through the two functions named after the conventions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .transforms import Float, _f64

_HALF_PIXEL = np.array([[0.0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def corner_from_centre_intrinsics(intrinsics: ArrayLike) -> Float:
    """Convert K from integer pixel centres (OpenCV, ScanNet) to the contract's corner origin.

    >>> corner_from_centre_intrinsics([[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])[:2, 2].tolist()
    [320.0, 240.0]
    """
    return np.asarray(_f64(intrinsics) + _HALF_PIXEL)


def centre_from_corner_intrinsics(intrinsics: ArrayLike) -> Float:
    """Convert K from the contract's corner origin to integer pixel centres.

    >>> centre_from_corner_intrinsics([[500, 0, 320], [0, 500, 240], [0, 0, 1]])[:2, 2].tolist()
    [319.5, 239.5]
    """
    return np.asarray(_f64(intrinsics) - _HALF_PIXEL)


def crop_intrinsics(intrinsics: ArrayLike, left: float, top: float) -> Float:
    """Move K to an image whose corner is at (left, top) of the old one, in pixels.

    >>> crop_intrinsics([[500, 0, 320], [0, 500, 240], [0, 0, 1]], 20, 40)[:2, 2].tolist()
    [300.0, 200.0]
    """
    out = _f64(intrinsics).copy()
    out[..., 0, 2] -= left
    out[..., 1, 2] -= top
    return out


def resize_intrinsics(
    intrinsics: ArrayLike, size_from: tuple[float, float], size_to: tuple[float, float]
) -> Float:
    """Scale K from one image size (W, H) to another; exact in corner-origin pixels.

    >>> resize_intrinsics([[500, 0, 320], [0, 500, 240], [0, 0, 1]], (640, 480), (320, 240))[0].tolist()
    [250.0, 0.0, 160.0]
    """
    out = _f64(intrinsics).copy()
    out[..., 0, :] *= size_to[0] / size_from[0]
    out[..., 1, :] *= size_to[1] / size_from[1]
    return out


def pixel_centres(size: tuple[int, int]) -> Float:
    """List the centres of all pixels.

    Args:
        size: (W, H).

    Returns:
        (H, W, 2) float64 uv_px.

    >>> pixel_centres((2, 1)).tolist()
    [[[0.5, 0.5], [1.5, 0.5]]]
    """
    width, height = size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v], axis=-1)


def homography_points(grid_b_from_a: ArrayLike, uv_a: ArrayLike) -> Float:
    """Map pixels between two grids of one camera centre and axes: grid_b_from_a = K_b @ inv(K_a).

    Args:
        grid_b_from_a: (..., 3, 3).
        uv_a: (..., 2) pixels.

    Returns:
        (..., 2) pixels of grid b.

    >>> homography_points(np.diag([0.5, 0.5, 1.0]), [10, 4]).tolist()
    [5.0, 2.0]
    """
    mat, uv = _f64(grid_b_from_a), _f64(uv_a)
    xyw = np.einsum("...ij,...j->...i", mat[..., :2], uv) + mat[..., 2]
    return np.asarray(xyw[..., :2] / xyw[..., 2:])
