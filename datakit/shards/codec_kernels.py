"""Kernels of the shards' codecs. Imported where they are called: see `datakit.motion.compiled`."""

from __future__ import annotations

import numpy as np
from numba import float32, uint16, uint64

from datakit.motion.compiled import array, kernel


@kernel((array(np.uint16, 1), array(np.uint16, 1), float32, uint16))
def unfold_octahedron(x_codes, y_codes, step, unknown):
    """Turn codes (N,) of both coordinates, -1 plus so many steps, into (N, 3) float32 unit vectors, NaN unknown."""
    out = np.empty((len(x_codes), 3), np.float32)
    one, none = float32(1), float32(0)
    for n in range(len(x_codes)):
        x, y = float32(x_codes[n]) * step - one, float32(y_codes[n]) * step - one
        z = one - abs(x) - abs(y)
        fold = max(-z, none)
        x, y = x - np.copysign(fold, x), y - np.copysign(fold, y)
        length = np.sqrt(x * x + y * y + z * z)
        if x_codes[n] == unknown and y_codes[n] == unknown:
            length = float32(np.nan)
        out[n, 0], out[n, 1], out[n, 2] = x / length, y / length, z / length
    return out


@kernel((array(np.uint16, 1), array(np.float64, 1), array(np.float64, 1)))
def multiply_factors(codes, coarse, fine):
    """Turn codes (N,) into float32 values: of coarse (256,) by the upper byte times fine (256,) by the lower one.

    Code 0 is unknown: NaN.
    """
    out = np.empty(len(codes), np.float32)
    for n in range(len(codes)):
        code = uint64(codes[n])
        value = coarse[code >> uint64(8)] * fine[code & uint64(255)]
        out[n] = value if code > 0 else np.nan
    return out
