"""Read raster layers at continuous pixels without mixing surfaces.

Rasters come as stacks (T, H, W[, C]) so that points of many frames are read in one go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: Neighbouring pixels whose depths differ by more than this share lie on different surfaces. Kubric's own track
#: code uses the same 5 % step (challenges/point_tracking/dataset.py, snap_to_occluder).
DEPTH_STEP = 0.05
#: How much a step of 1/z may differ from the one beside it on one surface, as a share of the step.
_LINEARITY = 0.25
#: Largest change of 1/z over a pixel that is still followed as the slope of a surface, as a share of it.
_STEEPEST = 0.3


@dataclass(frozen=True)
class Quad:
    """The 2x2 pixel centres around N continuous pixels of a stack of rasters, and the pixel that contains each.

    Attributes:
        frame: (N,) int64, which raster of the stack.
        rows: (N, 4) int64, clamped to the raster.
        cols: (N, 4) int64, clamped.
        weights: (N, 4) float64 bilinear.
        row: (N,) int64 of the containing pixel.
        col: (N,) int64 of the containing pixel.
        offset: (N, 2) float64 (u, v) from the containing pixel's centre, in pixels.
        is_inside: (N,) bool, False where the pixel is off the raster (indices are clamped there).
    """

    frame: NDArray[np.int64]
    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: Float
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    offset: Float
    is_inside: NDArray[np.bool_]


def quad_at(uv_px: Float, size: tuple[int, int], frame: NDArray[np.int64] | int = 0) -> Quad:
    """Find the pixels around continuous positions.

    Args:
        uv_px: (N, 2) corner origin; NaN counts as outside.
        size: (W, H).
        frame: (N,) or one index into the stack.

    >>> quad_at(np.array([[1.0, 0.5]]), (2, 1)).weights.tolist()
    [[0.5, 0.5, 0.0, 0.0]]
    """
    width, height = size
    u, v = uv_px[:, 0], uv_px[:, 1]
    is_inside: NDArray[np.bool_] = (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    safe = np.where(is_inside[:, None], uv_px, 0.5)
    base = np.floor(safe - 0.5)
    frac = safe - 0.5 - base
    cols = np.stack([base[:, 0], base[:, 0] + 1] * 2, axis=1)
    rows = np.repeat(np.stack([base[:, 1], base[:, 1] + 1], axis=1), 2, axis=1)
    du, dv = frac[:, :1], frac[:, 1:]
    weights = np.concatenate([(1 - du) * (1 - dv), du * (1 - dv), (1 - du) * dv, du * dv], axis=1)
    row = np.clip(np.floor(safe[:, 1]), 0, height - 1).astype(np.int64)
    col = np.clip(np.floor(safe[:, 0]), 0, width - 1).astype(np.int64)
    return Quad(
        frame=np.broadcast_to(np.asarray(frame, np.int64), len(uv_px)),
        rows=np.clip(rows, 0, height - 1).astype(np.int64),
        cols=np.clip(cols, 0, width - 1).astype(np.int64),
        weights=weights,
        row=row,
        col=col,
        offset=safe - np.stack([col, row], axis=1) - 0.5,
        is_inside=is_inside,
    )


def is_one_surface(quad: Quad, z_depth: NDArray[Any], instances: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Tell which quads lie on one surface: all depths known, no depth step along any side, one instance.

    A large step is no edge where 1/z goes on changing at the same rate on one of its sides: planes are linear in
    1/z, and a floor seen at a grazing angle changes by more than `DEPTH_STEP` a pixel.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        instances: (T, H, W), or None.

    Returns:
        (N,) bool.
    """
    frame = quad.frame[:, None]
    z = z_depth[frame, quad.rows, quad.cols]
    low = np.minimum(np.minimum(z[:, 0], z[:, 1]), np.minimum(z[:, 2], z[:, 3]))  # NaN if one is
    high = np.maximum(np.maximum(z[:, 0], z[:, 1]), np.maximum(z[:, 2], z[:, 3]))
    same: NDArray[np.bool_] = quad.is_inside & np.isfinite(low)
    if instances is not None:
        ids = instances[frame, quad.rows, quad.cols]
        first = ids[:, 0]
        same &= (ids[:, 1] == first) & (ids[:, 2] == first) & (ids[:, 3] == first)
    steep = np.flatnonzero(same & ~(high <= (1 + DEPTH_STEP) * low))
    same[steep] = _is_steep_surface(quad, z_depth, steep)
    return same


def _is_steep_surface(quad: Quad, z_depth: NDArray[Any], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    height, width = z_depth.shape[1:]
    reach = np.arange(-1, 3)
    rows = np.clip(quad.rows[at, :1] + reach, 0, height - 1)
    cols = np.clip(quad.cols[at, :1] + reach, 0, width - 1)
    rows[:, 1:3], cols[:, 1:3] = quad.rows[at][:, [0, 2]], quad.cols[at][:, [0, 1]]
    inverse = 1.0 / z_depth[quad.frame[at, None, None], rows[:, :, None], cols[:, None, :]].astype(np.float64)
    along_rows = _is_step_free(inverse[:, 1:3, :]).all(axis=1)
    down_columns = _is_step_free(np.swapaxes(inverse[:, :, 1:3], 1, 2)).all(axis=1)
    return np.asarray(along_rows & down_columns, dtype=np.bool_)


def _is_step_free(inverse_z: Float) -> NDArray[np.bool_]:
    """Judge the middle step of (..., 4) values of 1/z along a line."""
    before, step, after = np.moveaxis(np.diff(inverse_z, axis=-1), -1, 0)
    with np.errstate(invalid="ignore"):
        is_small = np.abs(step) <= DEPTH_STEP * np.minimum(inverse_z[..., 1], inverse_z[..., 2])
        deviation = np.fmin(np.abs(step - before), np.abs(step - after))
        goes_on = deviation <= _LINEARITY * np.abs(step)
    return np.asarray(is_small | goes_on, dtype=np.bool_)


def sample_z(quad: Quad, z_depth: NDArray[Any], smooth: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Read depth: 1/z bilinearly where `smooth`, else the containing pixel's surface extended; exact on planes.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        smooth: (N,) from `is_one_surface`.

    Returns:
        z (N,) float64, NaN where unknown or off the raster; and how much depth changes over a pixel there, (N,).
    """
    z = np.full(len(smooth), np.nan)
    change = np.zeros(len(smooth))
    around = z_depth[quad.frame[smooth, None], quad.rows[smooth], quad.cols[smooth]].astype(np.float64)
    z[smooth] = 1.0 / (quad.weights[smooth] / around).sum(axis=1)
    change[smooth] = around.max(axis=1) - around.min(axis=1)
    rest = ~smooth & quad.is_inside
    z[rest], change[rest] = _extend_surface(quad, z_depth, rest)
    return z, change


def _extend_surface(quad: Quad, z_depth: NDArray[Any], at: NDArray[np.bool_]) -> tuple[Float, Float]:
    """Extend the containing pixels' planes to the queries; slopes come from the flatter side, so not across edges."""
    height, width = z_depth.shape[1:]
    frame, row, col = quad.frame[at], quad.row[at], quad.col[at]

    def inverse(down: int, right: int) -> Float:
        rows, cols = np.clip(row + down, 0, height - 1), np.clip(col + right, 0, width - 1)
        value: Float = 1.0 / z_depth[frame, rows, cols].astype(np.float64)
        value[(rows != row + down) | (cols != col + right)] = np.nan
        return value

    here = inverse(0, 0)
    slopes = []
    for down, right in ((0, 1), (1, 0)):
        after, before = inverse(down, right) - here, here - inverse(-down, -right)
        flatter = np.where(np.abs(after) <= np.nan_to_num(np.abs(before), nan=np.inf), after, before)
        usable = np.abs(np.nan_to_num(flatter)) <= _STEEPEST * here
        slopes.append(np.where(usable, np.nan_to_num(flatter), 0.0))
    extended = here + slopes[0] * quad.offset[at, 0] + slopes[1] * quad.offset[at, 1]
    return 1.0 / extended, (np.abs(slopes[0]) + np.abs(slopes[1])) / here**2


def sample_vectors(quad: Quad, raster: NDArray[Any], smooth: NDArray[np.bool_]) -> Float:
    """Read (T, H, W, C) rasters: bilinearly where `smooth`, the containing pixel elsewhere.

    Returns:
        (N, C) float64, NaN off the raster.
    """
    value = raster[quad.frame, quad.row, quad.col].astype(np.float64)
    value[~quad.is_inside] = np.nan
    around = raster[quad.frame[smooth, None], quad.rows[smooth], quad.cols[smooth]].astype(np.float64)
    value[smooth] = (quad.weights[smooth][..., None] * around).sum(axis=1)
    return value
