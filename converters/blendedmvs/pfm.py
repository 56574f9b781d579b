"""Portable float maps, as BlendedMVS stores depth."""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from converters.native.files import check_size
from datakit.errors import FormatError

#: One white space after each of the first three words, a line end after the scale (what all readers agree on).
_HEADER = re.compile(
    rb"Pf\s(\d{1,6})\s(\d{1,6})\s([-+]?[0-9][0-9.eE+-]{0,30}|[-+]?\.[0-9][0-9eE+-]{0,30})\s*?\n"
)
_LONGEST_HEADER = 128


def parse_pfm(data: bytes, where: str) -> NDArray[np.float32]:
    """Decode a one-channel PFM (mvsnet/preprocess.py:175-205).

    A negative scale means little endian, a positive one big endian; its magnitude is not applied. Rows are stored
    from the bottom.

    Args:
        data: The file.
        where: Its name, for errors.

    Returns:
        (H, W) float32 in native byte order, top row first, values as stored.

    Raises:
        FormatError: No such header, a size no photo has, or data longer or shorter than it says.
    """
    match = _HEADER.match(data[:_LONGEST_HEADER])
    scale = _scale(match[3]) if match else 0.0
    if match is None or scale == 0 or not math.isfinite(scale):
        raise FormatError(
            "Not a one-channel PFM.",
            where=where,
            expected="Pf, width, height, scale",
            found=bytes(data[:40]),
        )
    width, height = check_size(int(match[1]), int(match[2]), "A PFM", where)
    if len(data) != match.end() + 4 * width * height:
        raise FormatError(
            "PFM is truncated or has bytes too many.",
            where=where,
            expected=f"{match.end() + 4 * width * height} bytes for {width}x{height}",
            found=f"{len(data)} bytes",
            mend="Download or unpack the scene again.",
        )
    stored = np.frombuffer(data, "<f4" if scale < 0 else ">f4", offset=match.end())
    return np.ascontiguousarray(stored.reshape(height, width)[::-1], dtype=np.float32)


def _scale(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def z_from_pfm(stored: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return z depth, NaN where the map has 0 (no surface), a negative or a value that is not finite."""
    return np.where(np.isfinite(stored) & (stored > 0), stored, np.float32(np.nan))
