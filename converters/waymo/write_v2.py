"""Recorded frames as the parquet tables of v2, one component a file; columns are those of the official classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import UsageError
from datakit.worlds import World

from .write_capture import CAMERAS, Capture, Recorder
from .write_v1 import context_name

Row = dict[str, Any]
_CONTEXT, _STAMP = "key.segment_context_name", "key.frame_timestamp_micros"
#: Cameras in no order of their numbers, as in released tables.
_PICTURE_ORDER = (3, 1, 5, 2, 4)


def write_v2(worlds: Iterable[World], out: Path) -> None:
    """Write each world as training/<component>/<context>.parquet."""
    for world in worlds:
        recorder = Recorder(world)
        context = context_name(world)
        writers = _Writers(out / "training", context)
        try:
            writers.add("camera_calibration", [_camera_row(recorder, camera) for camera in CAMERAS.values()])
            writers.add("lidar_calibration", [_lidar_row(recorder, laser) for laser in recorder.lidars])
            for capture in recorder.frames():
                for component, rows in _frame_rows(capture):
                    stamped = [{_STAMP: capture.timestamp_micros, **row} for row in rows]
                    writers.add(component, stamped)
        finally:
            writers.close()


class _Writers:
    """One open parquet file a component, made at its first rows; codecs alternate as in the release."""

    def __init__(self, folder: Path, context: str) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise UsageError("Waymo v2 needs pyarrow", mend="pip install 'datakit[waymo]'") from error
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._folder, self._context = folder, context
        self._open: dict[str, Any] = {}

    def add(self, component: str, rows: list[Row]) -> None:
        if not rows:
            return
        names = {_CONTEXT: self._arrow.array([self._context] * len(rows))}
        columns = {name: self._column(name, [row[name] for row in rows]) for name in rows[0]}
        table = self._arrow.table({**names, **columns})
        if component not in self._open:
            path = self._folder / component / f"{self._context}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            codec = "snappy" if len(self._open) % 2 else "zstd"
            self._open[component] = self._parquet.ParquetWriter(path, table.schema, compression=codec)
        self._open[component].write_table(table)

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()

    def _column(self, name: str, values: list[Any]) -> Any:
        arrow = self._arrow
        if name.endswith("transform"):
            return arrow.array(values, arrow.list_(arrow.float64(), 16))
        if name.endswith(".shape"):
            return arrow.array(values, arrow.list_(arrow.int32(), 3))
        if name.endswith("return1.values") or name.endswith("return2.values"):
            return arrow.array(values, arrow.list_(arrow.float32()))
        if name.endswith("beam_inclination.values"):
            return arrow.array(values, arrow.list_(arrow.float64()))
        if name.endswith((".camera_name", ".laser_name", "].type", "_direction", "most_visible_camera_name")):
            return arrow.array(values, arrow.int8())
        if name.endswith(("].width", "].height")):
            return arrow.array(values, arrow.int32())
        if "difficulty_level" in name:
            return arrow.array(values, arrow.int8())
        if "acceleration" in name:
            return arrow.array(values, arrow.float64())
        if "_object_counts" in name:
            kind = arrow.int8() if name.endswith("types") else arrow.int32()
            return arrow.array(values, arrow.list_(kind))
        if "linear_velocity" in name:
            return arrow.array(values, arrow.float32())
        return arrow.array(values)


def _camera_row(recorder: Recorder, camera: int) -> Row:
    fields, name = recorder.calibration(camera), "[CameraCalibrationComponent]"
    keys = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
    return {
        "key.camera_name": camera,
        **{f"{name}.intrinsic.{key}": float(v) for key, v in zip(keys, fields["intrinsic"], strict=True)},
        f"{name}.extrinsic.transform": _flat(fields["extrinsic"]),
        f"{name}.width": fields["size"][0],
        f"{name}.height": fields["size"][1],
        f"{name}.rolling_shutter_direction": fields["direction"],
    }


def _lidar_row(recorder: Recorder, laser: int) -> Row:
    rig, name = recorder.lidars[laser], "[LiDARCalibrationComponent]"
    half = float(abs(rig.inclinations[0] - rig.inclinations[1])) / 2
    return {
        "key.laser_name": laser,
        f"{name}.extrinsic.transform": _flat(rig.vehicle_from_lidar),
        f"{name}.beam_inclination.min": float(rig.inclinations[-1]) - half,
        f"{name}.beam_inclination.max": float(rig.inclinations[0]) + half,
        f"{name}.beam_inclination.values": rig.inclinations[::-1].tolist() if rig.is_listed else None,
    }


def _frame_rows(capture: Capture) -> Iterator[tuple[str, list[Row]]]:
    pose = "[VehiclePoseComponent].world_from_vehicle.transform"
    yield "vehicle_pose", [{pose: _flat(capture.global_from_vehicle)}]
    texts = {"time_of_day": "Day", "location": "location_other", "weather": "sunny"}
    counts: Row = {
        f"[StatsComponent].{sensor}_object_counts.{key}": []
        for sensor in ("lidar", "camera")
        for key in ("types", "counts")
    }
    yield "stats", [{**{f"[StatsComponent].{key}": value for key, value in texts.items()}, **counts}]
    yield "camera_image", [_picture_row(camera, capture.pictures[camera]) for camera in _PICTURE_ORDER]
    lidar, projection, poses = [], [], []
    for laser, ((values, pixels, pose_1), (values_2, pixels_2, _)) in capture.returns.items():
        key = {"key.laser_name": laser}
        lidar.append({**key, **_returns("[LiDARComponent]", values, values_2)})
        projection.append({**key, **_returns("[LiDARCameraProjectionComponent]", pixels, pixels_2)})
        if pose_1 is not None:
            poses.append({**key, **_returns("[LiDARPoseComponent]", pose_1)})
    yield "lidar", lidar
    yield "lidar_camera_projection", projection
    yield "lidar_pose", poses
    yield "lidar_box", [_box_row(label) for label in capture.labels]
    yield "lidar_camera_synced_box", [_synced_row(label) for label in capture.labels if label["camera"]]


def _picture_row(camera: int, fields: dict[str, Any]) -> Row:
    name = "[CameraImageComponent]"
    linear, angular = fields["velocity"]
    return {
        "key.camera_name": camera,
        f"{name}.image": fields["image"],
        f"{name}.pose.transform": _flat(fields["pose"]),
        **{f"{name}.velocity.linear_velocity.{a}": float(v) for a, v in zip("xyz", linear, strict=True)},
        **{f"{name}.velocity.angular_velocity.{a}": float(v) for a, v in zip("xyz", angular, strict=True)},
        f"{name}.pose_timestamp": fields["pose_timestamp"],
        **{
            f"{name}.rolling_shutter_params.{key}": fields[key]
            for key in ("shutter", "camera_trigger_time", "camera_readout_done_time")
        },
    }


def _returns(name: str, *images: NDArray[Any]) -> Row:
    row: Row = {}
    for number, values in enumerate(images, start=1):
        row[f"{name}.range_image_return{number}.values"] = values.ravel().astype(np.float32)
        row[f"{name}.range_image_return{number}.shape"] = list(values.shape)
    return row


def _box_row(label: dict[str, Any]) -> Row:
    name = "[LiDARBoxComponent]"
    return {
        "key.laser_object_id": label["id"],
        **_box_columns(f"{name}.box", label["centre"], label),
        f"{name}.type": label["type"],
        f"{name}.num_lidar_points_in_box": label["num_points"],
        f"{name}.num_top_lidar_points_in_box": label["num_top_points"],
        **{f"{name}.speed.{axis}": float(v) for axis, v in zip("xyz", label["speed"], strict=True)},
        # Columns of optional fields are there in the release and asked for by the official classes.
        **{f"{name}.acceleration.{axis}": None for axis in "xyz"},
        **{f"{name}.difficulty_level.{problem}": None for problem in ("detection", "tracking")},
    }


def _synced_row(label: dict[str, Any]) -> Row:
    name = "[LiDARCameraSyncedBoxComponent]"
    return {
        "key.laser_object_id": label["id"],
        f"{name}.most_visible_camera_name": label["camera"],
        **_box_columns(f"{name}.camera_synced_box", label["synced_centre"], label),
    }


def _box_columns(name: str, centre: NDArray[np.float64], label: dict[str, Any]) -> Row:
    return {
        **{f"{name}.center.{axis}": float(v) for axis, v in zip("xyz", centre, strict=True)},
        **{f"{name}.size.{axis}": float(v) for axis, v in zip("xyz", label["size"], strict=True)},
        f"{name}.heading": label["heading"],
    }


def _flat(pose: NDArray[np.float64]) -> list[float]:
    return [float(v) for v in pose.ravel()]
