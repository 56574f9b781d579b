"""Kernels that read surfaces from small windows of rasters. Imported where they are called: see `compiled`.

A window is 4 x 4 pixels, clamped to the raster; its middle are the 2 x 2 pixel centres around a position. Arguments
that kernels share: `top`, `left`, `share`, `row`, `col`, `is_inside` are those of `sampling.Quad`; `z` (N, 4, 4)
float32 depth, NaN unknown; `labels` (N, 2, 2) uint32 of the middle; `height`, `width` of the raster.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, uint64

from .compiled import array, helper, kernel, prefetch

#: Neighbouring pixels whose depths differ by more than this share lie on different surfaces. Kubric's own track
#: code uses the same 5 % step (challenges/point_tracking/dataset.py, snap_to_occluder).
DEPTH_STEP = 0.05
#: How much a step of 1/z may differ from the one beside it on one surface, as a share of the step.
LINEARITY = 0.25
#: Largest change of 1/z over a pixel that is still followed as the slope of a surface, as a share of it.
STEEPEST = 0.3
#: Depths around a point that differ by more than this share are no one surface, where single points are known.
SPARSE_SURFACE = 0.25
#: How far points around a place may be from it, in units of their usual distance from each other there.
SPARSE_REACH = 1.5
#: So many windows before it is read a window's memory is asked for.
AHEAD = 16
#: What `compare` finds; `visibility` gives each its state and reason.
SEEN, BEHIND, AT_EDGE, BEHIND_OTHER, IN_FRONT, NO_DEPTH = range(6)

_INDEX, _REAL, _FLAG = array(np.int64, 1), array(np.float64, 1), array(np.bool_, 1)
_QUAD = (_INDEX, _INDEX, array(np.float64, 2), _INDEX, _INDEX, _FLAG)
_WINDOWS = (array(np.float32, 3), array(np.uint32, 3))
#: What can be cut in place.
DTYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "uint32", "float32"))
_RASTERS = [array(dtype, 3, "A") for dtype in DTYPES]


@kernel((array(np.float64, 2), int64, int64))
def locate(uv_px, height, width):
    """Find the 2 x 2 pixel centres around positions (N, 2), and the pixels that contain them.

    Returns:
        top, left, share, row, col, is_inside.
    """
    count = len(uv_px)
    top, left = np.empty(count, np.int64), np.empty(count, np.int64)
    row, col = np.empty(count, np.int64), np.empty(count, np.int64)
    share, is_inside = np.empty((count, 2)), np.empty(count, np.bool_)
    for n in range(count):
        u, v = uv_px[n, 0], uv_px[n, 1]
        is_inside[n] = u >= 0 and u <= width and v >= 0 and v <= height
        if not is_inside[n]:
            u = v = 0.5
        left[n], top[n] = np.floor(u - 0.5), np.floor(v - 0.5)
        share[n, 0], share[n, 1] = u - 0.5 - left[n], v - 0.5 - top[n]
        col[n], row[n] = min(int64(np.floor(u)), width - 1), min(int64(np.floor(v)), height - 1)
    return top, left, share, row, col, is_inside


@helper
def _cut(raster, frame, top, left, size):
    height, width = raster.shape[1:]
    out = np.empty((len(frame), size, size), raster.dtype)
    for n in range(len(frame)):
        later = min(n + AHEAD, len(frame) - 1)
        for i in range(size):
            prefetch(raster, ((frame[later] * height + top[later] + i) * width + left[later]))
        if 0 <= top[n] <= height - size and 0 <= left[n] <= width - size:
            # Few instructions a window: reads of many windows wait for memory at the same time. (Unsigned indices
            # need no test for being counted from the end.)
            image = raster[uint64(frame[n])]
            for i in range(size):
                line = image[uint64(top[n] + i)]
                for j in range(size):
                    out[n, i, j] = line[uint64(left[n] + j)]
        else:
            for i in range(size):
                line = raster[frame[n], min(max(top[n] + i, 0), height - 1)]
                for j in range(size):
                    out[n, i, j] = line[min(max(left[n] + j, 0), width - 1)]
    return out


@kernel(*((raster, _INDEX, _INDEX, _INDEX) for raster in _RASTERS))
def cut_2x2(raster, frame, top, left):
    """Copy (N, 2, 2) windows of a (T, H, W) raster; beyond the border the edge repeats."""
    return _cut(raster, frame, top, left, 2)


@kernel(*((raster, _INDEX, _INDEX, _INDEX) for raster in _RASTERS))
def cut_4x4(raster, frame, top, left):
    """Copy (N, 4, 4) windows of a (T, H, W) raster; beyond the border the edge repeats."""
    return _cut(raster, frame, top, left, 4)


@kernel(*((raster, _INDEX, _INDEX, _INDEX, int64) for raster in _RASTERS))
def cut_any(raster, frame, top, left, size):
    """Copy (N, size, size) windows of a (T, H, W) raster; beyond the border the edge repeats."""
    return _cut(raster, frame, top, left, size)


@helper
def _is_step_free(a, b, c, d):
    """Judge the middle step of four values of 1/z along a line; the outer two may be unknown."""
    step = abs(c - b)
    if step <= DEPTH_STEP * min(b, c):
        return True
    before, after = abs(c - b - (b - a)), abs(c - b - (d - c))
    return before <= LINEARITY * step or after <= LINEARITY * step


@helper
def _is_one_surface(z, labels):
    """Tell whether the middle of a window is one surface; see `sampling.is_one_surface`."""
    low = high = z[1, 1]
    for i in (1, 2):
        for j in (1, 2):
            if not np.isfinite(z[i, j]) or labels[i - 1, j - 1] != labels[0, 0]:
                return False
            low, high = min(low, z[i, j]), max(high, z[i, j])
    if high <= (1 + DEPTH_STEP) * low:
        return True
    inverse = 1 / z.astype(np.float64)
    for i in (1, 2):
        if not _is_step_free(inverse[i, 0], inverse[i, 1], inverse[i, 2], inverse[i, 3]):
            return False
        if not _is_step_free(inverse[0, i], inverse[1, i], inverse[2, i], inverse[3, i]):
            return False
    return True


@helper
def _blend(z, u, v):
    """Interpolate 1/z in the middle of a window; also give the spread of its four depths."""
    a, b, c, d = (np.float64(z[1, 1]), np.float64(z[1, 2]), np.float64(z[2, 1]), np.float64(z[2, 2]))
    inverse = (1 - v) * ((1 - u) / a + u / b) + v * ((1 - u) / c + u / d)
    return 1 / inverse, max(a, b, c, d) - min(a, b, c, d)


@helper
def _slope(before, here, after):
    """Change of 1/z over a pixel, from the flatter side and so not across edges; 0 where it is not known."""
    forward, backward = after - here, here - before
    flatter = forward if abs(forward) <= abs(backward) or np.isnan(backward) else backward
    return flatter if abs(flatter) <= STEEPEST * here else 0.0


@helper
def _extend(z, i, j, u, v, has_above, has_below, has_left, has_right):
    """Extend the plane of pixel (i, j) of a window by (u, v) pixels; also give its change of depth over a pixel."""
    here = 1 / np.float64(z[i, j])
    above = 1 / np.float64(z[i - 1, j]) if has_above else np.nan
    below = 1 / np.float64(z[i + 1, j]) if has_below else np.nan
    left = 1 / np.float64(z[i, j - 1]) if has_left else np.nan
    right = 1 / np.float64(z[i, j + 1]) if has_right else np.nan
    across, down = _slope(left, here, right), _slope(above, here, below)
    return 1 / (here + across * u + down * v), (abs(across) + abs(down)) / here**2


@helper
def _read(z, smooth, top, left, share, row, col, height, width):
    """Depth at a position, and how much it changes over a pixel there."""
    if smooth:
        return _blend(z, share[0], share[1])
    i, j = row - top, col - left
    u, v = share[0] - j, share[1] - i
    return _extend(z, i + 1, j + 1, u, v, row > 0, row < height - 1, col > 0, col < width - 1)


@kernel((*_QUAD, *_WINDOWS))
def find_smooth(top, left, share, row, col, is_inside, z, labels):
    """Tell which windows' middles are one surface (N,)."""
    smooth = np.empty(len(top), np.bool_)
    for n in range(len(top)):
        smooth[n] = is_inside[n] and _is_one_surface(z[n], labels[n])
    return smooth


@kernel((*_QUAD, array(np.float32, 3), _FLAG, int64, int64))
def read_depth(top, left, share, row, col, is_inside, z, smooth, height, width):
    """Read depth (N,) and its change over a pixel (N,); see `sampling.sample_z`."""
    out, change = np.full(len(top), np.nan), np.zeros(len(top))
    for n in range(len(top)):
        if is_inside[n]:
            out[n], change[n] = _read(
                z[n], smooth[n], top[n], left[n], share[n], row[n], col[n], height, width
            )
    return out, change


@kernel((_INDEX, _INDEX, array(np.float64, 2), _INDEX, _INDEX, _FLAG, array(np.float32, 4), _FLAG))
def read_vectors(top, left, share, row, col, is_inside, values, smooth):
    """Read (N, C) vectors from (N, 2, 2, C) windows; see `sampling.sample_vectors`."""
    out = np.full((len(top), values.shape[3]), np.nan)
    for n in range(len(top)):
        if smooth[n]:
            u, v = share[n, 0], share[n, 1]
            for c in range(values.shape[3]):
                upper = (1 - u) * np.float64(values[n, 0, 0, c]) + u * np.float64(values[n, 0, 1, c])
                lower = (1 - u) * np.float64(values[n, 1, 0, c]) + u * np.float64(values[n, 1, 1, c])
                out[n, c] = (1 - v) * upper + v * lower
        elif is_inside[n]:
            for c in range(values.shape[3]):
                out[n, c] = values[n, row[n] - top[n], col[n] - left[n], c]
    return out


@kernel((*_QUAD, *_WINDOWS, _REAL, array(np.uint32, 1), float64, int64, int64))
def compare(top, left, share, row, col, is_inside, z, labels, z_point, label, tolerance, height, width):
    """Compare points with the surfaces seen where they project; see `visibility.depth_test`.

    Returns:
        (N,) uint8: SEEN, BEHIND, ...
    """
    out = np.empty(len(top), np.uint8)
    for n in range(len(top)):
        smooth = is_inside[n] and _is_one_surface(z[n], labels[n])
        seen, change = np.nan, 0.0
        if is_inside[n]:
            seen, change = _read(z[n], smooth, top[n], left[n], share[n], row[n], col[n], height, width)
        margin = tolerance * z_point[n] + change / 4
        # At a depth edge the containing pixel may show the far side while the point lies on the near one.
        agrees, is_other = False, True
        for i in (1, 2):
            for j in (1, 2):
                agrees |= abs(z[n, i, j] - z_point[n]) <= margin
                is_other &= labels[n, i - 1, j - 1] != label[n]
        out[n] = SEEN
        if np.isnan(seen):
            out[n] = NO_DEPTH
        elif z_point[n] < seen - margin and not agrees:
            out[n] = IN_FRONT
        elif is_other:
            out[n] = BEHIND_OTHER
        elif z_point[n] > seen + margin:
            out[n] = AT_EDGE if agrees and not smooth else BEHIND
    return out


@kernel((*_QUAD, *_WINDOWS, _REAL, array(np.uint32, 1), float64, int64, int64))
def compare_sparse(
    top, left, share, row, col, is_inside, z, labels, z_point, label, tolerance, height, width
):
    """Compare points with the single depths known around where they project; see `visibility.depth_test`.

    Here windows may be of any even size S, with the 2 x 2 in their middle. A place is judged where the nearest known
    depths above left, above right, below left and below right of it are all near and of one surface.

    Returns:
        (N,) uint8: SEEN, BEHIND, ...; NO_DEPTH where nothing is told.
    """
    out = np.full(len(top), NO_DEPTH, np.uint8)
    size = z.shape[1]
    middle = size // 2 - 1
    # By quarter around the place: the way to the nearest known depth, that depth and its label; and the least depth.
    way, z_near, label_near = np.empty(4), np.empty(4), np.empty(4, np.uint32)
    least, label_least = np.empty(4), np.empty(4, np.uint32)
    for n in range(len(top)):
        if not is_inside[n]:
            continue
        known, inside = 0, 0
        for i in range(size):
            for j in range(size):
                if 0 <= top[n] - middle + i < height and 0 <= left[n] - middle + j < width:
                    inside += 1
                    known += not np.isnan(z[n, i, j])
        if known == 0:
            continue
        # `inside / known` is the square of the points' usual distance.
        reach = SPARSE_REACH * SPARSE_REACH * inside / known
        way[:], least[:] = np.inf, np.inf
        for i in range(size):
            for j in range(size):
                down, right = i - middle - share[n, 1], j - middle - share[n, 0]
                square = down * down + right * right
                if square > reach or np.isnan(z[n, i, j]):
                    continue
                if not (0 <= top[n] - middle + i < height and 0 <= left[n] - middle + j < width):
                    continue
                quarter = 2 * int64(down > 0) + int64(right > 0)
                if square < way[quarter]:
                    way[quarter], z_near[quarter], label_near[quarter] = square, z[n, i, j], labels[n, i, j]
                if z[n, i, j] < least[quarter]:
                    least[quarter], label_least[quarter] = z[n, i, j], labels[n, i, j]
        if np.isinf(way.max()):
            continue
        low, high = z_near.min(), z_near.max()
        margin = tolerance * z_point[n] + high - low
        # Behind what is nearer on all sides, even where points of what is farther are seen between.
        before = least.max()
        if before <= (1 + SPARSE_SURFACE) * least.min() and z_point[n] > (1 + SPARSE_SURFACE) * before:
            out[n] = BEHIND if (label_least == label[n]).any() else BEHIND_OTHER
        elif high > (1 + SPARSE_SURFACE) * low:
            out[n] = AT_EDGE
        elif z_point[n] < low - margin:
            out[n] = IN_FRONT
        else:
            out[n] = SEEN if z_point[n] <= high + margin and (label_near == label[n]).all() else AT_EDGE
    return out
