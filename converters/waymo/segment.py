"""A segment as plain data, in Waymo's own frames and units: what both release forms are read into.

Vehicle: x forward, y left, z up. Camera: x forward, y left, z up. Global: a local metric frame whose origin can be
tens of kilometres away, so everything is float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: Enumerations of waymo_open_dataset/dataset.proto:52-79 and label.proto:83-90 at 99a4cb3.
CAMERAS = {1: "front", 2: "front_left", 3: "front_right", 4: "side_left", 5: "side_right"}
LASERS = {1: "top", 2: "front", 3: "side_left", 4: "side_right", 5: "rear"}
TOP = 1
VEHICLE, PEDESTRIAN, SIGN, CYCLIST = 1, 2, 3, 4
OBJECT_TYPES = {VEHICLE: "vehicle", PEDESTRIAN: "pedestrian", SIGN: "sign", CYCLIST: "cyclist"}
#: Readout order of a rolling shutter, CameraCalibration.RollingShutterReadOutDirection.
TOP_TO_BOTTOM, LEFT_TO_RIGHT, BOTTOM_TO_TOP, RIGHT_TO_LEFT, GLOBAL_SHUTTER = 1, 2, 3, 4, 5

#: Camera axes of Waymo (x forward, y left, z up) into OpenCV's (x right, y down, z forward): camera_model.cc:518-521.
OPENCV_FROM_WAYMO = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class CameraCalibration:
    """One camera of a segment.

    Attributes:
        size: (W, H).
        intrinsics: (3, 3); Waymo's pixels have the image's corner as origin (dataset.proto:192-211).
        distortion: k1, k2, p1, p2, k3.
        vehicle_from_camera: (4, 4), from Waymo's camera axes.
        shutter_direction: One of the readout orders above.
    """

    size: tuple[int, int]
    intrinsics: Float
    distortion: tuple[float, ...]
    vehicle_from_camera: Float
    shutter_direction: int


@dataclass(frozen=True)
class LaserCalibration:
    """One lidar. `inclinations` (H,) or None: rad, lowest row first, as stored; else uniform over `span` rad."""

    vehicle_from_lidar: Float
    inclinations: Float | None
    span: tuple[float, float]


@dataclass(frozen=True)
class Image:
    """One camera's picture in one frame; times in seconds since the epoch.

    Attributes:
        jpeg: Encoded bytes.
        global_from_vehicle: (4, 4) at `pose_time`.
        pose_time: About the middle of the readout.
        shutter: Exposure time of a row or column.
        trigger_time: Start of the exposure of the first row or column.
        readout_done_time: End of the readout of the last one.
    """

    jpeg: bytes
    global_from_vehicle: Float
    pose_time: float
    shutter: float
    trigger_time: float
    readout_done_time: float


@dataclass(frozen=True)
class Box:
    """An upright box: (3,) centre, (3,) length, width, height along its x, y, z, and heading in rad."""

    centre: Float
    size: Float
    heading: float


@dataclass(frozen=True)
class Labelled:
    """A labelled object in one frame, in the vehicle frame of the frame's own pose.

    Attributes:
        id: Stable in a segment.
        type: VEHICLE, PEDESTRIAN, SIGN or CYCLIST.
        box: At the frame's time.
        speed_global: (3,) m/s in the GLOBAL frame, NaN where not given.
        synced_box: The box at the capture time of `synced_camera`, or None.
        synced_camera: Number of the camera that sees it best; 0 for none.
    """

    id: str
    type: int
    box: Box
    speed_global: Float
    synced_box: Box | None = None
    synced_camera: int = 0


@dataclass(frozen=True)
class RangeImage:
    """One return of one lidar.

    Attributes:
        values: (H, W, 4) float32: range m (<= 0: nothing), intensity, elongation, in a no-label zone.
        projection: (H, W, 6) int: camera, x, y of the first and second camera that see the point; 0 for none.
        pose: (H, W, 6) float32 roll, pitch, yaw, x, y, z of global_from_vehicle at each pixel's time; TOP only.
    """

    values: NDArray[np.float32]
    projection: NDArray[Any] | None
    pose: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class FrameHead:
    """What a frame says besides its rasters: see `Image`, `Labelled`; `images` hold no bytes here."""

    timestamp_micros: int
    global_from_vehicle: Float
    images: dict[int, Image]
    objects: tuple[Labelled, ...]


@dataclass(frozen=True)
class Calibration:
    """What is constant in a segment. `stats` are texts for people (time of day, location, weather)."""

    name: str
    cameras: dict[int, CameraCalibration]
    lasers: dict[int, LaserCalibration]
    stats: dict[str, str]
