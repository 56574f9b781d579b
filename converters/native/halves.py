"""Half floats stored as the codes of 16-bit PNGs, as the datasets of Meta's PyTorch3D format have them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from datakit.errors import ConventionError

#: Scales that the frames of a scene may have; a table of 256 KiB is made for each. Releases have one.
_MAX_SCALES = 256
#: A code that stands for no number (IEEE 754).
NO_NUMBER = np.uint16(0x7E00)


@lru_cache(maxsize=1)
def float_of_code() -> NDArray[np.float32]:
    """Return the (65536,) float32 that the codes stand for, infinite ones and NaN among them."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def z_of_code(scale: float, nearest: float = 0.0) -> NDArray[np.float32]:
    """Return the (65536,) float32 z depth of each code.

    Args:
        scale: What stored values are multiplied with (`depth.scale_adjustment`).
        nearest: Least depth that is one; NaN stands for what is less, 0, infinite or no number.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        z = float_of_code() * np.float32(scale)
        return np.where((z > 0) & (z >= nearest) & (z < np.inf), z, np.float32(np.nan))


def z_of_frames(
    scales: Sequence[float], where: str, nearest: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Return `code_values` and `code_values_row` of a depth layer whose frames have these scales.

    Args:
        scales: T values of `depth.scale_adjustment`.
        where: The scene, for errors.
        nearest: See `z_of_code`.

    Returns:
        (S, 65536) float32, a row for each scale; and (T,) int64, None where there is only one.

    Raises:
        ConventionError: Too many scales for a table of each.
    """
    distinct, row = np.unique(scales, return_inverse=True)
    if len(distinct) > _MAX_SCALES:
        raise ConventionError(
            "The depth of a scene has too many scales.",
            where=f"{where}: depth.scale_adjustment",
            expected=f"at most {_MAX_SCALES}",
            found=len(distinct),
        )
    values = np.stack([z_of_code(float(scale), nearest) for scale in distinct])
    return values, row.astype(np.int64) if len(distinct) > 1 else None
