"""Writer of `.sens` files, from the layout in SensReader/c++/src/sensorData.h:1058-1109."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from datakit.worlds import World

from .write_common import DEPTH_SHIFT, Scan, calibration_text, scans

#: Of the first frame; the device's clock does not begin at 0.
_FIRST_MICROSECOND = 5_000_000
_LOST = np.full((4, 4), -np.inf)


@dataclass(frozen=True)
class SensFrame:
    """One record as it goes to the file. `camera_to_world` None is a frame where tracking was lost."""

    colour: bytes
    depth: bytes
    camera_to_world: ArrayLike | None
    timestamp: int = 0


@dataclass(frozen=True)
class SensHead:
    """What goes before the frames; the defaults are the release's."""

    intrinsic_color: ArrayLike
    intrinsic_depth: ArrayLike
    colour_size: tuple[int, int]
    depth_size: tuple[int, int]
    extrinsic_color: ArrayLike = field(default_factory=lambda: np.eye(4))
    extrinsic_depth: ArrayLike = field(default_factory=lambda: np.eye(4))
    colour_compression: int = 2
    depth_compression: int = 1
    depth_shift: float = DEPTH_SHIFT
    sensor: bytes = b"StructureSensor"
    version: int = 4


def write_sens(path: Path, head: SensHead, frames: Iterable[SensFrame], num_imu: int = 0) -> None:
    """Write a .sens file, frame by frame.

    Args:
        path: Where to.
        head: Calibration, sizes, compressions.
        frames: The records.
        num_imu: Records of the IMU block, all at rest.
    """
    with open(path, "wb") as file:
        file.write(struct.pack("<IQ", head.version, len(head.sensor)) + head.sensor)
        matrices = (head.intrinsic_color, head.extrinsic_color, head.intrinsic_depth, head.extrinsic_depth)
        file.write(b"".join(np.asarray(matrix, "<f4").tobytes() for matrix in matrices))
        file.write(struct.pack("<ii", head.colour_compression, head.depth_compression))
        file.write(struct.pack("<IIIIf", *head.colour_size, *head.depth_size, head.depth_shift))
        count_at, count = file.tell(), 0
        file.write(struct.pack("<Q", 0))
        for frame in frames:
            file.write(record(frame))
            count += 1
        file.write(struct.pack("<Q", num_imu))
        for k in range(num_imu):
            file.write(struct.pack("<15dQ", *(0.0,) * 12, 0.0, 0.0, -9.81, _FIRST_MICROSECOND + k))
        file.seek(count_at)
        file.write(struct.pack("<Q", count))


def record(frame: SensFrame) -> bytes:
    """Lay out one frame record."""
    pose = _LOST if frame.camera_to_world is None else frame.camera_to_world
    head = np.asarray(pose, "<f4").tobytes()
    # The release's converter writes one time stamp for both (Converter/main.cpp:124-133).
    sizes = struct.pack("<QQQQ", frame.timestamp, frame.timestamp, len(frame.colour), len(frame.depth))
    return head + sizes + frame.colour + frame.depth


def scan_head(scan: Scan) -> SensHead:
    """Fill the head of a recorded world."""
    return SensHead(scan.intrinsic_color, scan.intrinsic_depth, scan.colour_size, scan.depth_size)


def scan_frames(scan: Scan) -> Iterator[SensFrame]:
    """Compress the frames of a recorded world, one after the other."""
    for shot, time in zip(scan.shots(), scan.world.times, strict=True):
        yield SensFrame(
            shot.jpeg,
            zlib.compress(shot.depth.astype("<u2").tobytes()),
            shot.camera_to_world,
            _FIRST_MICROSECOND + round(1e6 * time),
        )


def write_sens_tree(worlds: Iterable[World], out: Path) -> None:
    """Write scans/<id>/<id>.sens and <id>.txt per world, with two IMU records a frame.

    Raises:
        ConventionError: See `write_common.scans`.
    """
    for scan in scans(worlds):
        folder = out / "scans" / scan.name
        folder.mkdir(parents=True, exist_ok=True)
        num_frames = scan.world.num_frames
        write_sens(folder / f"{scan.name}.sens", scan_head(scan), scan_frames(scan), num_imu=2 * num_frames)
        text = calibration_text(scan, num_frames)
        (folder / f"{scan.name}.txt").write_bytes(text.encode("ascii"))
