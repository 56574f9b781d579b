"""Sums along the rows of rasters, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint16, uint64
from numpy.typing import NDArray

from datakit.motion.compiled import array, kernel, prefetch

_INDEX = array(np.int64, 1)
#: So many windows before it is summed up a window's memory is asked for.
AHEAD = 16


@kernel(uint16[:, :, :, ::1](array(np.uint16, 4), _INDEX, _INDEX, _INDEX, int64, int64))
def sum_windows(
    differences: Any, frame: Any, top: Any, left: Any, size: Any, restart: Any
) -> NDArray[np.uint16]:
    """Cut windows of codes out of rasters that are stored as differences; beyond the border the edge repeats.

    Args:
        differences: (T, P, H, W) uint16. The code of a pixel is the sum, modulo 2^16, of its row from the last multiple
            of `restart` up to it.
        frame: (N,) int64; not checked.
        top: (N,) int64 first row of each window.
        left: (N,) int64 first column.
        size: Pixels of a window's side.
        restart: Columns after which sums begin anew, a power of two.

    Returns:
        (P, N, size, size) uint16.
    """
    planes, height, width = differences.shape[1:]
    count = len(frame)
    out = np.empty((planes, count, size, size), np.uint16)
    for plane in range(planes):
        for n in range(count):
            later = min(n + AHEAD, count - 1)
            for i in range(size):
                line = (frame[later] * planes + plane) * height + top[later] + i
                prefetch(differences, line * width + left[later])
            for i in range(size):
                row = min(max(top[n] + i, 0), height - 1)
                line = differences[uint64(frame[n]), uint64(plane), uint64(row)]
                total, last = uint16(0), min(max(left[n], 0), width - 1)
                for x in range(last - (last & (restart - 1)), last + 1):
                    total = uint16(total + line[uint64(x)])
                out[plane, n, i, 0] = total
                for j in range(1, size):
                    x = left[n] + j
                    if 0 < x < width:
                        total = uint16(line[uint64(x)] + (total if x & (restart - 1) else uint16(0)))
                    out[plane, n, i, j] = total
    return out
