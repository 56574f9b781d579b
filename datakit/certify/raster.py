"""Read rasters between pixels, and only where they are smooth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Share of depth that makes a step within reach of a blur: more than noise and the slope of a floor.
_BLUR_STEP = 0.3


@dataclass(frozen=True)
class Stencil:
    """The 4x4 pixels around N continuous positions and the weights of their cubic interpolation."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    weights: Float
    is_inside: Mask


def stencil_at(uv_px: Float, size: tuple[int, int]) -> Stencil:
    """Find the 4x4 pixel centres around continuous positions.

    OpenCV's `remap` rounds positions to 1/32 pixel, which is coarser than what is measured here.

    Args:
        uv_px: (N, 2), corner origin; NaN counts as outside.
        size: (W, H).

    Returns:
        Indices (N, 4) for rows and columns (clamped), weights (N, 4, 4) (row, column) of Keys' third-order
        kernel (IEEE TASSP 29(6), 1981, a = -1/2), and whether all 16 pixels are on the raster.
    """
    width, height = size
    with np.errstate(invalid="ignore"):
        base = np.floor(uv_px - 0.5)
        is_inside: Mask = np.all((base >= 1) & (base <= np.array([width - 3, height - 3])), axis=1)
    base = np.where(is_inside[:, None], base, 1.0)
    frac = np.where(is_inside[:, None], uv_px - 0.5 - base, 0.0)
    steps = np.arange(-1, 3)
    cols = np.clip(base[:, :1] + steps, 0, width - 1).astype(np.int64)
    rows = np.clip(base[:, 1:] + steps, 0, height - 1).astype(np.int64)
    weights = _keys(frac[:, 1])[:, :, None] * _keys(frac[:, 0])[:, None, :]
    return Stencil(rows, cols, weights, is_inside)


def _keys(x: Float) -> Float:
    x2, x3 = x * x, x * x * x
    return np.stack([-x + 2 * x2 - x3, 2 - 5 * x2 + 3 * x3, x + 4 * x2 - 3 * x3, x3 - x2], axis=1) / 2


def gather(stencil: Stencil, raster: NDArray[Any]) -> Float:
    """Return the (N, 4, 4) or (N, 4, 4, C) samples of a raster under a stencil."""
    return raster[stencil.rows[:, :, None], stencil.cols[:, None, :]].astype(np.float64)


def interpolate(stencil: Stencil, patch: Float) -> Float:
    """Weigh gathered samples; (N,) or (N, C), NaN off the raster or where a sample is NaN."""
    value = np.einsum("nij,nij...->n...", stencil.weights, patch)
    value[~stencil.is_inside] = np.nan
    return value


def is_smooth(inverse_depth: Float, bend: float, step: float) -> Mask:
    """Tell on which patches of 1/z the surface is one and nearly flat, so that interpolation is exact.

    1/z is affine in the pixel on a plane, so its second differences measure bending and depth steps alone.

    Args:
        inverse_depth: (N, n, n).
        bend: Largest second difference, as a share of 1/z.
        step: Largest first difference, as a share of 1/z: grazing surfaces are left out.

    Returns:
        (N,) bool; False where a sample is unknown.
    """
    with np.errstate(invalid="ignore"):
        level = np.abs(inverse_depth).mean(axis=(1, 2))
        good = level > 0
        for axis in (1, 2):
            first = np.diff(inverse_depth, axis=axis)
            second = np.diff(first, axis=axis)
            good &= np.abs(first).max(axis=(1, 2)) <= step * level
            good &= np.abs(second).max(axis=(1, 2)) <= bend * level
    return np.asarray(good, dtype=np.bool_)


def neighbourhood(raster: NDArray[Any], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Float:
    """Return the (N, 3, 3) pixels around inner pixels."""
    steps = np.arange(-1, 2)
    return raster[(rows[:, None] + steps)[:, :, None], (cols[:, None] + steps)[:, None, :]].astype(np.float64)


def smoothed(raster: NDArray[Any], sigma: float) -> Float:
    """Blur a raster of 1/z with a Gaussian that ignores unknown (NaN) samples; they stay unknown.

    Where the Gaussian reaches over a depth step the result is of neither surface, and unknown too.
    """
    if sigma <= 0:
        return np.asarray(raster, dtype=np.float64)
    known = np.isfinite(raster)
    weight = cv2.GaussianBlur(known.astype(np.float64), (0, 0), sigma)
    total = cv2.GaussianBlur(np.where(known, raster, 0.0).astype(np.float64), (0, 0), sigma)
    reach = np.ones((2 * round(3 * sigma) + 1,) * 2, np.uint8)
    largest = cv2.dilate(np.where(known, raster, 0.0).astype(np.float64), reach)
    least = cv2.erode(np.where(known, raster, np.inf).astype(np.float64), reach)
    with np.errstate(over="ignore"):  # depth whose bytes were swapped has any size
        one_surface = largest <= least * (1 + _BLUR_STEP)
    return np.where(known & one_surface, total / np.maximum(weight, 1e-9), np.nan)


def band(grey: NDArray[np.float32], octave: int = 0) -> tuple[NDArray[np.float32], float]:
    """Turn a grey image into one of local contrast, so that exposure and slow shading do not count.

    Args:
        grey: (H, W), 0..255.
        octave: Each doubles the size of what is left of the image.

    Returns:
        (H, W): a band of the image around 1.5 px, twice that with each octave, in units of its own spread; and this
        spread, grey levels. The filter is narrow, so that what lies beyond the border of a surface leaks into it by
        `band_reach` only.
    """
    inner, outer = (cv2.GaussianBlur(grey, (0, 0), 2.0 ** (octave + k)) for k in (0, 1))
    part = inner - outer
    spread = float(part.std()) + 0.1
    return np.asarray(part / spread, dtype=np.float32), spread


def band_reach(octave: int) -> float:
    """Give how far from a border its far side still counts in `band`, px."""
    return 3.0 * 2.0**octave


def away_from_steps(inverse_depth: Float, step: float, reach: int) -> Mask:
    """Tell which pixels have no depth step and no unknown depth within `reach` pixels, (H, W)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.log(inverse_depth)
        steps = np.zeros(log.shape, np.uint8)
        across = ~(np.abs(np.diff(log, axis=1)) <= step)
        down = ~(np.abs(np.diff(log, axis=0)) <= step)
    steps[:, 1:] |= across
    steps[:, :-1] |= across
    steps[1:] |= down
    steps[:-1] |= down
    return cv2.dilate(steps, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) == 0
