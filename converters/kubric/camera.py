"""Kubric's camera and rigid poses in datakit's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import field, numbers
from datakit import geometry as g
from datakit.errors import ConventionError, FormatError

Float = NDArray[np.float64]

#: Kubric's camera axes (x right, y up, looks along -z) seen from OpenCV's; its own inverse.
GL_FROM_CV = np.diag([1.0, -1.0, -1.0])
#: float32 quaternions drift by 1e-6; anything beyond this is not a rotation any more.
_MAX_NORM_ERROR = 1e-3
#: Relative; float32 metadata agree to 1e-7, wrong conventions are off by a factor.
_MAX_FOCAL_ERROR = 1e-4


def intrinsics_from_camera(camera: dict[str, Any], size: tuple[int, int], where: str) -> Float:
    """Build K in pixels from focal length and sensor width, and check it against the stored redundancy.

    Kubric fixes the sensor's width, so that f = focal_length / sensor_width * W for both axes
    (kubric/core/cameras.py:109). Its stored K is normalised and signed for a camera that looks along -z:
    diag(W, H, 1) @ K @ diag(1, -1, -1) is the same matrix.

    Args:
        camera: metadata.camera, or the same keys of a TFDS record.
        size: (W, H) of the colour grid.
        where: File and field, for errors.

    Returns:
        (3, 3) float64, corner origin.

    Raises:
        ConventionError: `K` or `field_of_view` disagree with focal length and sensor width.
        FormatError: A field is missing or not a positive number.
    """
    focal, sensor = (
        float(numbers(field(camera, name, where), (), f"{where}.{name}"))
        for name in ("focal_length", "sensor_width")
    )
    if focal <= 0 or sensor <= 0:
        raise FormatError(
            "A camera's focal length or sensor width is not positive.", where=where, found=(focal, sensor)
        )
    width, height = size
    f_px = focal / sensor * width
    mat = np.array([[f_px, 0, width / 2], [0, f_px, height / 2], [0, 0, 1]])
    if "K" in camera:
        _check_stored_k(numbers(camera["K"], (3, 3), f"{where}.K"), mat, size, where)
    if "field_of_view" in camera:
        fov = float(numbers(camera["field_of_view"], (), f"{where}.field_of_view"))
        want = 2 * np.arctan2(sensor / 2, focal)
        if abs(fov - want) > _MAX_FOCAL_ERROR * want:
            raise ConventionError(
                "field_of_view disagrees with focal_length and sensor_width.",
                where=f"{where}.field_of_view",
                expected=f"{want:.6f} radians",
                found=fov,
            )
    return mat


def _check_stored_k(stored: Float, want: Float, size: tuple[int, int], where: str) -> None:
    found = np.diag([*size, 1.0]) @ stored @ GL_FROM_CV
    if np.abs(found - want).max() > _MAX_FOCAL_ERROR * want[0, 0]:
        raise ConventionError(
            "camera.K disagrees with focal_length and sensor_width.",
            where=f"{where}.K",
            expected=f"{want.tolist()} px after diag(W, H, 1) @ K @ diag(1, -1, -1)",
            found=found.tolist(),
            mend="Kubric's K is normalised and signed; do not store a K in pixels.",
        )


def poses(positions: Float, quaternions: Float, where: str) -> Float:
    """Build world_from_body of positions and wxyz quaternions.

    Args:
        positions: (T, 3) world.
        quaternions: (T, 4) wxyz, unit up to float32 rounding.
        where: File and field, for errors.

    Returns:
        (T, 4, 4) float64.

    Raises:
        ConventionError: A quaternion is far from unit length; the error names the frame.
    """
    norms = np.linalg.norm(quaternions, axis=-1)
    bad = np.flatnonzero(np.abs(norms - 1) > _MAX_NORM_ERROR)
    if bad.size:
        raise ConventionError(
            "A quaternion is not of unit length.",
            where=f"{where}.quaternions, frame {bad[0]}",
            expected="1",
            found=norms[bad[0]],
        )
    return g.rigid_from(g.rotation_from_quaternion_wxyz(quaternions), positions)


def camera_poses(camera: dict[str, Any], num_frames: int, where: str) -> Float:
    """Build world_from_cam (OpenCV axes) of every frame: [R(q) diag(1, -1, -1) | position].

    metadata.camera.R is not used: it is the one pose the camera had when the script ended, a frame after the
        clip.

    Returns:
        (T, 4, 4) float64.

    Raises:
        FormatError: Wrong shapes. ConventionError: not finite, or no rotations.
    """
    positions = numbers(field(camera, "positions", where), (num_frames, 3), f"{where}.positions")
    quats = numbers(field(camera, "quaternions", where), (num_frames, 4), f"{where}.quaternions")
    world_from_gl = poses(positions, quats, where)
    return g.rigid_from(world_from_gl[:, :3, :3] @ GL_FROM_CV, world_from_gl[:, :3, 3])
