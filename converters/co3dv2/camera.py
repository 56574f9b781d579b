"""PyTorch3D cameras (row vectors, x left, y up, NDC) in OpenCV's terms.

pytorch3d/renderer/camera_conversions.py:64-98, implicitron/dataset/frame_data.py:743-772. NDC +-1 are the outer edges
of the image, so that K comes out with the corner of the image as origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g

from .annotations import Size, Viewpoint
from .params import Params

Float = NDArray[np.float64]
#: Axes of PyTorch3D's camera (left, up, forward) in OpenCV's (right, down, forward), and the other way.
_FLIP = np.diag([-1.0, -1.0, 1.0])


def intrinsics_of(viewpoint: Viewpoint, size: Size) -> Float | None:
    """Return K (3, 3) in pixels, corner origin; None where it is not finite or a focal length not positive.

    "ndc_isotropic" measures both axes in halves of the shorter side, "ndc_norm_image_bounds" each in halves of its
    own side.
    """
    width, height = size
    half = np.array(size, dtype=np.float64) / 2
    unit = np.full(2, min(width, height) / 2) if viewpoint.format == "ndc_isotropic" else half
    focal, centre = viewpoint.focal * unit, half - viewpoint.principal * unit
    if not np.isfinite([*focal, *centre]).all() or focal.min() <= 0:
        return None
    return np.array([[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]])


def pose_of(viewpoint: Viewpoint, params: Params) -> tuple[Float | None, str]:
    """Return world_from_cam (4, 4), exactly rigid; or None and why.

    X_cam = X_world R + T and the flip S make world_from_cam = [R S | -R T].
    """
    rotation, translation = viewpoint.rotation, viewpoint.translation
    if not (np.isfinite(rotation).all() and np.isfinite(translation).all()):
        return None, "not finite"
    if np.abs(translation).max() > params.max_translation:
        return None, f"T beyond {params.max_translation:g}"
    left, _, right = np.linalg.svd(np.clip(rotation, -10, 10))
    exact = left @ right
    off = max(abs(np.linalg.det(rotation) - 1), np.abs(exact - rotation).max())
    if off > params.rotation_tolerance or np.linalg.det(exact) < 0:
        return None, f"R is no rotation, by {off:.3g}"
    return np.asarray(g.rigid_from(exact @ _FLIP, -exact @ translation)), ""
