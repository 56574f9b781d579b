"""Alignment of point sets and trajectories."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from datakit.errors import ConventionError

from .transforms import Float, _f64


def umeyama(
    points_src: ArrayLike, points_dst: ArrayLike, with_scale: bool = True, weights: ArrayLike | None = None
) -> tuple[float, Float, Float]:
    """Find s, R, t that minimise sum w |s R x + t - y|^2 (Umeyama, PAMI 1991), never a reflection.

    Args:
        points_src: (N, 3), N >= 3, not all on one line.
        points_dst: (N, 3).
        with_scale: False fixes s = 1.
        weights: (N,) non-negative, or None for equal weights.

    Returns:
        s, R (3, 3), t (3,), so that dst = s * R @ src + t.

    Raises:
        ConventionError: Shapes differ, a value is not finite, or the points do not fix a rotation.

    >>> x = np.random.default_rng(0).normal(size=(10, 3))
    >>> s, R, t = umeyama(x, 2 * x + [1, 0, 0])
    >>> round(s, 9), np.round(t, 9).tolist(), bool(np.allclose(R, np.eye(3)))
    (2.0, [1.0, 0.0, 0.0], True)
    """
    src, dst = _f64(points_src), _f64(points_dst)
    if src.ndim != 2 or src.shape != dst.shape or src.shape[1] != 3 or len(src) < 3:
        raise ConventionError(
            "Umeyama needs two equal (N, 3) sets of at least 3 points",
            expected="(N, 3) and (N, 3)",
            found=f"{src.shape} and {dst.shape}",
        )
    wgt = np.ones(len(src)) if weights is None else _f64(weights)
    if not (np.isfinite(src).all() and np.isfinite(dst).all() and np.isfinite(wgt).all()) or wgt.sum() <= 0:
        raise ConventionError("Umeyama needs finite points and a positive sum of weights")
    wgt = wgt / wgt.sum()
    mean_src, mean_dst = wgt @ src, wgt @ dst
    src_c, dst_c = src - mean_src, dst - mean_dst
    left, singular, right_t = np.linalg.svd((dst_c * wgt[:, None]).T @ src_c)
    if singular[1] <= 1e-12 * max(singular[0], 1e-300):
        raise ConventionError("The points lie on a line: no rotation is fixed", found=f"{singular.tolist()}")
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right_t))])
    rotation = (left * sign) @ right_t
    variance = float(wgt @ (src_c**2).sum(axis=1))
    scale = float((singular * sign).sum() / variance) if with_scale else 1.0
    return scale, rotation, mean_dst - scale * rotation @ mean_src
