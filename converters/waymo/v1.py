"""Waymo v1: one TFRecord a segment, one serialised `Frame` a record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, floats, numbers
from converters.native.tfrecord import OVERHEAD, read_record, walk_records
from datakit.errors import ConventionError, FormatError
from datakit.scene.deflate import inflate
from datakit.scene.records import SourceFile

from .proto import parse
from .segment import (
    CAMERAS,
    Box,
    Calibration,
    CameraCalibration,
    Float,
    FrameHead,
    Image,
    Labelled,
    LaserCalibration,
    RangeImage,
)

_NUMBER_OF_CAMERA = {name.upper(): number for number, name in CAMERAS.items()}
#: The largest range image of the release (TOP: 64 x 2650 x 6 values); ten times that is no range image.
_MAX_VALUES = 64 * 2650 * 6 * 10
#: Pixels; no camera has a longer focal length, or a principal point as far away.
_FAR = 1e6
#: Bytes before a record's payload: its length and the length's CRC.
_RECORD_HEAD = 12


def calibration(frame: Any, where: str) -> Calibration:
    """Read what is constant from a parsed Frame; cameras and lidars are joined by number, never by position."""
    context = frame.context
    if not context.name:
        raise FormatError("A frame has no context.", where=f"{where}: context.name", expected="a name")
    return Calibration(
        name=_text(context.name, f"{where}: context.name"),
        cameras={c.name: _camera(c, where) for c in context.camera_calibrations if c.name in CAMERAS},
        lasers={c.name: _laser(c, where) for c in context.laser_calibrations},
        stats={
            key: _text(getattr(context.stats, key), f"{where}: stats.{key}")
            for key in ("time_of_day", "location", "weather")
        },
    )


def _text(value: str | bytes, where: str) -> str:
    # The runtime gives the bytes of what is no UTF-8.
    if isinstance(value, bytes):
        raise FormatError("Not a text.", where=where, expected="UTF-8", found=value[:40])
    return value


def _camera(message: Any, where: str) -> CameraCalibration:
    place = f"{where}: camera_calibrations[{CAMERAS[message.name]}]"
    values = numbers(message.intrinsic, (9,), f"{place}.intrinsic")
    return CameraCalibration(
        size=check_size(message.width, message.height, "A camera", place),
        intrinsics=camera_matrix(values[:4], place),
        distortion=tuple(float(v) for v in values[4:]),
        vehicle_from_camera=transform(message.extrinsic, f"{place}.extrinsic"),
        shutter_direction=message.rolling_shutter_direction,
    )


def _laser(message: Any, where: str) -> LaserCalibration:
    place = f"{where}: laser_calibrations[{message.name}]"
    span = angles([message.beam_inclination_min, message.beam_inclination_max], f"{place}.beam_inclination")
    beams = angles(message.beam_inclinations, f"{place}.beam_inclinations")
    return LaserCalibration(
        vehicle_from_lidar=transform(message.extrinsic, f"{place}.extrinsic"),
        inclinations=beams if len(beams) else None,
        span=(float(span[0]), float(span[1])),
    )


def angles(values: Any, where: str) -> Float:
    """Check a list of angles in rad.

    Raises:
        FormatError: No list of numbers.
        ConventionError: A value is no angle.
    """
    array = floats(values, None, where).ravel()
    if not (np.abs(array) <= np.pi).all():
        raise ConventionError("A value is no angle.", where=where, expected="-pi to pi", found=array)
    return array


def head(frame: Any, where: str) -> FrameHead:
    """Read a parsed Frame but for its rasters and picture bytes."""
    return FrameHead(
        timestamp_micros=frame.timestamp_micros,
        global_from_vehicle=transform(frame.pose, f"{where}: pose"),
        images={
            image.name: _image(image, f"{where}: images[{CAMERAS[image.name]}]")
            for image in frame.images
            if image.name in CAMERAS
        },
        objects=tuple(_labelled(label, f"{where}: laser_labels[{label.id}]") for label in frame.laser_labels),
    )


def _image(message: Any, where: str) -> Image:
    times = [message.pose_timestamp, message.shutter]
    times += [message.camera_trigger_time, message.camera_readout_done_time]
    return Image(
        b"", transform(message.pose, f"{where}.pose"), *numbers(times, (4,), f"{where}: times").tolist()
    )


def _labelled(message: Any, where: str) -> Labelled:
    meta, has = message.metadata, message.HasField("metadata")
    speed = [
        getattr(meta, key) if has and meta.HasField(key) else np.nan
        for key in ("speed_x", "speed_y", "speed_z")
    ]
    synced = message.camera_synced_box if message.HasField("camera_synced_box") else None
    return Labelled(
        id=_text(message.id, f"{where}.id"),
        type=message.type,
        box=_box(message.box, where),
        speed_global=np.array(speed),
        synced_box=None if synced is None else _box(synced, f"{where}.camera_synced_box"),
        synced_camera=_NUMBER_OF_CAMERA.get(message.most_visible_camera_name, 0),
    )


def _box(message: Any, where: str) -> Box:
    values = [message.center_x, message.center_y, message.center_z]
    # Length lies along the heading; the message's order is width before length (label.proto:22-40).
    values += [message.length, message.width, message.height, message.heading]
    checked = numbers(values, (7,), where)
    return Box(checked[:3], checked[3:6], float(checked[6]))


def pictures(frame: Any) -> Iterator[tuple[int, bytes]]:
    """Yield camera number and JPEG bytes of a parsed Frame."""
    return ((image.name, image.image) for image in frame.images if image.name in CAMERAS)


def range_images(frame: Any, where: str) -> dict[int, tuple[RangeImage | None, RangeImage | None]]:
    """Decompress the range images of a parsed Frame: laser number -> first and second return."""
    return {
        laser.name: (
            _range_image(laser.ri_return1, f"{where}: lasers[{laser.name}].ri_return1"),
            _range_image(laser.ri_return2, f"{where}: lasers[{laser.name}].ri_return2"),
        )
        for laser in frame.lasers
    }


def _range_image(message: Any, where: str) -> RangeImage | None:
    if not message.range_image_compressed:
        return None
    values = _matrix(
        message.range_image_compressed, "MatrixFloat", np.float32, 4, f"{where}.range_image_compressed"
    )
    projection = pose = None
    if message.camera_projection_compressed:
        place = f"{where}.camera_projection_compressed"
        projection = _matrix(message.camera_projection_compressed, "MatrixInt32", np.int32, 6, place)
        check_same_grid(values, projection, place)
    if message.range_image_pose_compressed:
        place = f"{where}.range_image_pose_compressed"
        pose = _matrix(message.range_image_pose_compressed, "MatrixFloat", np.float32, 6, place)
        check_same_grid(values, pose, place)
    return RangeImage(values, projection, pose)


def _matrix(data: bytes, kind: str, dtype: type[Any], channels: int, where: str) -> NDArray[Any]:
    shape, values = read_matrix(_inflate(data, where), kind, dtype, where)
    if len(shape) != 3 or shape[2] != channels or min(shape) < 0 or math.prod(shape) != values.size:
        raise FormatError(
            "A range image's shape does not fit its values.",
            where=f"{where}.shape",
            expected=f"(rows, columns, {channels}) of {values.size} values",
            found=shape,
        )
    return values.reshape(shape)


def read_matrix(wire: bytes, kind: str, dtype: type[Any], where: str) -> tuple[tuple[int, ...], NDArray[Any]]:
    """Read a MatrixFloat or MatrixInt32: its shape, and all its values in a row.

    Packed numbers are read as the bytes they are; the runtime makes an object of each, which takes twenty times as
    long. Numbers that are not packed are as legal, and left to it.

    Raises:
        FormatError: No such message, or a number is cut off.
    """
    start, end = _leading_run(wire)
    # What follows is small, as writers order fields by number: the shape. Else the runtime finds the runs.
    packed = parse("PackedMatrix", wire[end:], where)
    if start and not packed.data:
        data = np.frombuffer(wire, np.uint8, end - start, start)
    else:
        packed = parse("PackedMatrix", wire, where)
        data = np.frombuffer(b"".join(packed.data), np.uint8)
    shape = tuple(packed.shape.dims)
    if not len(data):
        message = parse(kind, wire, where)
        return tuple(message.shape.dims), np.array(message.data, dtype=dtype)
    if kind == "MatrixInt32":
        return shape, _varints(data, where)
    if len(data) % 4:
        raise _cut_off(where, "whole floats", f"{len(data)} bytes")
    values = np.empty(len(data) // 4, "<f4")  # a copy, since the run may begin at any byte
    values.view(np.uint8)[:] = data
    return shape, values.astype(dtype, copy=False)


def _leading_run(wire: bytes) -> tuple[int, int]:
    """Find the first byte and the end of the first field if that is a run of packed numbers (field 1); else 0, 0."""
    if wire[:1] != b"\x0a":  # field 1, length-delimited
        return 0, 0
    length = 0
    for at in range(1, min(6, len(wire))):
        length |= (wire[at] & 127) << 7 * (at - 1)
        if wire[at] < 128:
            return (at + 1, at + 1 + length) if at + 1 + length <= len(wire) else (0, 0)
    return 0, 0


def _varints(data: NDArray[np.uint8], where: str) -> NDArray[np.int32]:
    """Read varints as int32: seven bits a byte, the lowest first, and ten bytes for negative ones."""
    from .kernels import read_varints

    words = np.zeros(len(data) // 8 + 2, "<u8")
    words.view(np.uint8)[: len(data)] = data
    values, count = read_varints(words, len(data))
    if count < 0:
        raise _cut_off(where, "varints of at most ten bytes", "a longer one, or one that does not end")
    return np.asarray(values[:count])


def _cut_off(where: str, expected: str, found: str) -> FormatError:
    return FormatError(
        "The numbers of a range image are cut off.", where=where, expected=expected, found=found
    )


def _inflate(data: bytes, where: str) -> bytes:
    """Decompress, to no more than the largest range image takes: four bytes a float, up to ten an integer."""
    return inflate(data, _MAX_VALUES * 10, "A range image", where)


def check_same_grid(values: NDArray[Any], other: NDArray[Any], where: str) -> None:
    """Refuse a companion of a range image on another grid."""
    if values.shape[:2] != other.shape[:2]:
        raise FormatError(
            "A range image and its companion have other sizes.",
            where=where,
            expected=values.shape[:2],
            found=other.shape[:2],
        )


def camera_matrix(values: Sequence[float] | Float, where: str) -> Float:
    """Make K of Waymo's f_u, f_v, c_u and c_v.

    Raises:
        ConventionError: They are no camera's.
    """
    f_u, f_v, c_u, c_v = (float(value) for value in values)
    if min(f_u, f_v) <= 0 or max(f_u, f_v, abs(c_u), abs(c_v)) > _FAR:
        raise ConventionError(
            "A camera is absurd.",
            where=where,
            expected=f"focal lengths and a principal point below {_FAR:g} px",
            found=(f_u, f_v, c_u, c_v),
        )
    return intrinsics(f_u, f_v, c_u, c_v)


def intrinsics(f_u: float, f_v: float, c_u: float, c_v: float) -> Float:
    """Make K of Waymo's four numbers; its pixels already have the corner as origin."""
    return np.array([[f_u, 0.0, c_u], [0.0, f_v, c_v], [0.0, 0.0, 1.0]])


def transform(message: Any, where: str) -> Float:
    """Read a row-major 4 x 4 pose."""
    return rigid(numbers(message.transform, (16,), where).reshape(4, 4), where)


def rigid(matrix: Float, where: str) -> Float:
    """Check that a (4, 4) matrix is a pose, up to what float32 keeps of one."""
    rotation = matrix[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    # Numbers too large to be squared leave no number, which is not above the limit either.
    if not error <= 1e-4 or np.linalg.det(rotation) < 0 or np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ConventionError(
            "A pose is not rigid.",
            where=where,
            expected="a rotation and a translation",
            found=matrix.tolist(),
        )
    u, _, vt = np.linalg.svd(rotation)
    out = matrix.copy()
    out[:3, :3] = u @ vt
    return out


def heads(path: Path) -> tuple[Calibration | None, list[FrameHead]]:
    """Read what is constant in a segment, None if it has no frames, and the heads of all.

    Payloads are neither checked nor hashed, which `frames` does when they are read for their rasters.
    """
    constant, out = None, []
    with open(path, "rb") as file:
        for number, span in enumerate(walk_records(path)):
            file.seek(span.offset + _RECORD_HEAD)
            where = f"{path}: frame {number}"
            frame = parse("Frame", file.read(span.length - OVERHEAD), where)
            constant = constant or calibration(frame, where)
            out.append(head(frame, where))
    return constant, out


def frames(path: Path, check_crc: bool) -> Iterator[tuple[Any, str, SourceFile]]:
    """Parse a segment frame by frame.

    Args:
        path: The TFRecord file.
        check_crc: Whether the payloads' CRCs are checked (those of the lengths always are).

    Yields:
        Parsed Frame, its place for errors, and its record as a source (path: the file's name).
    """
    for number, span in enumerate(walk_records(path)):
        data, digest = read_record(path, span, check_crc)
        where = f"{path}: frame {number}"
        yield parse("Frame", data, where), where, SourceFile(path.name, span.length, digest, span.offset)
