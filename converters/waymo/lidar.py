"""Range images into points: the geometry of waymo_open_dataset/utils/range_image_utils.py:256-385, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError
from datakit.geometry import invert_rigid

from .segment import TOP, Float, LaserCalibration, RangeImage


@dataclass(frozen=True)
class Points:
    """Points of a frame.

    Attributes:
        points_vehicle: (N, 3) metres, vehicle frame of the frame's own pose.
        projection: (N, 6) int32: camera, x, y; camera, x, y; camera 0 for none.
        is_unlabelled: (N,) bool, inside a no-label zone.
    """

    points_vehicle: Float
    projection: NDArray[np.int32]
    is_unlabelled: NDArray[np.bool_]


def points_of_frame(
    rasters: Mapping[int, tuple[RangeImage | None, RangeImage | None]],
    calibrations: Mapping[int, LaserCalibration],
    global_from_vehicle: Float,
    where: str,
) -> Points:
    """Join the points of all lidars and both returns of a frame.

    Args:
        rasters: Laser number -> first and second return.
        calibrations: Laser number -> calibration.
        global_from_vehicle: (4, 4) the frame's own pose.
        where: File and frame, for errors.

    Raises:
        ConventionError: A lidar has no calibration.
    """
    parts = []
    for laser in sorted(rasters):
        if laser not in calibrations:
            raise ConventionError(
                "A lidar has no calibration.", where=where, expected=sorted(calibrations), found=laser
            )
        first, second = rasters[laser]
        pose = first.pose if first is not None else None
        for image in (first, second):
            if image is not None:
                # The second return has no poses of its own: it left with the same pulse.
                pixel_pose = pose if laser == TOP else None
                parts.append(_points(image, calibrations[laser], pixel_pose, global_from_vehicle, where))
    if not parts:
        return Points(np.zeros((0, 3)), np.zeros((0, 6), np.int32), np.zeros(0, bool))
    return Points(
        np.concatenate([part.points_vehicle for part in parts]),
        np.concatenate([part.projection for part in parts]),
        np.concatenate([part.is_unlabelled for part in parts]),
    )


def _points(
    image: RangeImage,
    calibration: LaserCalibration,
    pixel_pose: Float | None,
    global_from_vehicle: Float,
    where: str,
) -> Points:
    row, col = np.nonzero(image.values[..., 0] > 0)
    points = points_vehicle(image.values[..., 0], row, col, calibration, where)
    if pixel_pose is not None:
        if pixel_pose.shape[:2] != image.values.shape[:2]:
            raise ConventionError(
                "Poses and ranges of a lidar have other sizes.",
                where=where,
                expected=image.values.shape[:2],
                found=pixel_pose.shape[:2],
            )
        points = _at_frame_pose(points, pixel_pose[row, col], global_from_vehicle)
    projection = np.zeros((len(row), 6), np.int32) if image.projection is None else image.projection[row, col]
    return Points(points, projection.astype(np.int32), image.values[row, col, 3] > 0)


def points_vehicle(
    ranges: NDArray[np.float32],
    row: NDArray[np.int64],
    col: NDArray[np.int64],
    calibration: LaserCalibration,
    where: str = "",
) -> Float:
    """Place pixels of a range image in the vehicle frame at each pixel's own time.

    Columns run from azimuth pi to -pi, less the lidar's own yaw (range_image_utils.py:286-291); rows run from the
    highest beam down (frame_utils.py:145-152).

    Args:
        ranges: (H, W) metres.
        row: (N,) pixels.
        col: (N,) pixels.
        calibration: Of the lidar.
        where: For errors.

    Returns:
        (N, 3) metres.
    """
    height, width = ranges.shape
    inclination = beam_inclinations(calibration, height, where)
    yaw = np.arctan2(calibration.vehicle_from_lidar[1, 0], calibration.vehicle_from_lidar[0, 0])
    azimuth = ((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi - yaw
    distance = ranges[row, col].astype(np.float64)
    flat = distance * np.cos(inclination)[row]
    rays = np.stack(
        [flat * np.cos(azimuth)[col], flat * np.sin(azimuth)[col], distance * np.sin(inclination)[row]],
        axis=-1,
    )
    return rays @ calibration.vehicle_from_lidar[:3, :3].T + calibration.vehicle_from_lidar[:3, 3]


def beam_inclinations(calibration: LaserCalibration, height: int, where: str = "") -> Float:
    """Give the inclination of each row, highest first, (H,) rad.

    Without a list of its own, a lidar's beams are the centres of H equal bins (range_image_utils.py:713-718).

    Raises:
        ConventionError: The list has another length than the image has rows.
    """
    if calibration.inclinations is None:
        low, high = calibration.span
        return (low + (np.arange(height) + 0.5) / height * (high - low))[::-1]
    if len(calibration.inclinations) != height:
        raise ConventionError(
            "A lidar has another number of beams than its range image has rows.",
            where=where,
            expected=height,
            found=len(calibration.inclinations),
        )
    return calibration.inclinations[::-1]


def _at_frame_pose(points: Float, pixel_pose: Float, global_from_vehicle: Float) -> Float:
    """Move points from the vehicle frame at their own times to that of the frame's pose."""
    roll, pitch, yaw = pixel_pose[:, :3].T
    # Distances to a nearby origin first: global coordinates of 1e5 m cost digits in the products below.
    frame_from_global = invert_rigid(global_from_vehicle)[:3, :3]
    x, y, z = points.T
    y, z = _turn(y, z, roll)
    z, x = _turn(z, x, pitch)
    x, y = _turn(x, y, yaw)
    offset = pixel_pose[:, 3:] - global_from_vehicle[:3, 3]
    return (np.stack([x, y, z], axis=-1) + offset) @ frame_from_global.T


def _turn(a: Float, b: Float, angle: Float) -> tuple[Float, Float]:
    """Turn (a, b) by an angle, from a towards b."""
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * a - sin * b, sin * a + cos * b
