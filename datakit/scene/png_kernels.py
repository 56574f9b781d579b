"""Kernels of PNG. Imported where they are called: see `datakit.motion.compiled`."""

from __future__ import annotations

import numpy as np
from numba import int32, int64, uint8

from datakit.motion.compiled import array, helper, kernel


@helper
def _paeth(left, up, corner):
    """Return the neighbour nearest to left + up - corner (PNG specification, 9.4), without a branch to mispredict."""
    from_left, from_up = up - corner, left - corner
    from_corner = abs(from_left + from_up)
    from_left, from_up = abs(from_left), abs(from_up)
    other = up if from_up <= from_corner else corner
    return left if from_left <= min(from_up, from_corner) else other


@helper
def _unpaeth_pairs(line, above, row):
    """Undo Paeth's filter where pixels have two bytes: what each next one waits for stays in registers."""
    left_0, left_1, corner_0, corner_1 = int32(0), int32(0), int32(0), int32(0)
    for x in range(0, len(row), 2):
        up_0, up_1 = int32(above[x]), int32(above[x + 1])
        left_0 = (int32(line[x]) + _paeth(left_0, up_0, corner_0)) & 255
        left_1 = (int32(line[x + 1]) + _paeth(left_1, up_1, corner_1)) & 255
        corner_0, corner_1 = up_0, up_1
        row[x], row[x + 1] = left_0, left_1


@kernel((array(np.uint8, 1), int64, int64, int64))
def unfilter(lines, height, row_bytes, step):
    """Undo the filters of an image's lines (PNG specification, 9.2).

    Args:
        lines: (height * (1 + row_bytes),) uint8, each line behind the number of its filter.
        height: Lines.
        row_bytes: Bytes of a line.
        step: Bytes of a pixel.

    Returns:
        (height, row_bytes) uint8; and the first line whose filter is none of the five, -1 if there is none.
    """
    out = np.empty((height, row_bytes), np.uint8)
    above = np.zeros(row_bytes, np.uint8)
    for y in range(height):
        start = y * (1 + row_bytes)
        kind, line, row = lines[start], lines[start + 1 : start + 1 + row_bytes], out[y]
        if kind == 0:
            row[:] = line
        elif kind == 1:
            row[:step] = line[:step]
            for x in range(step, row_bytes):
                row[x] = line[x] + row[x - step]
        elif kind == 2:
            for x in range(row_bytes):
                row[x] = line[x] + above[x]
        elif kind == 3:
            for x in range(step):
                row[x] = line[x] + (above[x] >> uint8(1))
            for x in range(step, row_bytes):
                row[x] = line[x] + ((int64(row[x - step]) + int64(above[x])) >> 1)
        elif kind == 4 and step == 2:
            _unpaeth_pairs(line, above, row)
        elif kind == 4:
            for x in range(step):
                row[x] = line[x] + above[x]
            for x in range(step, row_bytes):
                row[x] = line[x] + _paeth(int32(row[x - step]), int32(above[x]), int32(above[x - step]))
        else:
            return out, y
        above = row
    return out, -1
