"""The small text files of a scan: matrices, and `key = value` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.native.files import read_source
from datakit.errors import FormatError
from datakit.scene.records import SourceFile

#: No text file of a scan comes near this.
MAX_TEXT = 1 << 20


def read_text(root: Path, relative: Path, sources: list[SourceFile]) -> str:
    """Read a native text file and add it to the sources.

    Raises:
        LayoutError: It is missing or outside the root.
        FormatError: It is no text, or far too long for one.
    """
    path = root / relative
    if path.is_file() and path.stat().st_size > MAX_TEXT:
        raise FormatError(
            "A text file is too long.", where=path, expected=f"<= {MAX_TEXT} bytes", found=path.stat().st_size
        )
    data = read_source(root, relative, sources)
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise FormatError("Not a text file.", where=path, expected="ASCII", found=error) from error


def parse_matrix(text: str, where: str) -> NDArray[np.float64]:
    """Read 16 numbers, row by row; "-inf" and "nan" are numbers.

    Raises:
        FormatError: Other than 16 numbers.
    """
    words = text.split()
    try:
        if len(words) != 16:
            raise ValueError(f"{len(words)} words")
        return np.array([float(word) for word in words]).reshape(4, 4)
    except ValueError as error:
        raise FormatError("Not a 4x4 matrix.", where=where, expected="16 numbers", found=error) from error


def parse_pairs(text: str) -> dict[str, str]:
    """Read `key = value` lines; CRLF ends and trailing blanks (both are in the release) do not matter."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def scan_metadata(root: Path, relative: Path, sources: list[SourceFile]) -> dict[str, Any]:
    """Read what is worth keeping of `<id>.txt`, which may be absent.

    Its calibration is of the raw sensor (ScanNet issue 92): all of it is left out, so that nobody takes it for the
    scene's. `axisAlignment` is absent in v1 files and for some test scans.

    Returns:
        "axis_alignment" (4x4 rows, p_aligned = A p), "scene_type", "num_color_frames" ...: those that are there.

    Raises:
        FormatError: axisAlignment is not a matrix.
    """
    if not (root / relative).is_file():
        return {}
    pairs = parse_pairs(read_text(root, relative, sources))
    out: dict[str, Any] = {}
    if "axisAlignment" in pairs:
        matrix = parse_matrix(pairs["axisAlignment"], f"{root / relative}: axisAlignment")
        if not np.isfinite(matrix).all():
            raise FormatError(
                "A matrix is not finite.", where=f"{root / relative}: axisAlignment", found=matrix.tolist()
            )
        out["axis_alignment"] = matrix.tolist()
    if "sceneType" in pairs:
        out["scene_type"] = pairs["sceneType"]
    for key, name in _COUNTS.items():
        # No scan has as many; and Python refuses numbers of some thousand digits.
        if pairs.get(key, "").isdecimal() and len(pairs[key]) < 10:
            out[name] = int(pairs[key])
    return out


_COUNTS = {
    "numColorFrames": "num_color_frames",
    "numDepthFrames": "num_depth_frames",
    "numIMUmeasurements": "num_imu_measurements",
}
