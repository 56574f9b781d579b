"""COLMAP's sparse models as plain data, and how they are written (https://colmap.github.io/format.html).

Poses are cam_from_world with scalar-first quaternions; pixels have the corner of the image as origin, as the contract.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: Camera model -> (id, number of parameters), as in colmap/sensor/models.h.
CAMERA_MODELS: dict[str, tuple[int, int]] = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "FOV": (7, 5),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12),
    "RAD_TAN_THIN_PRISM_FISHEYE": (11, 16),
    "SIMPLE_DIVISION": (12, 4),
    "DIVISION": (13, 5),
    "SIMPLE_FISHEYE": (14, 3),
    "FISHEYE": (15, 4),
    "EUCM": (16, 6),
    "EQUIRECTANGULAR": (17, 2),
}
#: Contract name of a camera model -> COLMAP's; coefficients are in the same order.
COLMAP_OF = {
    "pinhole": "PINHOLE",
    "opencv": "OPENCV",
    "full_opencv": "FULL_OPENCV",
    "opencv_fisheye": "OPENCV_FISHEYE",
}
#: A 2D point that belongs to no 3D point.
NO_POINT = -1
FILES = ("cameras", "images", "points3D")


@dataclass(frozen=True)
class ColmapCamera:
    """A camera; `params` are in the order of COLMAP's model of this name."""

    id: int
    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ColmapImage:
    """A posed image.

    Attributes:
        id: Unique.
        camera_id: Of its camera.
        name: Path below the image folder.
        quaternion_wxyz: (4,) rotation of cam_from_world.
        translation: (3,) of cam_from_world.
        uv_px: (K, 2) observed points.
        point_ids: (K,) int64 id of the 3D point of each, `NO_POINT` for none.
    """

    id: int
    camera_id: int
    name: str
    quaternion_wxyz: Float
    translation: Float
    uv_px: Float
    point_ids: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ColmapPoints:
    """The 3D points; which images see them is in the images.

    Attributes:
        ids: (P,) int64, strictly increasing.
        xyz: (P, 3) world.
        rgb: (P, 3) uint8.
        error: (P,) mean reprojection error in pixels.
    """

    ids: NDArray[np.int64]
    xyz: Float
    rgb: NDArray[np.uint8]
    error: Float


@dataclass(frozen=True, eq=False)
class ColmapModel:
    """A sparse model: cameras by id, images in the file's order, points."""

    cameras: Mapping[int, ColmapCamera]
    images: Sequence[ColmapImage]
    points: ColmapPoints


def no_points() -> ColmapPoints:
    """Return an empty set of points."""
    return ColmapPoints(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0))


def write_model(folder: Path, model: ColmapModel, as_text: bool = False) -> None:
    """Write cameras, images and points3D, as .bin or as .txt files.

    Args:
        folder: Where to; made if it is not there.
        model: What to write. Its images observe only points that it has.
        as_text: Text, with all digits, in place of binary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tracks = _tracks(model)
    if as_text:
        texts = (_cameras_text(model), _images_text(model), _points_text(model, tracks))
        for name, lines in zip(FILES, texts, strict=True):
            with open(folder / f"{name}.txt", "w", encoding="utf-8") as file:
                file.writelines(lines)
        return
    parts = (_cameras_binary(model), _images_binary(model), _points_binary(model, tracks))
    for name, chunks in zip(FILES, parts, strict=True):
        with open(folder / f"{name}.bin", "wb") as out:
            out.writelines(chunks)


def _tracks(model: ColmapModel) -> dict[int, list[tuple[int, int]]]:
    """Point id -> (image id, index of the 2D point) of all its observations."""
    out: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for image in model.images:
        for index in np.flatnonzero(image.point_ids != NO_POINT).tolist():
            out[int(image.point_ids[index])].append((image.id, index))
    return out


def _cameras_binary(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack("<Q", len(model.cameras))
    for camera in model.cameras.values():
        yield struct.pack("<IiQQ", camera.id, CAMERA_MODELS[camera.model][0], *camera.size)
        yield np.asarray(camera.params, "<f8").tobytes()


def _images_binary(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack("<Q", len(model.images))
    for image in model.images:
        yield struct.pack("<I7dI", image.id, *image.quaternion_wxyz, *image.translation, image.camera_id)
        yield image.name.encode("utf-8") + b"\0" + struct.pack("<Q", len(image.point_ids))
        rows = np.empty(len(image.point_ids), [("uv", "<f8", 2), ("id", "<i8")])
        rows["uv"], rows["id"] = image.uv_px, image.point_ids
        yield rows.tobytes()


def _points_binary(model: ColmapModel, tracks: Mapping[int, Sequence[tuple[int, int]]]) -> Iterator[bytes]:
    points = model.points
    yield struct.pack("<Q", len(points.ids))
    for id, xyz, rgb, error in zip(
        points.ids.tolist(), points.xyz.tolist(), points.rgb.tolist(), points.error.tolist(), strict=True
    ):
        track = tracks.get(id, ())
        yield struct.pack("<Q3d3BdQ", id, *xyz, *rgb, error, len(track))
        yield np.asarray(track, "<u4").tobytes()


def _cameras_text(model: ColmapModel) -> Iterator[str]:
    yield "# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
    for camera in model.cameras.values():
        width, height = camera.size
        yield f"{camera.id} {camera.model} {width} {height} {_words(camera.params)}\n"


def _images_text(model: ColmapModel) -> Iterator[str]:
    yield "# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n# POINTS2D[] as (X, Y, POINT3D_ID)\n"
    for image in model.images:
        pose = _words([*image.quaternion_wxyz.tolist(), *image.translation.tolist()])
        yield f"{image.id} {pose} {image.camera_id} {image.name}\n"
        rows = zip(image.uv_px.tolist(), image.point_ids.tolist(), strict=True)
        yield " ".join(f"{u!r} {v!r} {id}" for (u, v), id in rows) + "\n"


def _points_text(model: ColmapModel, tracks: Mapping[int, Sequence[tuple[int, int]]]) -> Iterator[str]:
    yield "# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n"
    points = model.points
    for id, xyz, rgb, error in zip(
        points.ids.tolist(), points.xyz.tolist(), points.rgb.tolist(), points.error.tolist(), strict=True
    ):
        track = [number for pair in tracks.get(id, ()) for number in pair]
        yield f"{id} {_words(xyz)} {rgb[0]} {rgb[1]} {rgb[2]} {error!r}{''.join(f' {n}' for n in track)}\n"


def _words(values: Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def write_depth_map(path: Path, z_depth: NDArray[np.floating]) -> None:
    """Write a dense depth map as COLMAP's stereo does: "W&H&1&" and float32, 0 where unknown.

    Args:
        path: Where to, e.g. stereo/depth_maps/<image name>.geometric.bin.
        z_depth: (H, W), NaN unknown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = z_depth.shape
    data = np.nan_to_num(z_depth, nan=0.0).astype("<f4").tobytes()
    path.write_bytes(f"{width}&{height}&1&".encode("ascii") + data)
