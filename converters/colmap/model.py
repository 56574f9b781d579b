"""Reading COLMAP's sparse models, binary and text, without COLMAP.

pycolmap can read them too, but its C++ believes the counts in a file; here no number is believed before it is checked
against the bytes that are there, and whatever is wrong has a name and a place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, read_source
from datakit.errors import ConventionError, FormatError, LayoutError
from datakit.export.colmap_model import (
    CAMERA_MODELS,
    FILES,
    NO_POINT,
    ColmapCamera,
    ColmapImage,
    ColmapModel,
    ColmapPoints,
)
from datakit.scene.records import SourceFile

_MODEL_OF_ID = {id: name for name, (id, _) in CAMERA_MODELS.items()}
_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_IMAGE = struct.Struct("<I7dI")
_POINT = struct.Struct("<Q3d3BdQ")
_POINT2D = np.dtype([("uv", "<f8", 2), ("id", "<u8")])
_TRACK_BYTES = 8
_NONE = 2**64 - 1
_MEND = "Write the model again from COLMAP (`colmap model_converter`)."


def model_suffix(names: set[str]) -> str | None:
    """Tell from the names in a folder whether it is a sparse model: ".bin", ".txt" or None; binary wins."""
    for suffix in (".bin", ".txt"):
        if {f"cameras{suffix}", f"images{suffix}"} <= names:
            return suffix
    return None


def read_model(root: Path, relative: Path, suffix: str, sources: list[SourceFile]) -> ColmapModel:
    """Read a sparse model. Rigs and frames of newer models are not needed: images hold their full poses.

    Args:
        root: The dataset's root.
        relative: The model's folder below it.
        suffix: ".bin" or ".txt".
        sources: The files read are added here.

    Raises:
        LayoutError: A file is missing.
        FormatError: A file is truncated or malformed.
        ConventionError: An image or point refers to what is not there, or a value is no geometry.
    """
    paths = [relative / f"{name}{suffix}" for name in FILES]
    places = [str(root / path) for path in paths]
    cameras, images, points = (read_source(root, path, sources) for path in paths)
    return parse_model(cameras, images, points, suffix, places)


def parse_model(
    cameras: bytes, images: bytes, points: bytes, suffix: str, places: Sequence[str]
) -> ColmapModel:
    """Read a sparse model from the bytes of its three files, which errors call `places`; see `read_model`."""
    if suffix == ".bin":
        model = ColmapModel(
            _unique_cameras(_binary_cameras(cameras, places[0]), places[0]),
            list(_binary_images(images, places[1])),
            _binary_points(points, places[2]),
        )
    else:
        model = ColmapModel(
            _unique_cameras(_text_cameras(_lines(cameras, places[0]), places[0]), places[0]),
            list(_text_images(_lines(images, places[1]), places[1])),
            _text_points(_lines(points, places[2]), places[2]),
        )
    _check_references(model, places[1])
    return model


# --- checks shared by both formats ----------------------------------------------------------------------------------


def _unique_cameras(cameras: Iterator[ColmapCamera], where: str) -> dict[int, ColmapCamera]:
    out: dict[int, ColmapCamera] = {}
    for camera in cameras:
        if camera.id in out:
            raise FormatError("A camera is there twice.", where=where, found=f"id {camera.id}", mend=_MEND)
        out[camera.id] = camera
    return out


def _camera(
    id: int, model: str | None, size: tuple[int, int], params: tuple[float, ...], where: str
) -> ColmapCamera:
    if model not in CAMERA_MODELS:
        raise FormatError(
            "An unknown camera model.", where=where, expected=", ".join(CAMERA_MODELS), found=model
        )
    if len(params) != CAMERA_MODELS[model][1]:
        raise FormatError(
            f"{model} has another number of parameters.",
            where=where,
            expected=CAMERA_MODELS[model][1],
            found=len(params),
        )
    check_size(*size, "A camera", where)
    if not np.isfinite(params).all():
        raise ConventionError("A camera parameter is not finite.", where=where, found=params)
    return ColmapCamera(id, model, size, params)


def _image(
    id: int, pose: Any, camera_id: int, name: str, uv: Any, ids: NDArray[np.int64], where: str
) -> ColmapImage:
    pose, uv = np.asarray(pose, np.float64), np.asarray(uv, np.float64)
    norm = np.linalg.norm(np.clip(np.nan_to_num(pose[:4]), -1e6, 1e6))
    if not np.isfinite(pose).all() or not 1e-6 < norm < 1e6:
        raise ConventionError(
            "A pose is none.",
            where=where,
            expected="a quaternion w x y z and a translation",
            found=pose.tolist(),
        )
    if not name:
        raise FormatError("An image has no name.", where=where, mend=_MEND)
    if not np.isfinite(uv).all():
        raise ConventionError("A 2D point is not finite.", where=where)
    return ColmapImage(id, camera_id, name, pose[:4] / norm, pose[4:], uv, ids)


def _points(rows: list[tuple[float, ...]], ids: list[int], where: str) -> ColmapPoints:
    """Sort points by id and check them. `rows` are xyz, rgb, error."""
    table = np.array(rows, np.float64).reshape(len(rows), 7)
    order = np.argsort(np.array(ids, np.int64), kind="stable")
    ids_sorted, table = np.array(ids, np.int64)[order], table[order]
    if (np.diff(ids_sorted) == 0).any():
        raise FormatError("A point is there twice.", where=where, mend=_MEND)
    if not np.isfinite(table[:, :3]).all():
        raise ConventionError("A point is not finite.", where=where, mend=_MEND)
    colours = np.clip(np.nan_to_num(table[:, 3:6]), 0, 255).astype(np.uint8)
    # COLMAP writes -1 for an error that it has not computed.
    error = np.where(np.isfinite(table[:, 6]) & (table[:, 6] >= 0), table[:, 6], np.inf)
    return ColmapPoints(ids_sorted, table[:, :3], colours, error)


def _check_references(model: ColmapModel, where: str) -> None:
    names: set[str] = set()
    for image in model.images:
        place = f"{where}: {image.name}"
        if image.camera_id not in model.cameras:
            raise ConventionError(
                "An image has a camera that is not there.", where=place, found=image.camera_id, mend=_MEND
            )
        if image.name in names:
            raise ConventionError("An image is there twice.", where=place, mend=_MEND)
        names.add(image.name)
        used = image.point_ids[image.point_ids != NO_POINT]
        unknown = used[~np.isin(used, model.points.ids)]
        if unknown.size:
            raise ConventionError(
                "An image observes a point that is not there.", where=place, found=int(unknown[0]), mend=_MEND
            )


# --- binary ---------------------------------------------------------------------------------------------------------


class _Bytes:
    """A cursor over a file's bytes that never reads beyond their end."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.at = data, where, 0

    def place(self) -> str:
        return f"{self.where}, byte {self.at}"

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        self.need(layout.size)
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def need(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise FormatError(
                "A COLMAP file is truncated.",
                where=self.place(),
                expected=f"{size} bytes",
                found=f"{len(self.data) - self.at} bytes",
                mend=_MEND,
            )

    def count(self, least: int) -> int:
        """Read a count of records that take at least `least` bytes each."""
        (count,) = self.take(_COUNT)
        self.need(count * least)
        return int(count)

    def rows(self, layout: np.dtype[Any], count: int) -> NDArray[Any]:
        self.need(count * layout.itemsize)
        out = np.frombuffer(self.data, layout, count, self.at)
        self.at += count * layout.itemsize
        return out

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise FormatError("A name does not end.", where=self.place(), expected="a zero byte", mend=_MEND)
        try:
            text = self.data[self.at : end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("A name is not UTF-8.", where=self.place(), found=error) from error
        self.at = end + 1
        return text

    def finish(self) -> None:
        if self.at != len(self.data):
            raise FormatError(
                "Bytes are left over in a COLMAP file.",
                where=self.place(),
                expected="the end of the file",
                found=f"{len(self.data) - self.at} bytes",
                mend=_MEND,
            )


def _binary_cameras(data: bytes, where: str) -> Iterator[ColmapCamera]:
    cursor = _Bytes(data, where)
    for _ in range(cursor.count(_CAMERA.size)):
        place = cursor.place()
        id, code, width, height = cursor.take(_CAMERA)
        model = _MODEL_OF_ID.get(code)
        num_params = CAMERA_MODELS[model][1] if model is not None else 0
        params = tuple(cursor.rows(np.dtype("<f8"), num_params).tolist())
        yield _camera(id, str(code) if model is None else model, (width, height), params, place)
    cursor.finish()


def _binary_images(data: bytes, where: str) -> Iterator[ColmapImage]:
    cursor = _Bytes(data, where)
    for _ in range(cursor.count(_IMAGE.size + 1 + _COUNT.size)):
        place = cursor.place()
        id, *pose, camera_id = cursor.take(_IMAGE)
        name = cursor.text()
        rows = cursor.rows(_POINT2D, cursor.count(_POINT2D.itemsize))
        yield _image(id, pose, camera_id, name, rows["uv"], _signed_ids(rows["id"], place), place)
    cursor.finish()


def _signed_ids(ids: NDArray[np.uint64], where: str) -> NDArray[np.int64]:
    bad = (ids >= 2**63) & (ids != _NONE)
    if bad.any():
        raise FormatError("A point id is absurd.", where=where, found=int(ids[bad][0]), mend=_MEND)
    return ids.astype(np.int64)  # the id of no point wraps to -1


def _binary_points(data: bytes, where: str) -> ColmapPoints:
    cursor = _Bytes(data, where)
    ids, rows = [], []
    for _ in range(cursor.count(_POINT.size)):
        place = cursor.place()
        id, *row, length = cursor.take(_POINT)
        if id >= 2**63:
            raise FormatError("A point id is absurd.", where=place, found=id, mend=_MEND)
        cursor.need(length * _TRACK_BYTES)
        cursor.at += length * _TRACK_BYTES
        ids.append(id)
        rows.append(tuple(row))
    cursor.finish()
    return _points(rows, ids, where)


# --- text -----------------------------------------------------------------------------------------------------------


def _lines(data: bytes, where: str) -> list[str]:
    try:
        return data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError("Not a text file.", where=where, expected="UTF-8", found=error) from error


def _is_record(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _malformed(where: str, expected: str, error: object) -> FormatError:
    return FormatError("A line is malformed.", where=where, expected=expected, found=error, mend=_MEND)


def _text_cameras(lines: list[str], where: str) -> Iterator[ColmapCamera]:
    for number, line in enumerate(lines, start=1):
        if not _is_record(line):
            continue
        place, words = f"{where}, line {number}", line.split()
        try:
            id, size = _natural(words[0]), (_natural(words[2]), _natural(words[3]))
            params = tuple(float(word) for word in words[4:])
        except (ValueError, IndexError) as error:
            raise _malformed(place, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS", error) from error
        yield _camera(id, words[1], size, params, place)


def _text_images(lines: list[str], where: str) -> Iterator[ColmapImage]:
    at = 0
    while at < len(lines):
        if not _is_record(lines[at]):
            at += 1
            continue
        place, words = f"{where}, line {at + 1}", lines[at].split(maxsplit=9)
        # The second line of an image is its own even where it is empty.
        observed = lines[at + 1].split() if at + 1 < len(lines) else []
        try:
            if len(words) != 10 or len(observed) % 3:
                raise ValueError(f"{len(words)} and {len(observed)} words")
            pose = [float(word) for word in words[1:8]]
            uv = np.array([observed[0::3], observed[1::3]], np.float64).T.reshape(-1, 2)
            ids = np.array([_point_id(word) for word in observed[2::3]], np.int64)
            head = _natural(words[0]), _natural(words[8])
        except (ValueError, OverflowError) as error:
            raise _malformed(
                place, "ID QW QX QY QZ TX TY TZ CAMERA_ID NAME; X Y POINT3D_ID ...", error
            ) from error
        yield _image(head[0], pose, head[1], words[9].strip(), uv, ids, place)
        at += 2


def _text_points(lines: list[str], where: str) -> ColmapPoints:
    ids, rows = [], []
    for number, line in enumerate(lines, start=1):
        if not _is_record(line):
            continue
        words = line.split(maxsplit=8)
        try:
            if len(words) < 8:
                raise ValueError(f"{len(words)} words")
            id = _natural(words[0])
            rows.append(tuple(float(word) for word in words[1:8]))
        except ValueError as error:
            raise _malformed(
                f"{where}, line {number}", "POINT3D_ID X Y Z R G B ERROR TRACK", error
            ) from error
        ids.append(id)
    return _points(rows, ids, where)


def _natural(word: str) -> int:
    """Read a non-negative number below 2^63; int() alone also takes "1_0" and is quadratic in length."""
    if not (word.isascii() and word.isdecimal()) or len(word) > 18:
        raise ValueError(f"not a number: {word[:20]!r}")
    return int(word)


def _point_id(word: str) -> int:
    return NO_POINT if word in ("-1", str(_NONE)) else _natural(word)


def check_present(root: Path, relative: Path, suffix: str) -> None:
    """Check that the three files are there.

    Raises:
        LayoutError: One is missing.
    """
    missing = [f"{name}{suffix}" for name in FILES if not (root / relative / f"{name}{suffix}").is_file()]
    if missing:
        raise LayoutError("A sparse model lacks a file.", where=root / relative, found=missing, mend=_MEND)
