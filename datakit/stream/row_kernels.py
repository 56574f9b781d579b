"""Sums along the rows of rasters, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint16
from numpy.typing import NDArray

from datakit.motion.compiled import array, kernel

_INDEX = array(np.int64, 1)


@kernel(uint16[:, ::1](array(np.uint16, 4), _INDEX, _INDEX, _INDEX))
def sum_rows(differences: Any, frame: Any, row: Any, col: Any) -> NDArray[np.uint16]:
    """Sum rows up to pixels.

    Args:
        differences: (T, P, H, W) uint16.
        frame: (N,) int64; negative indices are not understood, none is checked.
        row: (N,) int64.
        col: (N,) int64, the last column that is added.

    Returns:
        (P, N) uint16, modulo 2^16.
    """
    planes, count = differences.shape[1], len(frame)
    out = np.empty((planes, count), np.uint16)
    for plane in range(planes):
        for n in range(count):
            line = differences[frame[n], plane, row[n]]
            total = 0
            for x in range(col[n] + 1):
                total += line[x]
            out[plane, n] = total
    return out
