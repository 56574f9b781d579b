"""Frame and sequence annotations, typed and checked (co3d/dataset/data_types.py:37-124)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size, floats
from datakit.errors import ConventionError, FormatError

Float = NDArray[np.float64]
Size = tuple[int, int]

FORMATS = ("ndc_isotropic", "ndc_norm_image_bounds")
#: What an absent format means (pytorch3d implicitron/dataset/types.py:73).
LEGACY_FORMAT = "ndc_norm_image_bounds"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_LONGEST_PATH = 512


@dataclass(frozen=True)
class Viewpoint:
    """A camera in PyTorch3D's terms, as stored; values may be anything that JSON holds, NaN included.

    Attributes:
        rotation: R (3, 3), for row vectors: X_cam = X_world R + T.
        translation: T (3,).
        focal: (2,) NDC.
        principal: (2,) NDC.
        format: One of FORMATS.
    """

    rotation: Float
    translation: Float
    focal: Float
    principal: Float
    format: str


@dataclass(frozen=True)
class FrameNote:
    """One frame annotation.

    Attributes:
        sequence: Sequence name.
        number: frame_number; not the number in the file name.
        timestamp: Seconds from the start of the video; NaN where absent.
        size: (W, H); stored height first.
        image: Path of the photo, relative to the dataset's root; likewise the others, None where absent.
        depth: Path of the depth map.
        depth_scale: scale_adjustment.
        depth_mask: Path of the depth map's mask.
        mask: Path of the foreground mask.
        viewpoint: Camera, None where absent.
        frame_type: meta.frame_type, "" where absent.
    """

    sequence: str
    number: int
    timestamp: float
    size: Size
    image: str
    depth: str | None
    depth_scale: float
    depth_mask: str | None
    mask: str | None
    viewpoint: Viewpoint | None
    frame_type: str


@dataclass(frozen=True)
class SequenceNote:
    """One sequence annotation; what the source leaves out is None."""

    sequence: str
    viewpoint_quality: float | None = None
    point_cloud_quality: float | None = None
    num_points: int | None = None
    video_path: str | None = None


def _object(value: Any, name: str, where: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise FormatError("Not an object.", where=f"{where}: {name}", found=type(value).__name__)
    return value


def _path(value: Any, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_PATH or not value.isprintable():
        raise FormatError("Not a path.", where=where, expected="text", found=repr(value)[:80])
    return value


def _real(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise FormatError("Not a number.", where=where, found=repr(value)[:80])
    try:
        return float(value)
    except OverflowError as err:
        raise FormatError("A number is too large.", where=where) from err


def _whole(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise FormatError("Not a count.", where=where, expected="an integer from 0", found=repr(value)[:80])
    return value


def sequence_name(value: Any, where: str) -> str:
    """Check a sequence name, which becomes a folder and a part of a scene's id.

    Raises:
        FormatError: Missing, or not of letters, digits, dots, dashes and underscores.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise FormatError(
            "Not a sequence name.",
            where=f"{where}: sequence_name",
            expected="110_13051_23361",
            found=repr(value)[:80],
        )
    return value


def parse_frame(item: dict[str, Any], where: str) -> FrameNote:
    """Check a frame annotation; unknown keys are ignored, as in the vectorised official loader.

    Raises:
        FormatError: A required field is missing or of another type.
        ConventionError: An unknown intrinsics format.
    """
    name = sequence_name(item.get("sequence_name"), where)
    number = _whole(item.get("frame_number"), f"{where}: {name}, frame_number")
    where = f"{where}: {name}, frame_number {number}"
    image = _object(item.get("image"), "image", where) or {}
    path = _path(image.get("path"), f"{where}, image.path")
    if path is None:
        raise FormatError("A frame has no image.", where=where, expected="image.path")
    depth = _object(item.get("depth"), "depth", where) or {}
    mask = _object(item.get("mask"), "mask", where) or {}
    meta = _object(item.get("meta"), "meta", where) or {}
    stamp = item.get("frame_timestamp")
    return FrameNote(
        sequence=name,
        number=number,
        timestamp=math.nan if stamp is None else _real(stamp, f"{where}, frame_timestamp"),
        size=_size(image.get("size"), f"{where}, image.size"),
        image=path,
        depth=_path(depth.get("path"), f"{where}, depth.path"),
        depth_scale=_depth_scale(depth.get("scale_adjustment"), f"{where}, depth.scale_adjustment"),
        depth_mask=_path(depth.get("mask_path"), f"{where}, depth.mask_path"),
        mask=_path(mask.get("path"), f"{where}, mask.path"),
        viewpoint=_viewpoint(_object(item.get("viewpoint"), "viewpoint", where), f"{where}, viewpoint"),
        frame_type=str(meta.get("frame_type") or "")[:40],
    )


def _size(value: Any, where: str) -> Size:
    """Turn [H, W] into (W, H)."""
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError("Not an image size.", where=where, expected="[H, W]", found=repr(value)[:80])
    height, width = (_whole(v, where) for v in value)
    return check_size(width, height, "An image", where)


def _depth_scale(value: Any, where: str) -> float:
    scale = 1.0 if value is None else _real(value, where)
    if not math.isfinite(scale) or scale <= 0:
        raise ConventionError("A depth scale is not positive.", where=where, expected="1.0", found=scale)
    return scale


def _viewpoint(value: dict[str, Any] | None, where: str) -> Viewpoint | None:
    if value is None:
        return None
    kind = value.get("intrinsics_format")
    kind = LEGACY_FORMAT if kind is None else str(kind)[:60]
    if kind.lower() not in FORMATS:
        raise ConventionError("Unknown intrinsics_format.", where=where, expected=FORMATS, found=kind)
    return Viewpoint(
        floats(value.get("R"), (3, 3), f"{where}.R"),
        floats(value.get("T"), (3,), f"{where}.T"),
        floats(value.get("focal_length"), (2,), f"{where}.focal_length"),
        floats(value.get("principal_point"), (2,), f"{where}.principal_point"),
        kind.lower(),
    )


def parse_sequence(item: dict[str, Any], where: str) -> SequenceNote:
    """Check a sequence annotation; video, point cloud and scores may be null.

    Raises:
        FormatError: A field is of another type.
    """
    name = sequence_name(item.get("sequence_name"), where)
    where = f"{where}: {name}"
    cloud = _object(item.get("point_cloud"), "point_cloud", where) or {}
    video = _object(item.get("video"), "video", where) or {}
    points = cloud.get("n_points")
    return SequenceNote(
        name,
        _score(item.get("viewpoint_quality_score"), f"{where}, viewpoint_quality_score"),
        _score(cloud.get("quality_score"), f"{where}, point_cloud.quality_score"),
        None if points is None else _whole(points, f"{where}, point_cloud.n_points"),
        _path(video.get("path"), f"{where}, video.path"),
    )


def _score(value: Any, where: str) -> float | None:
    if value is None:
        return None
    score = _real(value, where)
    return score if math.isfinite(score) else None
