"""How predicted depth is fitted to truth, each as its protocol does it. See `video_depth.PROTOCOLS` for sources."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Float = NDArray[np.float64]
Array = NDArray[Any]
#: Scale and shift: fitted = scale * predicted + shift.
Fit = tuple[float, float]

#: CUT3R's L1 scale (tools.py:238-269): steps, what residuals are added to, and the least scale.
_WEISZFELD_STEPS, _RESIDUAL_EPS, _SCALE_FLOOR = 10, 1e-8, 1e-3
#: Adam of align_with_lad2 (tools.py:72-123): rate, most steps, and the change of the loss that ends it.
_ADAM_RATE, _ADAM_STEPS, _ADAM_TOLERANCE = 1e-4, 1000, 1e-6
_BETAS, _ADAM_EPS = (0.9, 0.999), 1e-8
#: Added to both sides of MegaSaM's ratio of centred depths, and to depths before VDA inverts them.
_EPS = 1e-8
#: Least predicted value that MoGe divides by (alignment.py: align).
_RATIO_EPS = 1e-7
#: Halvings of the bracket of an L1 scale.
_BISECTIONS = 60


def lower_median(values: Array) -> float:
    """Return the median; of an even number the lower middle one, as torch.median."""
    flat = np.asarray(values).ravel()
    middle = (flat.size - 1) // 2
    return float(np.partition(flat, middle)[middle])


def fit_lower_median(d: Array, g: Array) -> Fit:
    """Ratio of medians."""
    return lower_median(g) / lower_median(d), 0.0


def fit_l1_scale(d: Array, g: Array) -> Fit:
    """Minimise sum |s d - g| in ten Weiszfeld steps from mean(g) / mean(d); at least 1e-3 in the end."""
    d, g = np.asarray(d, np.float64), np.asarray(g, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = g.mean() / d.mean()
        for _ in range(_WEISZFELD_STEPS):
            weight = 1 / (np.abs(scale * d - g) + _RESIDUAL_EPS)
            scale = (weight * d * g).sum() / (weight * d * d).sum()
    return max(float(scale), _SCALE_FLOOR), 0.0


def fit_l1_adam(d: Array, g: Array) -> Fit:
    """Minimise sum |s d + t - g| by at most 1000 steps of Adam, from the ratio of lower medians and t = 0.

    Parameters are kept in the prediction's float type, as the optimiser does.
    """
    kind = d.dtype.type if d.dtype == np.float32 else np.float64
    wide, truth = np.asarray(d, np.float64), np.asarray(g, np.float64)
    values = np.array([fit_lower_median(d, g)[0], 0.0], kind)
    first, second = np.zeros(2, kind), np.zeros(2, kind)
    before = None
    for step in range(1, _ADAM_STEPS + 1):
        residual = values[0] * wide + values[1] - truth
        loss, sign = float(np.abs(residual).sum()), np.sign(residual)
        gradient = np.array([(sign * wide).sum(), sign.sum()], kind)
        first = kind(_BETAS[0]) * first + kind(1 - _BETAS[0]) * gradient
        second = kind(_BETAS[1]) * second + kind(1 - _BETAS[1]) * gradient * gradient
        rate = kind(_ADAM_RATE / (1 - _BETAS[0] ** step))
        root = kind(math.sqrt(1 - _BETAS[1] ** step))
        values = values - rate * first / (np.sqrt(second) / root + kind(_ADAM_EPS))
        if before is not None and abs(before - loss) < _ADAM_TOLERANCE:
            break
        before = loss
    return float(values[0]), float(values[1])


def fit_l1(d: Array, g: Array) -> Fit:
    """Minimise sum |s d + t - g| itself: for a scale the best shift is a median, and what is left is convex."""
    d, g = np.asarray(d, np.float64), np.asarray(g, np.float64)
    if np.ptp(d) == 0:
        return 0.0, float(np.median(g))

    def slope(scale: float) -> float:
        residual = scale * d - g
        return float((np.sign(residual - np.median(residual)) * d).sum())

    scale = _zero_of(slope, fit_points(d[:, None], g[:, None])[0])
    return scale, float(np.median(g - scale * d))


def _zero_of(slope: Callable[[float], float], start: float) -> float:
    """Find where a derivative that never falls changes its sign."""
    width = max(abs(start), 1e-6)
    low, high = start - width, start + width
    while slope(low) > 0:
        low, width = low - 2 * width, 2 * width
    while slope(high) < 0:
        high, width = high + 2 * width, 2 * width
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
        if high - low <= 1e-14 * max(abs(low), abs(high)):
            break
    return 0.5 * (low + high)


def fit_centred_medians(d: Array, g: Array) -> Fit:
    """Median ratio of depths less their medians, then the median of what is left (MegaSaM)."""
    d, g = np.asarray(d, np.float64), np.asarray(g, np.float64)
    scale = float(np.median((g - np.median(g) + _EPS) / (d - np.median(d) + _EPS)))
    return scale, float(np.median(g - scale * d))


def fit_disparity(d: Array, g: Array) -> Fit:
    """Least squares of predicted disparity d to 1 / g."""
    d = np.asarray(d, np.float64)
    scale, shift = np.linalg.lstsq(np.stack([d, np.ones_like(d)], axis=-1), 1 / (g + _EPS), rcond=None)[0]
    return float(scale), float(shift)


def fit_points(src: Array, dst: Array) -> tuple[float, Float]:
    """Least squares scale and shift of points (N, D), no rotation; equal points give scale 0."""
    mean_src, mean_dst = src.mean(axis=0, dtype=np.float64), dst.mean(axis=0, dtype=np.float64)
    moved = src - mean_src
    variance = float(np.square(moved).sum())
    scale = float((moved * (dst - mean_dst)).sum()) / variance if variance > 0 else 0.0
    return scale, np.asarray(mean_dst - scale * mean_src)


def fit_weighted_scale(d: Array, g: Array, weight: Array) -> float:
    """Minimise sum w |s d - g| exactly: a weighted median of ratios (moge/utils/alignment.py: align)."""
    sign = np.sign(d)
    d, g = d * sign, g * sign
    ratio = g / np.maximum(d, _RATIO_EPS)
    order = np.argsort(ratio, kind="stable")
    pull = (d * weight)[order]
    slope = 2 * pull.cumsum() - pull.sum()
    return float(ratio[order[min(int((slope < 0).sum()), len(order) - 1)]])


def fit_weighted_affine(src: Array, dst: Array, weight: Array) -> tuple[float, Float]:
    """Minimise sum w |s x + t - y| over points (N, D), one scale and a shift (D,): MoGe's affine alignments.

    Its search tries all pairs of points; as the cost is convex in s once every shift is a weighted median, a bisection
    finds the same minimum.
    """
    columns = np.arange(src.shape[1])

    def middle(scale: float) -> NDArray[np.int64]:
        """Return the points whose residuals are the weighted medians of their columns."""
        order = np.argsort(dst - scale * src, axis=0, kind="stable")
        total = weight[order].cumsum(axis=0)
        return np.asarray(order[(total < 0.5 * total[-1]).sum(axis=0), columns])

    def slope(scale: float) -> float:
        at = middle(scale)
        residual = scale * src - dst
        # Relative to the median's own point, whose residual takes up what the others leave over.
        off = np.sign(residual - residual[at, columns]) * (src - src[at, columns])
        return float((weight[:, None] * off).sum())

    if (np.ptp(src, axis=0) == 0).all():
        return 0.0, np.asarray(dst[middle(0.0), columns])
    scale = _zero_of(slope, fit_points(src, dst)[0])
    at = middle(scale)
    return scale, np.asarray(dst[at, columns] - scale * src[at, columns])


def nearest_on_grid(mask: NDArray[np.bool_], cells: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Choose for each cell of a square grid the masked pixel nearest to its centre, within about the cell.

    As MoGe's mask_aware_nearest_resize (moge/utils/geometry_torch.py), for images of at least `cells` a side; of
    smaller ones windows are kept inside the image.

    Returns:
        rows, columns (cells, cells) int64, and whether there is such a pixel.
    """
    height, width = mask.shape
    filter_h, filter_w = max(1.0, height / cells), max(1.0, width / cells)
    rows_in, columns_in = math.ceil(filter_h), math.ceil(filter_w)
    pad_h, pad_w = round(filter_h / 2), round(filter_w / 2)
    padding = ((pad_h, pad_h), (pad_w, pad_w))
    shape = (rows_in, columns_in)
    seen = sliding_window_view(np.pad(mask, padding), shape)
    index = sliding_window_view(np.pad(np.arange(height * width).reshape(height, width), padding), shape)
    single = np.float32
    centres = [
        (np.arange(cells, dtype=single) + single(0.5)) / single(cells) * single(side)
        for side in (height, width)
    ]
    corners = [
        np.clip(np.rint(c - single(f / 2) - single(0.5)).astype(np.int64) + pad, 0, most - 1)
        for c, f, pad, most in zip(centres, (filter_h, filter_w), (pad_h, pad_w), seen.shape[:2], strict=True)
    ]
    at = np.ix_(*corners)
    seen, index = seen[at].reshape(cells, cells, -1), index[at].reshape(cells, cells, -1)
    off_v = (index // width + single(0.5)) - centres[0][:, None, None]
    off_u = (index % width + single(0.5)) - centres[1][None, :, None]
    distance = np.where(seen, np.sqrt(off_v**2 + off_u**2), np.inf)
    nearest = np.take_along_axis(index, distance.argmin(axis=-1)[..., None], axis=-1)[..., 0]
    return nearest // width, nearest % width, np.asarray(seen.any(axis=-1))
