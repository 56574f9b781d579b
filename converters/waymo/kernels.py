"""Kernels of the Waymo reader. Imported where they are called: see `datakit.motion.compiled`."""

from __future__ import annotations

import numpy as np
from numba import float64, int64

from datakit.motion.compiled import array, helper, kernel

_MAX_BYTES = 10


@kernel((array(np.uint8, 1),))
def read_varints(data):
    """Read protobuf varints (B,) as int32; bits past the 32nd are dropped, as the runtime drops them.

    Returns:
        (B,) int32 with the values in front, and their number; -1 where a varint does not end within ten bytes.
    """
    out = np.empty(len(data), np.int32)
    count, at = 0, 0
    while at < len(data):
        byte = data[at]
        at += 1
        if byte < 128:  # most are: camera 0, or none
            out[count] = byte
            count += 1
            continue
        value, shift, ended = int64(byte & 127), 7, False
        while at < len(data) and shift < 7 * _MAX_BYTES:
            byte = data[at]
            at += 1
            if shift < 63:
                value |= int64(byte & 127) << shift
            shift += 7
            if byte < 128:
                ended = True
                break
        if not ended:
            return out, -1
        out[count] = np.int32(value & 0xFFFFFFFF)
        count += 1
    return out, count


@helper
def _has_nearer(z, limit, top, bottom, left, right):
    """Whether a depth below a limit is in rows top..bottom and columns left..right of (H, W); NaN is none."""
    for row in range(max(top, 0), min(bottom + 1, z.shape[0])):
        for col in range(max(left, 0), min(right + 1, z.shape[1])):
            if z[row, col] < limit:
                return True
    return False


@kernel((array(np.float32, 2), array(np.int64, 1, "A"), array(np.int64, 1, "A"), int64, int64, float64))
def find_shadowed(z, rows, cols, across, down, step):
    """Find points of sparse depth (H, W) with a nearer one on both sides; see `assemble.shadowed`.

    Args:
        z: NaN where there is no point.
        rows: (N,) pixels of the points.
        cols: (N,) likewise.
        across: Pixels to the left and right that are looked at.
        down: Pixels above and below.
        step: Share of a point's depth by which others must be nearer.

    Returns:
        (N,) bool.
    """
    out = np.empty(len(rows), np.bool_)
    # Points of a row lie half a spacing aside of those of the next, so a column is looked for with some width; no
    # more, for on a slanted surface all that is beside a point on one side is nearer.
    wide, tall = across // 4, down // 4  # what is looked at is two spacings
    for n in range(len(rows)):
        row, col = rows[n], cols[n]
        limit = z[row, col] * (1 - step)
        out[n] = (
            _has_nearer(z, limit, row - down, row - 1, col - wide, col + wide)
            and _has_nearer(z, limit, row + 1, row + down, col - wide, col + wide)
        ) or (
            _has_nearer(z, limit, row - tall, row + tall, col - across, col - 1)
            and _has_nearer(z, limit, row - tall, row + tall, col + 1, col + across)
        )
    return out
