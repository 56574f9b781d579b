"""COLMAP's camera models in the contract's terms; rectification through pycolmap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError, UsageError
from datakit.export.colmap_model import ColmapCamera
from datakit.geometry import project_distorted

Float = NDArray[np.float64]

#: COLMAP model -> (contract's model, number of focal lengths, zeros after the model's own coefficients).
_KEPT: dict[str, tuple[str, int, int]] = {
    "SIMPLE_PINHOLE": ("pinhole", 1, 0),
    "PINHOLE": ("pinhole", 2, 0),
    "SIMPLE_RADIAL": ("opencv", 1, 3),
    "RADIAL": ("opencv", 1, 2),
    "OPENCV": ("opencv", 2, 0),
    "FULL_OPENCV": ("full_opencv", 2, 0),
    "SIMPLE_FISHEYE": ("opencv_fisheye", 1, 4),
    "FISHEYE": ("opencv_fisheye", 2, 4),
    "SIMPLE_RADIAL_FISHEYE": ("opencv_fisheye", 1, 3),
    "RADIAL_FISHEYE": ("opencv_fisheye", 1, 2),
    "OPENCV_FISHEYE": ("opencv_fisheye", 2, 0),
}
#: Models that pycolmap can rectify but the contract cannot store, by their number of focal lengths.
_RECTIFIED_ONLY = {
    "FOV": 2,
    "THIN_PRISM_FISHEYE": 2,
    "RAD_TAN_THIN_PRISM_FISHEYE": 2,
    "SIMPLE_DIVISION": 1,
    "DIVISION": 2,
    "EUCM": 2,
}
#: A focal length over the larger side of any camera, and the largest coefficient; beyond these nothing is a lens,
#: and pycolmap's iterations need not end well.
_FOCAL, _COEFFICIENT = (0.02, 100.0), 50.0


@dataclass(frozen=True)
class Lens:
    """A camera as the contract stores it.

    Attributes:
        model: One of the contract's camera models.
        intrinsics: (3, 3), corner origin.
        distortion: Coefficients.
        size: (W, H).
        source: The COLMAP camera to rectify images of; None where they are kept as they are.
    """

    model: str
    intrinsics: Float
    distortion: tuple[float, ...]
    size: tuple[int, int]
    source: ColmapCamera | None = None


def check_lens(camera: ColmapCamera, where: str) -> None:
    """Check that a camera is one that looks at its image.

    Raises:
        ConventionError: A focal length, principal point or coefficient is absurd, or the camera is a panorama.
    """
    num_focal = _KEPT[camera.model][1] if camera.model in _KEPT else _RECTIFIED_ONLY.get(camera.model)
    if num_focal is None:
        raise ConventionError(
            "A camera model that no pinhole view can be made of.", where=where, found=camera.model
        )
    side = max(camera.size)
    focal, centre = np.array(camera.params[:num_focal]), camera.params[num_focal : num_focal + 2]
    rest = camera.params[num_focal + 2 :]
    is_focal = bool(((focal > _FOCAL[0] * side) & (focal < _FOCAL[1] * side)).all())
    is_inside = all(0 <= at <= size for at, size in zip(centre, camera.size, strict=True))
    if not is_focal or not is_inside or any(abs(value) > _COEFFICIENT for value in rest):
        raise ConventionError(
            "A camera is absurd.",
            where=where,
            expected="focal lengths of about the image's size, a principal point inside it, small coefficients",
            found=camera,
        )


def kept_lens(camera: ColmapCamera) -> Lens | None:
    """Store a camera's own lens; None where the contract has no such model.

    Lower models are higher ones with zeros: RADIAL is OPENCV without tangential terms, RADIAL_FISHEYE is
    OPENCV_FISHEYE without k3 and k4 (colmap/sensor/models.h). A lens without distortion is a pinhole.
    """
    if camera.model not in _KEPT:
        return None
    model, num_focal, num_zeros = _KEPT[camera.model]
    focal = camera.params[:num_focal]
    centre = camera.params[num_focal : num_focal + 2]
    rest = (*camera.params[num_focal + 2 :], *(0.0,) * num_zeros)
    if model in ("opencv", "full_opencv") and not any(rest):
        model, rest = "pinhole", ()
    return Lens(model, intrinsics_of(focal[0], focal[-1], *centre), rest, camera.size)


def intrinsics_of(fx: float, fy: float, cx: float, cy: float) -> Float:
    """Join focal lengths and principal point to K."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def lens_of(camera: ColmapCamera, distortion: str, where: str) -> Lens:
    """Decide how a camera is stored.

    Args:
        camera: From the model.
        distortion: "auto", "keep" or "undistort" (see `Params`).
        where: For errors.

    Raises:
        ConventionError: The camera is absurd, or "keep" was asked for and the contract has no such lens.
        UsageError: It must be rectified and pycolmap is not installed.
    """
    check_lens(camera, where)
    kept = kept_lens(camera)
    if kept is not None and (distortion != "undistort" or kept.model == "pinhole"):
        return kept
    if kept is None and distortion == "keep":
        raise ConventionError(
            "The contract has no such lens.",
            where=where,
            expected=", ".join(_KEPT),
            found=camera.model,
            mend="--param distortion=undistort",
        )
    source = _pycolmap_camera(camera)
    try:
        straight = _pycolmap().undistort_camera(_pycolmap().UndistortCameraOptions(), source)
        fx, fy, cx, cy = (float(value) for value in straight.params)
    except (ValueError, RuntimeError) as error:
        raise ConventionError("A lens cannot be rectified.", where=where, found=error) from error
    return Lens("pinhole", intrinsics_of(fx, fy, cx, cy), (), (straight.width, straight.height), camera)


def rectify(rgb: NDArray[np.uint8], lens: Lens) -> NDArray[np.uint8]:
    """Rectify an (H, W, 3) image of `lens.source` by pycolmap, bilinearly."""
    colmap = _pycolmap()
    if lens.source is None:
        return rgb
    bitmap = colmap.Bitmap.from_array(np.ascontiguousarray(rgb))
    straight, _ = colmap.undistort_image(
        colmap.UndistortCameraOptions(), bitmap, _pycolmap_camera(lens.source)
    )
    return np.asarray(straight.to_array(), np.uint8)


def _pycolmap_camera(camera: ColmapCamera) -> Any:
    try:
        return _pycolmap().Camera(
            model=camera.model, width=camera.size[0], height=camera.size[1], params=list(camera.params)
        )
    except ValueError as error:
        raise UsageError(
            f"The installed pycolmap does not know the camera model {camera.model}.",
            found=error,
            mend="pip install --upgrade pycolmap",
        ) from error


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise UsageError(
            "Rectifying images needs pycolmap.",
            mend="pip install 'datakit[colmap]', or --param distortion=keep",
        ) from error
    return pycolmap


def project_source(camera: ColmapCamera, points_cam: Float) -> Float:
    """Project (N, 3) camera-frame points through a camera's own lens, (N, 2) pixels; NaN behind it.

    Raises:
        UsageError: The lens is distorted and pycolmap is not installed.
    """
    kept = kept_lens(camera)
    if kept is not None:
        return project_distorted(points_cam, kept.intrinsics, kept.model, kept.distortion)[0]
    out = np.full((len(points_cam), 2), np.nan)
    in_front = points_cam[:, 2] > 0
    if in_front.any():
        out[in_front] = np.asarray(_pycolmap_camera(camera).img_from_cam(points_cam[in_front]))
    return out
