"""Point clouds as binary PLY."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .cloud import FramePoints
from .files import atomic_file

#: One vertex as it lies in the file: no padding, little-endian.
VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
        ("frame", "<i4"),
        ("moving", "u1"),
    ]
)
_PLY_TYPES = {"<f4": "float", "|u1": "uchar", "<i4": "int"}
_COUNT_WIDTH = 20


def write_ply(path: str | Path, points: Iterable[FramePoints]) -> int:
    """Write points as they come; memory is that of one frame.

    Properties: x, y, z (float, world), red, green, blue (uchar), confidence (float in [0, 1]), frame (int, of the
    view), moving (uchar, 0 where the point is static).

    Args:
        path: File to write; it appears when it is whole.
        points: Points of each frame.

    Returns:
        Number of points.
    """
    count = 0
    with atomic_file(path) as file:
        file.write(_header(0))
        for part in points:
            rows = np.zeros(len(part.xyz), VERTEX)
            for axis, name in enumerate("xyz"):
                rows[name] = part.xyz[:, axis]
            for channel, name in enumerate(("red", "green", "blue")):
                rows[name] = part.rgb[:, channel]
            rows["confidence"], rows["frame"], rows["moving"] = part.confidence, part.t, part.is_moving
            file.write(rows.tobytes())
            count += len(rows)
        file.seek(0)
        file.write(_header(count))
    return count


def _header(count: int) -> bytes:
    """Return the header; its length is the same for every count, so that it can be filled in at the end."""
    dtypes = {name: field[0].str for name, field in (VERTEX.fields or {}).items()}
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "comment points in the world frame of the scene",
        f"comment {'-' * (_COUNT_WIDTH - len(str(count)))}",
        f"element vertex {count}",
        *(f"property {_PLY_TYPES[dtypes[name]]} {name}" for name in VERTEX.names or ()),
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")
