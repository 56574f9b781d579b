"""Recorded frames as TFRecords of Frame messages, in shuffled order as the release has them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from datakit.worlds import World

from .proto import message_class
from .write_capture import CAMERAS, Capture, Recorder

#: The release's own order of pictures and of lidar calibrations.
_PICTURE_ORDER = (1, 2, 4, 3, 5)
_LASER_ORDER = (2, 5, 3, 4, 1)
_NAMES = {number: name.upper() for name, number in CAMERAS.items()}


def write_v1(worlds: Iterable[World], out: Path) -> None:
    """Write each world as training/segment-<name>_with_camera_labels.tfrecord."""
    folder = out / "training"
    folder.mkdir(parents=True, exist_ok=True)
    for world in worlds:
        recorder = Recorder(world)
        path = folder / f"segment-{context_name(world)}_with_camera_labels.tfrecord"
        with open(path, "wb") as file:
            for capture in recorder.frames():
                file.write(_record(_frame(recorder, capture).SerializeToString(deterministic=True)))


def context_name(world: World) -> str:
    """Make a context name like the release's: digits, then begin and end."""
    return f"{10**19 + world.seed}_0000_000_{world.num_frames:04d}_000"


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    crc = int(google_crc32c.value(data))
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _frame(recorder: Recorder, capture: Capture) -> Any:
    frame = message_class("Frame")()
    frame.timestamp_micros = capture.timestamp_micros
    frame.pose.transform.extend(capture.global_from_vehicle.ravel())
    _context(frame.context, recorder)
    for camera in _PICTURE_ORDER:
        fields = capture.pictures[camera]
        image = frame.images.add(name=camera, image=fields["image"])
        image.pose.transform.extend(fields["pose"].ravel())
        linear, angular = fields["velocity"]
        for axis, v, w in zip("xyz", linear, angular, strict=True):
            setattr(image.velocity, f"v_{axis}", v)
            setattr(image.velocity, f"w_{axis}", w)
        for key in ("pose_timestamp", "shutter", "camera_trigger_time", "camera_readout_done_time"):
            setattr(image, key, fields[key])
    for laser in _LASER_ORDER:
        message = frame.lasers.add(name=laser)
        for target, (values, projection, pose) in zip(
            (message.ri_return1, message.ri_return2), capture.returns[laser], strict=True
        ):
            target.range_image_compressed = _matrix("MatrixFloat", values)
            target.camera_projection_compressed = _matrix("MatrixInt32", projection)
            if pose is not None:
                target.range_image_pose_compressed = _matrix("MatrixFloat", pose)
    for fields in capture.labels:
        _label(frame.laser_labels.add(), fields)
    zone = frame.no_label_zones.add(id="zone")
    zone.x.extend(capture.global_from_vehicle[0, 3] + np.array([200.0, 210, 210, 200]))
    zone.y.extend(capture.global_from_vehicle[1, 3] + np.array([200.0, 200, 210, 210]))
    return frame


def _context(context: Any, recorder: Recorder) -> None:
    context.name = context_name(recorder.world)
    context.stats.time_of_day, context.stats.location, context.stats.weather = (
        "Day",
        "location_other",
        "sunny",
    )
    for camera in reversed(CAMERAS.values()):
        fields = recorder.calibration(camera)
        message = context.camera_calibrations.add(
            name=camera,
            width=fields["size"][0],
            height=fields["size"][1],
            rolling_shutter_direction=fields["direction"],
        )
        message.intrinsic.extend(fields["intrinsic"])
        message.extrinsic.transform.extend(fields["extrinsic"].ravel())
    for laser in _LASER_ORDER:
        rig = recorder.lidars[laser]
        half = abs(rig.inclinations[0] - rig.inclinations[1]) / 2
        message = context.laser_calibrations.add(
            name=laser,
            beam_inclination_min=rig.inclinations[-1] - half,
            beam_inclination_max=rig.inclinations[0] + half,
        )
        if rig.is_listed:
            message.beam_inclinations.extend(rig.inclinations[::-1])
        message.extrinsic.transform.extend(rig.vehicle_from_lidar.ravel())


def _label(message: Any, fields: dict[str, Any]) -> None:
    message.id, message.type = fields["id"], fields["type"]
    message.num_lidar_points_in_box = fields["num_points"]
    message.num_top_lidar_points_in_box = fields["num_top_points"]
    _box(message.box, fields["centre"], fields)
    for axis, value in zip("xyz", fields["speed"], strict=True):
        setattr(message.metadata, f"speed_{axis}", value)
    if fields["camera"]:
        message.most_visible_camera_name = _NAMES[fields["camera"]]
        _box(message.camera_synced_box, fields["synced_centre"], fields)


def _box(message: Any, centre: NDArray[np.float64], fields: dict[str, Any]) -> None:
    message.center_x, message.center_y, message.center_z = centre
    message.length, message.width, message.height = fields["size"]
    message.heading = fields["heading"]


def _matrix(kind: str, values: NDArray[Any]) -> bytes:
    message = message_class(kind)()
    message.data.extend(values.ravel().tolist())
    message.shape.dims.extend(values.shape)
    return zlib.compress(message.SerializeToString(), 1)
