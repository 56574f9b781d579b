"""Robust alignment of point sets: Umeyama's closed form, reweighted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import ConventionError

Float = NDArray[np.float64]

#: Bounds of Huber's and Tukey's losses in deviations, for 95 % efficiency on normal errors; and a deviation in medians
#: of absolute errors.
_HUBER, _TUKEY, _DEVIATIONS = 1.345, 4.685, 1.4826
#: Fits that change less than this share from round to round have converged; errors below it count as none.
_SETTLED, _EXACT = 1e-10, 1e-12


@dataclass(frozen=True)
class Fit:
    """A similarity dst = scale * rotation @ src + translation.

    Attributes:
        scale: 1 for rigid fits.
        rotation: (3, 3).
        translation: (3,).
        residual: Mean distance of all points, weighted by confidence, each as a share of its `size`.
    """

    scale: float
    rotation: Float
    translation: Float
    residual: float

    def apply(self, points: Float) -> Float:
        """Map points (..., 3)."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation)

    def matrix(self) -> Float:
        """(4, 4) of a rigid fit, dst_from_src."""
        return g.rigid_from(self.rotation, self.translation)


def fit_similarity(
    src: Float, dst: Float, weights: Float, sizes: Float, *, with_scale: bool, rounds: int
) -> Fit | None:
    """Fit by iteratively reweighted least squares: under Huber's loss, which finds the way, then under Tukey's.

    A model's error grows with depth, so distances are measured as shares of `sizes`; otherwise the far wall decides.
    The bounds of both losses follow the median error, so they need no unit, and wrong points, if they are fewer than
    half, end without any weight.

    Args:
        src: (N, 3).
        dst: (N, 3).
        weights: (N,) positive, confidence.
        sizes: (N,) positive, depth of each point.
        with_scale: False fixes the scale to 1.
        rounds: Most rounds of each.

    Returns:
        The fit; None where the points fix none.
    """
    base = weights / weights.mean() / (sizes / np.median(sizes)) ** 2
    # A wrong point far out has the leverage to pull the scale to itself: begin with a scale of medians.
    scale = _median_scale(src, dst) if with_scale else 1.0
    fit, shares = _rounds(scale * src, dst, base, np.ones(len(src)), sizes, False, rounds, _huber)
    if fit is None:
        return None
    final, _ = _rounds(src, dst, base, shares, sizes, with_scale, rounds, _tukey)
    if final is None:
        return None
    errors = np.linalg.norm(final.apply(src) - dst, axis=1) / sizes
    return replace(final, residual=float(weights @ errors / weights.sum()))


def _rounds(
    src: Float,
    dst: Float,
    base: Float,
    shares: Float,
    sizes: Float,
    with_scale: bool,
    rounds: int,
    reweight: Callable[[Float], Float],
) -> tuple[Fit | None, Float]:
    """Fit and reweight until nothing changes; also return what is left of each weight."""
    fit: Fit | None = None
    for _ in range(rounds):
        try:
            new = Fit(*g.umeyama(src, dst, with_scale, base * shares), np.nan)
        except ConventionError:
            break
        errors = np.linalg.norm(new.apply(src) - dst, axis=1) / sizes
        settled = fit is not None and _difference(fit, new) < _SETTLED
        fit = new
        deviation = _DEVIATIONS * float(np.median(errors))
        if settled or deviation < _EXACT:
            break
        shares = reweight(errors / deviation)
    return fit, shares


def _huber(errors: Float) -> Float:
    return np.asarray(np.minimum(1.0, _HUBER / np.maximum(errors, _EXACT)))


def _tukey(errors: Float) -> Float:
    return np.asarray(np.clip(1 - (errors / _TUKEY) ** 2, 0, None) ** 2)


def _median_scale(src: Float, dst: Float) -> float:
    from_middle = [np.linalg.norm(points - np.median(points, axis=0), axis=1) for points in (src, dst)]
    return float(np.median(from_middle[1]) / max(np.median(from_middle[0]), 1e-300))


def _difference(a: Fit, b: Fit) -> float:
    length = max(float(np.abs(b.translation).max()), 1e-300)
    return max(
        abs(a.scale / b.scale - 1),
        float(np.abs(a.rotation - b.rotation).max()),
        float(np.abs(a.translation - b.translation).max()) / length,
    )


def mean_pose(poses: Float, weights: Float) -> Float:
    """Average rigid poses (K, 4, 4): rotations by the chordal mean, positions by the weighted one."""
    share = weights / weights.sum()
    left, _, right_t = np.linalg.svd(np.einsum("k,kij->ij", share, poses[:, :3, :3]))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right_t))])
    return g.rigid_from((left * sign) @ right_t, share @ poses[:, :3, 3])
