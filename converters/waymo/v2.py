"""Waymo v2: one parquet table a component and segment, <split>/<component>/<context>.parquet.

Columns are those of waymo_open_dataset/v2 at 99a4cb3 (`[Class].path`, component.py:82-92). pyarrow reads them, in
batches of a few rows: a row of range images holds 678,000 floats.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, floats, inside, numbers
from datakit.errors import ConventionError, FormatError, LayoutError, UsageError

from .assemble import Rasters
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
from .v1 import angles, camera_matrix, check_same_grid, rigid

REQUIRED = ("camera_image", "camera_calibration", "vehicle_pose")
OPTIONAL = (
    "lidar",
    "lidar_calibration",
    "lidar_camera_projection",
    "lidar_pose",
    "lidar_box",
    "lidar_camera_synced_box",
    "stats",
)
_CAMERA_NUMBER = {name.upper(): number for number, name in CAMERAS.items()}
_BATCH = 4
#: Rows of one component that may lie ahead of the frame being read; tables are in the order of time.
_MAX_AHEAD = 64

_STAMP, _CAMERA, _LASER, _OBJECT = (
    "key.frame_timestamp_micros",
    "key.camera_name",
    "key.laser_name",
    "key.laser_object_id",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """The parquet files of one segment: component -> path. `where` names the segment in errors."""

    paths: Mapping[str, Path]
    where: str


def open_tables(root: Path, split_folder: Path, context: str) -> Tables:
    """Find a segment's tables.

    Raises:
        LayoutError: A required component is missing.
    """
    paths = {}
    for component in (*REQUIRED, *OPTIONAL):
        relative = split_folder / component / f"{context}.parquet"
        path = inside(root, relative)
        if path.is_file():
            paths[component] = path
        elif component in REQUIRED:
            raise LayoutError(
                "A component of a segment is missing.",
                where=path,
                expected=component,
                found=sorted(p.name for p in (root / split_folder).iterdir() if p.is_dir()),
                mend="Download that component of the segment too.",
            )
    return Tables(paths, str(root / split_folder / "*" / f"{context}.parquet"))


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Waymo v2 needs pyarrow", mend="pip install 'datakit[waymo]'") from error
    return pyarrow.parquet


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Any]:
    parquet = _parquet()
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError, ArrowException) as err:
        raise FormatError("A table cannot be read.", where=path, expected="parquet", found=err) from err


def count_rows(tables: Tables, component: str) -> int:
    """Count a component's rows from its footer.

    Raises:
        FormatError: The file is no parquet or is cut off.
    """
    with _open(tables.paths[component]) as file:
        return int(file.metadata.num_rows)


def _rows(tables: Tables, component: str, without: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the rows of a component; columns whose name holds one of `without` are not read."""
    if component not in tables.paths:
        return
    with _open(tables.paths[component]) as file:
        names = [name for name in file.schema_arrow.names if not any(part in name for part in without)]
        for batch in file.iter_batches(batch_size=_BATCH, columns=names):
            columns = {name: batch.column(i) for i, name in enumerate(names)}
            for i in range(batch.num_rows):
                yield {name: column[i] for name, column in columns.items()}


class _Reader:
    """Values of one row by the rest of their column's name; errors name file, column and row."""

    def __init__(self, row: Row, where: str) -> None:
        self._row = {name.split("].", 1)[-1]: value for name, value in row.items()}
        self.where = where

    def has(self, name: str) -> bool:
        return name in self._row and self._row[name].is_valid

    def value(self, name: str) -> Any:
        if not self.has(name):
            raise FormatError("A column is missing or empty.", where=self.where, expected=name)
        return self._row[name].as_py()

    def integer(self, name: str) -> int:
        value = self.value(name)
        if not isinstance(value, (int, float)) or value != value // 1:
            raise self._odd(name, "a whole number", value)
        return int(value)

    def content(self, name: str) -> bytes:
        value = self.value(name)
        if not isinstance(value, bytes):
            raise self._odd(name, "bytes", value)
        return value

    def camera(self, name: str) -> int:
        """Read a camera's number: a number in v2.0.1, a name in earlier tables; 0 for a name of none."""
        value = self.value(name)
        return _CAMERA_NUMBER.get(value, 0) if isinstance(value, str) else self.integer(name)

    def key(self, name: str) -> int:
        """Read a lidar's or a camera's number, which must be that of one."""
        number = self.camera(name)
        if name == _CAMERA and number not in CAMERAS:
            raise ConventionError(
                "Unknown camera.", where=self.where, expected=CAMERAS, found=self.value(name)
            )
        return number

    def _odd(self, name: str, expected: str, found: object) -> FormatError:
        return FormatError(
            "A value is of another kind.",
            where=f"{self.where}: {name}",
            expected=expected,
            found=repr(found)[:80],
        )

    def number(self, name: str) -> float:
        return float(numbers(self.value(name), (), f"{self.where}: {name}"))

    def numbers(self, name: str, parts: str) -> Float:
        return np.array([self.number(f"{name}.{part}") for part in parts])

    def pose(self, name: str) -> Float:
        place = f"{self.where}: {name}"
        return rigid(numbers(self.value(name), (16,), place).reshape(4, 4), place)

    def array(self, name: str, channels: int) -> NDArray[np.float32] | None:
        """Read an array of (rows, columns, channels); None where the row has none."""
        if not self.has(f"{name}.values") or not self.has(f"{name}.shape"):
            return None
        stored, stated = self._row[f"{name}.values"], self.value(f"{name}.shape")
        is_list = isinstance(stated, list) and all(isinstance(each, int) for each in stated)
        items: Any = getattr(stored, "values", None)  # of an object that is a method
        if not is_list or not hasattr(items, "to_numpy"):
            raise self._odd(f"{name}.shape", "lists of numbers", stated)
        flat, shape = items.to_numpy(zero_copy_only=False), tuple(stated)
        if flat.dtype.kind not in "fiu":
            raise self._odd(f"{name}.values", "numbers", flat.dtype)
        values = flat.astype(np.float32)
        if len(shape) != 3 or shape[2] != channels or min(shape) < 0 or math.prod(shape) != values.size:
            raise FormatError(
                "A range image's shape does not fit its values.",
                where=f"{self.where}: {name}.shape",
                expected=f"(rows, columns, {channels}) of {values.size} values",
                found=shape,
            )
        return values.reshape(shape)


def calibration(tables: Tables, context: str) -> Calibration:
    """Read what is constant in a segment."""
    cameras = {}
    for row in _rows(tables, "camera_calibration"):
        read = _Reader(row, str(tables.paths["camera_calibration"]))
        number = read.key(_CAMERA)
        lens = [read.number(f"intrinsic.{key}") for key in ("f_u", "f_v", "c_u", "c_v")]
        cameras[number] = CameraCalibration(
            size=check_size(read.integer("width"), read.integer("height"), "A camera", read.where),
            intrinsics=camera_matrix(lens, read.where),
            distortion=tuple(read.number(f"intrinsic.{key}") for key in ("k1", "k2", "p1", "p2", "k3")),
            vehicle_from_camera=read.pose("extrinsic.transform"),
            shutter_direction=read.integer("rolling_shutter_direction"),
        )
    lasers = {}
    for row in _rows(tables, "lidar_calibration"):
        read = _Reader(row, str(tables.paths["lidar_calibration"]))
        beams = read.value("beam_inclination.values") if read.has("beam_inclination.values") else []
        beams = angles(beams, f"{read.where}: beam_inclination.values")
        span = [read.number(f"beam_inclination.{end}") for end in ("min", "max")]
        low, high = angles(span, f"{read.where}: beam_inclination").tolist()
        lasers[read.integer(_LASER)] = LaserCalibration(
            vehicle_from_lidar=read.pose("extrinsic.transform"),
            inclinations=beams if len(beams) else None,
            span=(low, high),
        )
    return Calibration(context, cameras, lasers, _stats(tables))


def _stats(tables: Tables) -> dict[str, str]:
    for row in _rows(tables, "stats", without=("counts",)):
        read = _Reader(row, str(tables.paths["stats"]))
        return {
            key: str(read.value(key)) if read.has(key) else ""
            for key in ("time_of_day", "location", "weather")
        }
    return {"time_of_day": "", "location": "", "weather": ""}


def heads(tables: Tables) -> list[FrameHead]:
    """Read all frames but for their rasters, in the order of time."""
    poses: dict[int, Float] = {}
    for row in _rows(tables, "vehicle_pose"):
        read = _Reader(row, str(tables.paths["vehicle_pose"]))
        poses[read.integer(_STAMP)] = read.pose("world_from_vehicle.transform")
    images: dict[int, dict[int, Image]] = {stamp: {} for stamp in poses}
    for row in _rows(tables, "camera_image", without=("].image", "velocity")):
        read = _Reader(row, str(tables.paths["camera_image"]))
        stamp = _known_stamp(read, poses)
        images[stamp][read.key(_CAMERA)] = Image(
            jpeg=b"",
            global_from_vehicle=read.pose("pose.transform"),
            pose_time=read.number("pose_timestamp"),
            shutter=read.number("rolling_shutter_params.shutter"),
            trigger_time=read.number("rolling_shutter_params.camera_trigger_time"),
            readout_done_time=read.number("rolling_shutter_params.camera_readout_done_time"),
        )
    objects = _objects(tables, poses)
    return [
        FrameHead(stamp, poses[stamp], images[stamp], tuple(objects.get(stamp, ())))
        for stamp in sorted(poses)
    ]


def _known_stamp(read: _Reader, poses: Mapping[int, Float]) -> int:
    stamp = read.integer(_STAMP)
    if stamp not in poses:
        raise FormatError(
            "A frame has no vehicle pose.", where=read.where, expected="a row in vehicle_pose", found=stamp
        )
    return stamp


def _objects(tables: Tables, poses: Mapping[int, Float]) -> dict[int, list[Labelled]]:
    synced: dict[tuple[int, str], tuple[Box, int]] = {}
    for row in _rows(tables, "lidar_camera_synced_box"):
        read = _Reader(row, str(tables.paths["lidar_camera_synced_box"]))
        if read.has("camera_synced_box.center.x") and read.has("most_visible_camera_name"):
            key = (read.integer(_STAMP), str(read.value(_OBJECT)))
            synced[key] = (_box(read, "camera_synced_box"), read.camera("most_visible_camera_name"))
    out: dict[int, list[Labelled]] = {}
    for row in _rows(tables, "lidar_box", without=("acceleration", "difficulty")):
        read = _Reader(row, str(tables.paths["lidar_box"]))
        stamp, ident = _known_stamp(read, poses), str(read.value(_OBJECT))
        box, camera = synced.get((stamp, ident), (None, 0))
        speed = [read.value(f"speed.{k}") if read.has(f"speed.{k}") else np.nan for k in "xyz"]
        speed_global = floats(speed, (3,), f"{read.where}: speed")
        label = Labelled(ident, read.integer("type"), _box(read, "box"), speed_global, box, camera)
        out.setdefault(stamp, []).append(label)
    return out


def _box(read: _Reader, name: str) -> Box:
    # size.x is the length, size.y the width: v2/column_types.py.
    return Box(
        read.numbers(f"{name}.center", "xyz"),
        read.numbers(f"{name}.size", "xyz"),
        read.number(f"{name}.heading"),
    )


def rasters(tables: Tables, stamps: list[int]) -> Iterator[Rasters]:
    """Read pictures and range images frame by frame.

    Args:
        tables: Of the segment.
        stamps: `timestamp_micros` of the frames, in the order of time.
    """
    pictures = _Ahead(tables, "camera_image", _CAMERA, ("pose", "velocity", "rolling"))
    lidar = _Ahead(tables, "lidar", _LASER)
    projection = _Ahead(tables, "lidar_camera_projection", _LASER)
    pose = _Ahead(tables, "lidar_pose", _LASER)
    with contextlib.ExitStack() as stack:
        for each in (pictures, lidar, projection, pose):
            stack.callback(each.close)
        for stamp in stamps:
            jpegs = {key: read.content("image") for key, read in pictures.of(stamp).items()}
            lasers = {
                key: _returns(read, projection.of(stamp).get(key), pose.of(stamp).get(key))
                for key, read in lidar.of(stamp).items()
            }
            yield Rasters(jpegs, lasers)


def _returns(
    lidar: _Reader, projection: _Reader | None, pose: _Reader | None
) -> tuple[RangeImage | None, RangeImage | None]:
    return _one_return(lidar, projection, pose, 1), _one_return(lidar, projection, None, 2)


def _one_return(
    lidar: _Reader, projection: _Reader | None, pose: _Reader | None, number: int
) -> RangeImage | None:
    name = f"range_image_return{number}"
    values = lidar.array(name, 4)
    if values is None:
        return None
    pixels = None if projection is None else projection.array(name, 6)
    poses = None if pose is None else pose.array(name, 6)
    for other in (pixels, poses):
        if other is not None:
            check_same_grid(values, other, f"{lidar.where}: {name}")
    return RangeImage(
        values,
        # v2 keeps these integers as floats.
        None if pixels is None else pixels.astype(np.int32),
        poses,
    )


class _Ahead:
    """Rows of a component by frame; rows of one frame may be apart by a few frames, not by the whole table."""

    def __init__(self, tables: Tables, component: str, key: str, without: tuple[str, ...] = ()) -> None:
        self._where = str(tables.paths.get(component, component))
        self._key = key
        self._rows = _rows(tables, component, without)
        self._waiting: dict[int, dict[int, _Reader]] = {}
        self._last: int | None = None
        self.close: Callable[[], None] = self._rows.close  # type: ignore[attr-defined]

    def of(self, stamp: int) -> dict[int, _Reader]:
        """Give the rows of a frame, read as far ahead as to the first row of the frame after the next."""
        for done in [known for known in self._waiting if known < stamp]:
            del self._waiting[done]
        while self._last is None or self._last <= stamp:
            row = next(self._rows, None)
            if row is None:
                self._last = 1 << 62
                break
            read = _Reader(row, self._where)
            found = read.integer(_STAMP)
            if found < stamp or sum(map(len, self._waiting.values())) > _MAX_AHEAD:
                raise FormatError(
                    "A table's rows are not in the order of time.",
                    where=self._where,
                    expected=f"frame {stamp} or later",
                    found=found,
                )
            self._waiting.setdefault(found, {})[read.key(self._key)] = read
            self._last = max(self._last or 0, found)
        return self._waiting.get(stamp, {})
