"""`frame_annotations_<split>.jgz`: a gzipped JSON array with one object per frame and camera, read as a stream."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, field, numbers
from datakit import geometry as g
from datakit.errors import ConventionError, FormatError

Float = NDArray[np.float64]

#: Characters read at a time, and the longest object that is believed.
_CHUNK, _MAX_OBJECT = 1 << 16, 1 << 20
#: PyTorch3D's camera axes (x left, y up, z forward) into OpenCV's.
_OPENCV_FROM_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])
EYES = ("left", "right")
_PATHS = ("trajectories", "flow_forward", "flow_forward_mask", "flow_backward", "flow_backward_mask")


@dataclass(frozen=True)
class Row:
    """One frame of one camera.

    Attributes:
        number: Frame number, from 0.
        eye: "left" or "right".
        time: Seconds.
        size: (W, H).
        intrinsics: (3, 3), pixels, corner origin.
        world_from_cam: (4, 4), OpenCV axes.
        depth_scale: `depth.scale_adjustment`.
        paths: Of "image", "depth", "instances", "trajectories", "flow_forward", ...; those that are there.
    """

    number: int
    eye: str
    time: float
    size: tuple[int, int]
    intrinsics: Float
    world_from_cam: Float
    depth_scale: float
    paths: dict[str, str]


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a gzipped JSON array one by one; memory holds one at a time.

    Raises:
        FormatError: Not gzip, cut off, not an array of objects, or an object of more than a megabyte.
    """
    decoder, text, started = json.JSONDecoder(), "", False
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            while True:
                chunk = file.read(_CHUNK)
                text = (text + chunk).lstrip()
                if not started and text:
                    if text[0] != "[":
                        raise FormatError("Not a JSON array.", where=path, expected="[", found=text[:20])
                    text, started = text[1:].lstrip(), True
                while text and text[0] != "]":
                    try:
                        value, end = decoder.raw_decode(text)
                    except json.JSONDecodeError as err:
                        if not chunk or len(text) > _MAX_OBJECT:
                            raise FormatError(
                                "An object of the annotations cannot be read.",
                                where=path,
                                expected=f"a JSON object of at most {_MAX_OBJECT} characters",
                                found=f"{err.msg}: {text[:60]!r}",
                            ) from err
                        break
                    if not isinstance(value, dict):
                        raise FormatError("Not an object.", where=path, found=text[:60])
                    yield value
                    text = text[end:].lstrip()
                    text = text[1:].lstrip() if text.startswith(",") else text
                if text.startswith("]"):
                    return
                if not chunk:
                    raise FormatError(
                        "The annotations are cut off.", where=path, expected="]", found=text[:60] or "the end"
                    )
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as err:
        raise FormatError("The annotations cannot be read.", where=path, expected="gzip", found=err) from err
    except (RecursionError, ValueError) as err:  # nested too deep, or a number of thousands of digits
        raise FormatError("An object of the annotations cannot be parsed.", where=path, found=err) from err


def rows_of(path: Path, sequence: str) -> list[Row]:
    """Read the rows of one sequence, sorted by camera and frame.

    Raises:
        FormatError: See `objects`; or a field is missing or malformed, or a frame is there twice.
    """
    rows = [
        _row(item, f"{path}: {sequence}") for item in objects(path) if item.get("sequence_name") == sequence
    ]
    rows.sort(key=lambda row: (row.eye, row.number))
    for before, after in zip(rows, rows[1:], strict=False):
        if (before.eye, before.number) == (after.eye, after.number):
            raise FormatError(
                "A frame is annotated twice.", where=f"{path}: {sequence}", found=(after.eye, after.number)
            )
    return rows


def _row(item: dict[str, Any], where: str) -> Row:
    eye = field(item, "camera_name", where)
    number = int(numbers(field(item, "frame_number", where), (), f"{where}: frame_number"))
    where = f"{where}, {eye} frame {number}"
    if eye not in EYES:
        raise FormatError("Unknown camera.", where=where, expected=EYES, found=eye)
    image, depth = field(item, "image", where), item.get("depth")
    depth = depth if isinstance(depth, dict) else {}
    height, width = numbers(field(image, "size", where), (2,), f"{where}: image.size").tolist()
    size = check_size(width, height, "A picture", f"{where}: image.size")
    scale = float(numbers(depth.get("scale_adjustment", 1.0), (), f"{where}: depth.scale_adjustment"))
    if scale <= 0:
        raise ConventionError(
            "A depth scale is not positive.", where=f"{where}: depth.scale_adjustment", found=scale
        )
    view = field(item, "viewpoint", where)
    paths = {"image": path_of(image), "depth": path_of(depth)}
    paths["instances"] = path_of(item.get("instance_id_map_path"))
    paths |= {name: path_of(item.get(name)) for name in _PATHS}
    return Row(
        number=number,
        eye=eye,
        time=float(numbers(field(item, "frame_timestamp", where), (), f"{where}: frame_timestamp")),
        size=size,
        intrinsics=intrinsics(view, size, where),
        world_from_cam=world_from_cam(view, where),
        depth_scale=scale,
        paths={name: path for name, path in paths.items() if path is not None},
    )


def path_of(entry: Any) -> str | None:
    """Read a path that may be null, a string, or an object whose path may be null."""
    value = entry.get("path") if isinstance(entry, dict) else entry
    return value if isinstance(value, str) and value else None


def world_from_cam(view: Any, where: str) -> Float:
    """Turn PyTorch3D's row-vector world-to-camera pose into world_from_cam."""
    rotation = numbers(field(view, "R", where), (3, 3), f"{where}: viewpoint.R")
    shift = numbers(field(view, "T", where), (3,), f"{where}: viewpoint.T")
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    # Numbers too large to be squared leave no number, which is not above the limit either.
    if not error <= 1e-4 or np.linalg.det(rotation) < 0:
        raise ConventionError(
            "A rotation is none.", where=f"{where}: viewpoint.R", expected="orthonormal rows", found=error
        )
    u, _, vt = np.linalg.svd(rotation)
    cam_from_world = g.rigid_from(_OPENCV_FROM_PYTORCH3D @ (u @ vt).T, _OPENCV_FROM_PYTORCH3D @ shift)
    return g.invert_rigid(cam_from_world)


def intrinsics(view: Any, size: tuple[int, int], where: str) -> Float:
    """Turn PyTorch3D's NDC intrinsics into K in pixels with the corner as origin.

    "ndc_isotropic" divides by the shorter side, "ndc_norm_image_bounds" each axis by its own
    (pytorch3d/implicitron/dataset/dataset_base.py; dynamic_stereo datasets/dynamic_stereo_datasets.py:76-122).
    """
    focal = numbers(field(view, "focal_length", where), (2,), f"{where}: viewpoint.focal_length")
    point = numbers(field(view, "principal_point", where), (2,), f"{where}: viewpoint.principal_point")
    half = np.array(size) / 2
    form = view.get("intrinsics_format") or "ndc_norm_image_bounds"
    if form == "ndc_isotropic":
        scale = np.full(2, half.min())
    elif form == "ndc_norm_image_bounds":
        scale = half
    else:
        raise ConventionError("Unknown intrinsics_format.", where=where, expected="ndc_isotropic", found=form)
    if (focal <= 0).any():
        raise ConventionError("A focal length is not positive.", where=where, found=focal.tolist())
    matrix = np.diag([*(focal * scale), 1.0])
    matrix[:2, 2] = half - point * scale
    return matrix
