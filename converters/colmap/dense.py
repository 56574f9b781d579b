"""COLMAP's dense depth maps: stereo/depth_maps/<image>.{geometric,photometric}.bin."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converters.native.files import inside
from datakit.errors import FormatError, LayoutError

_HEAD = re.compile(rb"(\d{1,9})&(\d{1,9})&(\d{1,9})&")
_HEAD_BYTES = 32


def depth_map_path(workspace: Path, image: str, kind: str) -> Path:
    """Name the depth map of an image, relative to the root."""
    return workspace / "stereo" / "depth_maps" / f"{image}.{kind}.bin"


def depth_map_size(root: Path, relative: Path) -> tuple[int, int]:
    """Read the (W, H) of a depth map and check it against the file's length.

    Raises:
        LayoutError: It cannot be read, or leaves the root.
        FormatError: Not a depth map, or truncated.
    """
    path = inside(root, relative)
    try:
        num_bytes = path.stat().st_size
        with open(path, "rb") as file:
            return _head(file.read(_HEAD_BYTES), num_bytes, str(path))[0]
    except OSError as error:
        raise LayoutError("A depth map cannot be read.", where=path, found=error.strerror) from error


def parse_depth_map(data: bytes, where: str) -> NDArray[np.float32]:
    """Decode a depth map: "W&H&1&" and W * H float32, row by row (colmap/mvs/mat.h).

    Args:
        data: The file.
        where: Its name, for errors.

    Returns:
        (H, W) float32, NaN where COLMAP has no depth (0) or none that is finite and positive.

    Raises:
        FormatError: Not a depth map, or truncated.
    """
    (width, height), start = _head(data, len(data), where)
    z_depth = np.frombuffer(data, "<f4", offset=start).reshape(height, width)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(z_depth) & (z_depth > 0), z_depth, np.nan).astype(np.float32)


def _head(data: bytes, num_bytes: int, where: str) -> tuple[tuple[int, int], int]:
    match = _HEAD.match(data[:_HEAD_BYTES])
    if match is None:
        raise FormatError(
            "Not a depth map of COLMAP.", where=where, expected="width&height&1&", found=bytes(data[:16])
        )
    width, height, channels = (int(text) for text in match.groups())
    expected = match.end() + 4 * width * height
    if channels != 1 or not width * height or num_bytes != expected:
        raise FormatError(
            "A depth map has the wrong length.",
            where=where,
            expected=f"{expected} bytes for {width}x{height}, one channel",
            found=f"{num_bytes} bytes, {channels} channels",
        )
    return (width, height), match.end()
