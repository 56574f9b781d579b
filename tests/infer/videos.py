"""Small videos made here, and edits of their MP4 boxes that OpenCV's writer cannot make itself."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_FIXED = 1 << 16


def picture(number: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """A frame whose number can be read from its left half's grey; the top right quarter is red."""
    width, height = size
    rgb = np.full((height, width, 3), 40 + 12 * number, np.uint8)
    rgb[: height // 2, width // 2 :] = (230, 20, 20)
    return rgb


def read_number(rgb: NDArray[np.uint8]) -> int:
    """Inverse of `picture`, after lossy coding."""
    height, width = rgb.shape[:2]
    return round((float(rgb[height // 2 + 4 :, 4 : width // 2 - 4].mean()) - 40) / 12)


def write_video(
    path: Path, num_frames: int = 12, fps: float = 10.0, size: tuple[int, int] = (64, 48)
) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for number in range(num_frames):
        writer.write(cv2.cvtColor(picture(number, size), cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def rotate_in_header(path: Path) -> None:
    """Ask players to turn the picture by 90 degrees clockwise: the track's matrix ends 8 bytes before tkhd does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes stand before the matrix
    data[at : at + 36] = struct.pack(">9i", 0, _FIXED, 0, -_FIXED, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def vary_rate(path: Path, deltas: Sequence[int]) -> None:
    """Give each frame a duration of its own, in ticks, by a longer stts box; sizes of its parents grow with it.

    The movie's boxes must come after the data, as OpenCV writes them, or chunk offsets would be wrong.
    """
    data = bytearray(path.read_bytes())
    at = data.index(b"stts") - 4
    assert data.index(b"mdat") < at
    (size,) = struct.unpack_from(">I", data, at)
    rows = b"".join(struct.pack(">II", 1, delta) for delta in deltas)
    box = struct.pack(">I4sII", 16 + len(rows), b"stts", 0, len(deltas)) + rows
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        where = data.index(parent) - 4
        (before,) = struct.unpack_from(">I", data, where)
        struct.pack_into(">I", data, where, before + len(box) - size)
    data[at : at + size] = box
    path.write_bytes(data)
