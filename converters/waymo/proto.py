"""The part of Waymo's v1 messages that is read here, for the protobuf runtime.

Field numbers and types are those of waymo_open_dataset/dataset.proto and label.proto at 99a4cb3 (proto2, package
waymo.open_dataset); enumerations are read as int32, which has the same wire form. Fields that are not listed are
skipped by the runtime. The descriptor is built here, so that no generated code ties users to one protobuf release.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from datakit.errors import FormatError

_PACKAGE = "datakit_waymo"
_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
}
#: Message -> "number name type" fields; * repeated, ** repeated and packed.
_MESSAGES = {
    "MatrixShape": "1 dims int32*",
    "MatrixFloat": "1 data float**, 2 shape MatrixShape",
    "MatrixInt32": "1 data int32**, 2 shape MatrixShape",
    # The same two as they lie on the wire: packed numbers are one run of bytes, or several.
    "PackedMatrix": "1 data bytes*, 2 shape MatrixShape",
    "Transform": "1 transform double*",
    "Velocity": "1 v_x float, 2 v_y float, 3 v_z float, 4 w_x double, 5 w_y double, 6 w_z double",
    "CameraCalibration": (
        "1 name int32, 2 intrinsic double*, 3 extrinsic Transform, 4 width int32, 5 height int32, "
        "6 rolling_shutter_direction int32"
    ),
    "LaserCalibration": (
        "1 name int32, 2 beam_inclinations double*, 3 beam_inclination_min double, "
        "4 beam_inclination_max double, 5 extrinsic Transform"
    ),
    "Stats": "2 time_of_day string, 3 location string, 4 weather string",
    "Context": (
        "1 name string, 2 camera_calibrations CameraCalibration*, 3 laser_calibrations LaserCalibration*, "
        "4 stats Stats"
    ),
    "RangeImage": (
        "2 range_image_compressed bytes, 3 camera_projection_compressed bytes, "
        "4 range_image_pose_compressed bytes"
    ),
    "CameraImage": (
        "1 name int32, 2 image bytes, 3 pose Transform, 4 velocity Velocity, 5 pose_timestamp double, "
        "6 shutter double, 7 camera_trigger_time double, 8 camera_readout_done_time double"
    ),
    "Laser": "1 name int32, 2 ri_return1 RangeImage, 3 ri_return2 RangeImage",
    "Box": (
        "1 center_x double, 2 center_y double, 3 center_z double, 4 width double, 5 length double, "
        "6 height double, 7 heading double"
    ),
    "Metadata": "1 speed_x double, 2 speed_y double, 5 speed_z double",
    "Label": (
        "1 box Box, 2 metadata Metadata, 3 type int32, 4 id string, 7 num_lidar_points_in_box int32, "
        "11 most_visible_camera_name string, 12 camera_synced_box Box, 13 num_top_lidar_points_in_box int32"
    ),
    "Polygon2d": "1 x double*, 2 y double*, 3 id string",
    "Frame": (
        "1 context Context, 2 timestamp_micros int64, 3 pose Transform, 4 images CameraImage*, "
        "5 lasers Laser*, 6 laser_labels Label*, 7 no_label_zones Polygon2d*"
    ),
}


def parse(name: str, data: bytes, where: str) -> Any:
    """Parse one message.

    Args:
        name: A message of this module, e.g. "Frame".
        data: Its wire bytes.
        where: File and place, for errors.

    Raises:
        FormatError: The bytes are no such message.
    """
    message = message_class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as err:
        raise FormatError(
            "Not a Waymo message.", where=where, expected=f"a serialised {name}", found=err
        ) from err
    return message


@cache
def message_class(name: str) -> Any:
    """Return the class of a message, for parsing and for writing."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for text in fields.split(", "):
            number, field, kind = text.split()
            _add_field(message, int(number), field, kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message: Any, number: int, name: str, kind: str) -> None:
    repeated, base = kind.count("*"), kind.rstrip("*")
    field = message.field.add(
        name=name, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    )
    if base in _TYPES:
        field.type = _TYPES[base]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{base}"
    if repeated == 2:
        field.options.packed = True
