"""Turn residuals into biases: how much K, depth, poses or clocks would have to change to explain them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .raster import Float


@dataclass(frozen=True)
class Bias:
    """An estimated change of one parameter.

    Attributes:
        value: Parameter units; the change that would bring residuals to zero. 0 where nothing can be told.
        standard_error: Parameter units; inf where nothing can be told.
        count: Residuals used.
    """

    value: float
    standard_error: float
    count: int


def robust_sigma(values: Float) -> float:
    """Return 1.4826 times the median absolute value: sigma of a normal distribution about zero."""
    return 1.4826 * float(np.median(np.abs(values))) if len(values) else 0.0


def estimate_bias(residuals: Float, jacobian: Float, groups: NDArray[np.int64], floor: float) -> Bias:
    """Fit residual + jacobian * change = 0 by robust least squares.

    Residuals within a frame pair share its interpolation and texture errors, so the standard error is the larger
    of the one for independent residuals and of the spread of the estimate over pairs (delete-one jackknife); and
    no residual counts as known better than `floor`, shared by all residuals of a pair.

    Args:
        residuals: (N,).
        jacobian: (N,) d residual / d parameter.
        groups: (N,) frame pair of each residual.
        floor: Systematic error, in units of the residual.

    Returns:
        The bias.
    """
    good = np.isfinite(residuals) & np.isfinite(jacobian)
    r, j, group = residuals[good], jacobian[good], groups[good]
    if not len(r) or not (j * j).sum() > 0:
        return Bias(0.0, np.inf, len(r))
    # Near-degenerate interpolation makes a few huge slopes; they must not own the fit.
    limit = np.quantile(np.abs(j), 0.995)
    j = np.clip(j, -limit, limit)
    if not limit > 0:
        return Bias(0.0, np.inf, len(r))
    weights = np.ones_like(r)
    change = 0.0
    for _ in range(6):
        information = (weights * j * j).sum()
        if not information > 0:
            return Bias(0.0, np.inf, len(r))
        change = -(weights * j * r).sum() / information
        left = r + j * change
        sigma = max(robust_sigma(left), 1e-9)
        weights = 1.0 / (1.0 + (left / (2.5 * sigma)) ** 2) ** 2  # Geman-McClure: gross errors stop counting
    names, index = np.unique(group, return_inverse=True)
    num = np.bincount(index, -weights * j * r)
    den = np.bincount(index, weights * j * j)
    independent = sigma / np.sqrt(den.sum())
    # A pair's floor error is one number times the root mean square slope, averaged over pairs.
    systematic = floor / np.sqrt(den.sum() / weights.sum()) / np.sqrt(len(names))
    jackknife = 0.0
    if len(names) > 1:
        left_out = (num.sum() - num) / np.maximum(den.sum() - den, 1e-300)
        informed = den.sum() - den > 1e-6 * den.sum()
        left_out = np.where(informed, left_out, change)
        spread = ((left_out - left_out.mean()) ** 2).sum()
        jackknife = float(np.sqrt((len(names) - 1) / len(names) * spread))
    error = float(np.sqrt(max(independent, jackknife) ** 2 + systematic**2))
    return Bias(float(change), error, len(r))
