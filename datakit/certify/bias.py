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


def weighted_median(values: Float, weights: Float) -> float:
    """Return the value below and above which lies half of the weight."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def estimate_biases(residuals: Float, jacobian: Float, groups: NDArray[np.int64], floor: float) -> list[Bias]:
    """Fit residual + jacobian . change = 0 by robust least squares, for one or a few parameters together.

    Residuals within a frame pair share its interpolation and texture errors, so the standard error is the larger
    of the one for independent residuals and of the spread of the estimate over pairs (delete-one jackknife); and
    no residual counts as known better than `floor`, shared by all residuals of a pair.

    Args:
        residuals: (N,).
        jacobian: (N, P) d residual / d parameter.
        groups: (N,) frame pair of each residual.
        floor: Systematic error, in units of the residual.

    Returns:
        P biases.
    """
    good = np.isfinite(residuals) & np.isfinite(jacobian).all(axis=1)
    # Parameters first: sums then run along memory, which is several times faster.
    r, j, group = residuals[good], np.ascontiguousarray(jacobian[good].T), groups[good]
    num_parameters = len(j)
    unknown = [Bias(0.0, np.inf, len(r))] * num_parameters
    if not len(r):
        return unknown
    # Near-degenerate interpolation makes a few huge slopes; they must not own the fit.
    limit = np.quantile(np.abs(j), 0.995, axis=1, keepdims=True)
    j = np.clip(j, -limit, limit)
    # What a residual says of a parameter grows with its slope, and so does its say in what noise is.
    say = (j * j / np.maximum((j * j).mean(axis=1, keepdims=True), 1e-300)).sum(axis=0)
    if not say.sum() > 0:
        return unknown
    # The noise level needs no more than a few thousand of them.
    some = slice(None, None, max(1, len(r) // 3000))
    some_say = say[some] if say[some].sum() > 0 else np.ones_like(say[some])
    weights = np.ones_like(r)
    change = np.zeros(num_parameters)
    for _ in range(6):
        weighted = weights * j
        change = -_solve(weighted @ j.T, weighted @ r)
        left = r + change @ j
        sigma = max(1.4826 * weighted_median(np.abs(left[some]), some_say), 1e-9)
        weights = 1.0 / (1.0 + (left / (3.0 * sigma)) ** 2) ** 2  # Geman-McClure: gross errors stop counting
    names, index = np.unique(group, return_inverse=True)
    weighted = weights * j
    pulls = _sum_by(index, weighted * r, len(names))
    parts = _sum_by(index, weighted[:, None] * j[None], len(names))
    whole, pull = parts.sum(axis=0), pulls.sum(axis=0)
    unit = np.sqrt(np.diag(_solve(whole, np.eye(num_parameters))))
    # A pair's floor error is one number times the root mean square slope, averaged over pairs.
    systematic = floor * unit * np.sqrt(weights.sum() / len(names))
    jackknife = np.zeros(num_parameters)
    if len(names) > 1:
        left_out = np.array([-_solve(whole - part, pull - p) for part, p in zip(parts, pulls, strict=True)])
        spread = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
        jackknife = np.sqrt((len(names) - 1) / len(names) * spread)
    error = np.hypot(np.maximum(sigma * unit, jackknife), systematic)
    return [Bias(float(c), float(e), len(r)) for c, e in zip(change, error, strict=True)]


def _sum_by(group: NDArray[np.int64], values: Float, count: int) -> Float:
    """Sum (..., N) values over the members of each of `count` groups, (count, ...)."""
    rows = values.reshape(-1, values.shape[-1])
    sums = np.stack([np.bincount(group, row, count) for row in rows], axis=1)
    return sums.astype(np.float64).reshape(count, *values.shape[:-1])


def _solve(information: Float, right: Float) -> Float:
    """Solve with a ridge far below any information that counts, so that nothing known gives a huge error."""
    ridge = 1e-12 * np.trace(information) + 1e-30
    return np.linalg.solve(information + ridge * np.eye(len(information)), right)
