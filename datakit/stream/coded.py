"""Rasters that stay in their stored codes: only the pixels that are asked for become values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class CodedRaster:
    """Reads like the array of values: `shape`, indexing, and `np.asarray` for all of it.

    Queries touch a few thousand of a clip's millions of pixels; turning all codes into values costs more than
    decoding them did.

    Args:
        codes: (T, H, W), or (P, T, H, W) with `is_planar`.
        decode: Turns codes of any shape (...), or (P, ...), into values (...) or (..., C).
        value_shape: (C,) of one value, or ().
        is_planar: The first axis of `codes` is that of their planes.
    """

    def __init__(
        self,
        codes: NDArray[Any],
        decode: Callable[[NDArray[Any]], NDArray[Any]],
        value_shape: tuple[int, ...] = (),
        is_planar: bool = False,
    ) -> None:
        self._codes, self._decode, self._is_planar = codes, decode, is_planar
        self.shape = (*codes.shape[1 if is_planar else 0 :], *value_shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        at = index if isinstance(index, tuple) else (index,)
        return self._decode(self._codes[(slice(None), *at) if self._is_planar else at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._decode(self._codes), dtype)
