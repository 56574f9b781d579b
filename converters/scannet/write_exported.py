"""Writers of the exported layouts: SensReader's Python and C++ tools, and scannet_frames_25k."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from datakit.scene import encode_png
from datakit.worlds import World

from .exported import INFO
from .write_common import DEPTH_SHIFT, Float, Scan, calibration_text, scans

#: scannet_frames_25k keeps roughly every hundredth frame (BenchmarkScripts/README.md:16).
_STRIDE_25K = 100


def write_python_export(worlds: Iterable[World], out: Path) -> None:
    """Write what SensReader/python exports, files not padded, matrices with six decimals (SensorData.py:78-125).

    Raises:
        ConventionError: See `write_common.scans`.
    """
    for scan in scans(worlds):
        folder = out / "scans" / scan.name
        _write_folders(scan, folder, "{:d}", 1)
        (folder / "intrinsic").mkdir()
        for part, matrix in (("color", scan.intrinsic_color), ("depth", scan.intrinsic_depth)):
            (folder / "intrinsic" / f"intrinsic_{part}.txt").write_text(_decimals(matrix))
            (folder / "intrinsic" / f"extrinsic_{part}.txt").write_text(_decimals(np.eye(4)))
        text = calibration_text(scan, scan.world.num_frames)
        (folder / f"{scan.name}.txt").write_bytes(text.encode("ascii"))


def write_frames_25k(worlds: Iterable[World], out: Path) -> None:
    """Write scannet_frames_25k: padded names of every hundredth frame, matrices beside the folders.

    Raises:
        ConventionError: See `write_common.scans`.
    """
    for scan in scans(worlds):
        folder = out / "scannet_frames_25k" / scan.name
        _write_folders(scan, folder, "{:06d}", _STRIDE_25K, ("instance", "label"))
        for part, matrix in (("color", scan.intrinsic_color), ("depth", scan.intrinsic_depth)):
            (folder / f"intrinsics_{part}.txt").write_text(_decimals(matrix))


def _write_folders(scan: Scan, folder: Path, name: str, stride: int, labels: tuple[str, ...] = ()) -> None:
    for part in ("color", "depth", "pose", *labels):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for t, shot in enumerate(scan.shots()):
        stem = name.format(t * stride)
        (folder / "color" / f"{stem}.jpg").write_bytes(shot.jpeg)
        (folder / "depth" / f"{stem}.png").write_bytes(encode_png(shot.depth))
        (folder / "pose" / f"{stem}.txt").write_text(_decimals(shot.camera_to_world))
        for part in labels:
            (folder / part / f"{stem}.png").write_bytes(encode_png(shot.instances))


def _decimals(matrix: Float) -> str:
    return "".join(" ".join(f"{value:f}" for value in row) + "\n" for row in matrix)


def write_cpp_export(worlds: Iterable[World], out: Path) -> None:
    """Write what SensReader/c++ exports: flat files, big-endian PGM, six significant digits (sensorData.h:1342-1470).

    Raises:
        ConventionError: See `write_common.scans`.
    """
    for scan in scans(worlds):
        folder = out / scan.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INFO).write_text(_info(scan))
        for t, shot in enumerate(scan.shots()):
            stem = f"frame-{t:06d}"
            (folder / f"{stem}.color.jpg").write_bytes(shot.jpeg)
            (folder / f"{stem}.depth.pgm").write_bytes(_pgm(shot.depth))
            rows = "".join(_digits(row) + "\n" for row in shot.camera_to_world)
            (folder / f"{stem}.pose.txt").write_text(rows)


def _pgm(codes: np.ndarray) -> bytes:
    height, width = codes.shape
    comment = f"# data values are 16-bit each; depth shift is {DEPTH_SHIFT:g}"
    return f"P5\n{comment}\n{width} {height}\n65535\n".encode() + codes.astype(">u2").tobytes()


def _digits(values: np.ndarray) -> str:
    # A C++ stream's default precision.
    return " ".join(f"{value:g}" for value in values)


def _info(scan: Scan) -> str:
    pairs = {
        "m_versionNumber": 4,
        "m_sensorName": "StructureSensor",
        "m_colorWidth": scan.colour_size[0],
        "m_colorHeight": scan.colour_size[1],
        "m_depthWidth": scan.depth_size[0],
        "m_depthHeight": scan.depth_size[1],
        "m_depthShift": f"{DEPTH_SHIFT:g}",
        "m_calibrationColorIntrinsic": _digits(scan.intrinsic_color.ravel()) + " ",
        "m_calibrationColorExtrinsic": _digits(np.eye(4).ravel()) + " ",
        "m_calibrationDepthIntrinsic": _digits(scan.intrinsic_depth.ravel()) + " ",
        "m_calibrationDepthExtrinsic": _digits(np.eye(4).ravel()) + " ",
        "m_frames.size": scan.world.num_frames,
    }
    return "".join(f"{key} = {value}\n" for key, value in pairs.items())
