"""Cameras with distortion, by COLMAP's own models through pycolmap (extra `colmap`).

COLMAP's pixels are the contract's (corner origin), so coefficients pass through unchanged. Sources with integer
pixel centres convert K first; distortion coefficients do not depend on the pixel origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from datakit.errors import ConventionError, UsageError

from .project import camera_rays, project_points
from .transforms import Float, _f64

#: contract name -> (COLMAP model, number of coefficients after fx, fy, cx, cy)
DISTORTION_MODELS: dict[str, tuple[str, int]] = {
    "pinhole": ("PINHOLE", 0),
    "opencv": ("OPENCV", 4),
    "full_opencv": ("FULL_OPENCV", 8),
    "opencv_fisheye": ("OPENCV_FISHEYE", 4),
}


def _colmap_camera(model: str, intrinsics: Float, distortion: Sequence[float]) -> Any:
    if model not in DISTORTION_MODELS:
        raise ConventionError("Unknown camera model", expected=sorted(DISTORTION_MODELS), found=model)
    name, count = DISTORTION_MODELS[model]
    if len(distortion) != count:
        raise ConventionError(
            f"Camera model {model} takes {count} distortion coefficients",
            expected=count,
            found=len(distortion),
        )
    if intrinsics.shape != (3, 3) or intrinsics[0, 1] != 0:
        raise ConventionError("Distorted cameras take one (3, 3) K without skew", found=intrinsics.tolist())
    try:
        import pycolmap
    except ImportError as error:
        raise UsageError("Distorted cameras need pycolmap", mend="pip install 'datakit[colmap]'") from error
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    # Width and height play no part in projection; COLMAP only asks that they are there.
    return pycolmap.Camera(
        model=name,
        width=max(1, int(2 * cx)),
        height=max(1, int(2 * cy)),
        params=[float(v) for v in (fx, fy, cx, cy, *distortion)],
    )


def project_distorted(
    points_cam: ArrayLike, intrinsics: ArrayLike, model: str, distortion: Sequence[float]
) -> tuple[Float, Float]:
    """Project camera-frame points through one of COLMAP's camera models.

    Args:
        points_cam: (..., 3), x right, y down, z forward.
        intrinsics: (3, 3) pixels, corner origin, no skew.
        model: "pinhole", "opencv" (k1 k2 p1 p2), "full_opencv" (k1 k2 p1 p2 k3 k4 k5 k6) or
            "opencv_fisheye" (k1 k2 k3 k4).
        distortion: The coefficients in that order.

    Returns:
        uv_px (..., 2), NaN where z <= 0; and z (...).

    Raises:
        ConventionError: Unknown model or wrong number of coefficients.
        UsageError: pycolmap is not installed.

    >>> K = [[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]
    >>> uv, _ = project_distorted([0.5, 0.0, 1.0], K, "opencv", [0.1, 0, 0, 0])
    >>> np.round(uv, 9).tolist()  # 50 + 100 * 0.5 * (1 + 0.1 * 0.25)
    [101.25, 40.0]
    """
    mat, pts = _f64(intrinsics), _f64(points_cam)
    if model == "pinhole" and not len(distortion):
        return project_points(pts, mat)
    camera = _colmap_camera(model, mat, distortion)
    z = pts[..., 2]
    in_front = z > 0
    uv = np.full((*pts.shape[:-1], 2), np.nan)
    if in_front.any():
        uv[in_front] = np.asarray(camera.img_from_cam(pts[in_front].reshape(-1, 3)))
    return uv, z


def unproject_distorted(
    uv_px: ArrayLike, z_depth: ArrayLike, intrinsics: ArrayLike, model: str, distortion: Sequence[float]
) -> Float:
    """Lift distorted pixels with z depth to camera-frame points; the inverse of `project_distorted`.

    Args:
        uv_px: (..., 2).
        z_depth: (...), NaN unknown.
        intrinsics: (3, 3).
        model: As in `project_distorted`.
        distortion: As in `project_distorted`.

    Returns:
        (..., 3) float64 camera frame.

    >>> K = [[100.0, 0, 50], [0, 100, 40], [0, 0, 1]]
    >>> np.round(unproject_distorted([101.25, 40.0], 2.0, K, "opencv", [0.1, 0, 0, 0]), 6).tolist()
    [1.0, 0.0, 2.0]
    """
    mat, uv, z = _f64(intrinsics), _f64(uv_px), _f64(z_depth)
    if model == "pinhole" and not len(distortion):
        return camera_rays(uv, mat) * z[..., None]
    camera = _colmap_camera(model, mat, distortion)
    xy = np.asarray(camera.cam_from_img(uv.reshape(-1, 2)), dtype=np.float64)[:, :2].reshape(uv.shape)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], axis=-1) * z[..., None]
