"""The named rules that field tables refer to. Each takes a value and returns what is wrong with it, or None."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_rigid(a_from_b: ArrayLike, tol: float = 1e-6) -> NDArray[np.bool_]:
    """Tell which 4x4 matrices are rotations plus translations.

    Args:
        a_from_b: (..., 4, 4).
        tol: Largest entry allowed in |R^T R - I| and in the bottom row's error.

    Returns:
        (...) bool; False for mirrored, scaled, sheared or non-finite matrices.

    >>> is_rigid([np.eye(4), np.diag([1, 1, -1, 1]), np.full((4, 4), np.nan)]).tolist()
    [True, False, False]
    """
    mat = np.asarray(a_from_b, dtype=np.float64)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(mat).all(axis=(-1, -2)))
    safe = np.where(finite[..., None, None], mat, np.eye(4))
    rot = safe[..., :3, :3]
    gram = np.swapaxes(rot, -1, -2) @ rot
    orthonormal = np.abs(gram - np.eye(3)).max(axis=(-1, -2)) <= tol
    bottom = np.abs(safe[..., 3, :] - np.array([0.0, 0, 0, 1])).max(axis=-1) <= tol
    return np.asarray(finite & orthonormal & bottom & (np.linalg.det(rot) > 0), dtype=np.bool_)


def _finite(value: Any) -> str | None:
    bad = int((~np.isfinite(np.asarray(value, dtype=np.float64))).sum())
    return f"{bad} values are not finite" if bad else None


def _positive(value: Any) -> str | None:
    return None if (np.asarray(value) > 0).all() else f"not all are positive: {value}"


def _increasing(value: Any) -> str | None:
    steps = np.diff(np.asarray(value).astype(np.float64))
    bad = np.flatnonzero(steps <= 0)
    return f"not strictly increasing after index {int(bad[0])}" if bad.size else None


def _unique(value: Any) -> str | None:
    values = list(value)
    return (
        None if len(set(values)) == len(values) else f"{len(values) - len(set(values))} values are repeated"
    )


def _not_empty(value: Any) -> str | None:
    return None if len(value) else "is empty"


def _identifier(value: Any) -> str | None:
    if _IDENTIFIER.fullmatch(str(value)):
        return None
    return f"{value!r} is not made of letters, digits and ._- only"


def _unit_vector(value: Any) -> str | None:
    norm = float(np.linalg.norm(np.asarray(value, dtype=np.float64)))
    return None if abs(norm - 1) < 1e-6 else f"norm is {norm:.6g}, not 1"


def _unit_interval(value: Any) -> str | None:
    arr = np.asarray(value)
    return None if ((arr >= 0) & (arr <= 1)).all() else f"range is [{arr.min():.6g}, {arr.max():.6g}]"


def _intrinsics(value: Any) -> str | None:
    mat = np.asarray(value, dtype=np.float64)
    if not np.isfinite(mat).all():
        return None  # `finite` reports it
    if (mat[..., 0, 0] <= 0).any() or (mat[..., 1, 1] <= 0).any():
        return "a focal length is not positive"
    lower = np.abs(mat[..., [1, 2, 2], [0, 0, 1]]).max(initial=0.0)
    if lower > 1e-9 or np.abs(mat[..., 2, 2] - 1).max(initial=0.0) > 1e-9:
        return "not upper triangular with K[2, 2] = 1"
    return None


def _rigid(value: Any) -> str | None:
    mat = np.asarray(value, dtype=np.float64).reshape(-1, 4, 4)
    unknown = np.isnan(mat).all(axis=(1, 2))
    bad = np.flatnonzero(~unknown & ~is_rigid(mat))
    return f"{bad.size} matrices are not rigid, the first at flat index {int(bad[0])}" if bad.size else None


def _motion_index(value: Any) -> str | None:
    arr = np.asarray(value)
    return None if (arr >= -1).all() else "an index is below -1"


RULES: dict[str, Callable[[Any], str | None]] = {
    "finite": _finite,
    "positive": _positive,
    "increasing": _increasing,
    "unique": _unique,
    "not_empty": _not_empty,
    "identifier": _identifier,
    "unit_vector": _unit_vector,
    "unit_interval": _unit_interval,
    "intrinsics": _intrinsics,
    "rigid": _rigid,
    "motion_index": _motion_index,
}
