"""Range images into points: the geometry of waymo_open_dataset/utils/range_image_utils.py:256-385, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError

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
    *,
    only_seen: bool = False,
) -> Points:
    """Join the points of all lidars and both returns of a frame.

    Args:
        rasters: Laser number -> first and second return.
        calibrations: Laser number -> calibration.
        global_from_vehicle: (4, 4) the frame's own pose.
        where: File and frame, for errors.
        only_seen: Leave out points that no camera sees by the shipped projections.

    Raises:
        ConventionError: A lidar has no calibration, or a range image and its companions differ in size.
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
                parts.append(
                    _points(image, calibrations[laser], pixel_pose, global_from_vehicle, where, only_seen)
                )
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
    pixel_pose: NDArray[np.float32] | None,
    global_from_vehicle: Float,
    where: str,
    only_seen: bool,
) -> Points:
    from .kernels import place_points

    height, width = image.values.shape[:2]
    none = np.zeros((0, 0, 6))
    projection = none if image.projection is None else image.projection
    pose = none if pixel_pose is None else pixel_pose
    for name, companion in (("Poses", pose), ("Projections", projection)):
        if companion.size and companion.shape[:2] != (height, width):
            raise ConventionError(
                f"{name} and ranges of a lidar have other sizes.",
                where=where,
                expected=(height, width),
                found=companion.shape[:2],
            )
    beams = beam_inclinations(calibration, height, where)
    columns = column_azimuths(calibration, width)
    return Points(
        *place_points(
            np.ascontiguousarray(image.values, np.float32),
            np.ascontiguousarray(projection, np.int32),
            np.ascontiguousarray(pose, np.float32),
            np.stack([np.cos(beams), np.sin(beams)]),
            np.stack([np.cos(columns), np.sin(columns)]),
            np.ascontiguousarray(calibration.vehicle_from_lidar),
            np.ascontiguousarray(global_from_vehicle),
            only_seen,
        )
    )


def column_azimuths(calibration: LaserCalibration, width: int) -> Float:
    """Give the azimuth of each column in the lidar's frame, (W,) rad.

    Columns run from pi to -pi of the vehicle, less the lidar's own yaw (range_image_utils.py:286-291).
    """
    yaw = np.arctan2(calibration.vehicle_from_lidar[1, 0], calibration.vehicle_from_lidar[0, 0])
    return np.asarray(((width - np.arange(width) - 0.5) / width * 2 - 1) * np.pi - yaw)


def beam_inclinations(calibration: LaserCalibration, height: int, where: str = "") -> Float:
    """Give the inclination of each row, highest first, (H,) rad (frame_utils.py:145-152).

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
