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
        codes: (T, H, W), or (P, T, H, W) with P planes of codes a value.
        decode: Turns codes of any shape (...), or (P, ...), into values (...) or (..., C).
        value_shape: (C,) of one value, or ().

    Attributes:
        codes: As given; `datakit.motion.sampling` reads them in place.
        decode: As given.
    """

    def __init__(
        self,
        codes: NDArray[Any],
        decode: Callable[[NDArray[Any]], NDArray[Any]],
        value_shape: tuple[int, ...] = (),
    ) -> None:
        self.codes, self.decode = codes, decode
        self.shape = (*codes.shape[-3:], *value_shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        at = index if isinstance(index, tuple) else (index,)
        return self.decode(self.codes[(slice(None), *at) if self.codes.ndim == 4 else at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.decode(self.codes), dtype)


class DifferenceRaster:
    """Reads like the array of values, but stays in differences of codes along x until pixels are asked for.

    Summing up whole rasters costs several times what summing up to a few thousand pixels does.

    Args:
        differences: (T, P, H, W) uint16. The code of a pixel is the sum, modulo 2^16, of its row up to it.
        decode: Turns codes (P, ...) into values (..., C).
        value_shape: (C,) of one value.
    """

    def __init__(
        self,
        differences: NDArray[np.uint16],
        decode: Callable[[NDArray[Any]], NDArray[Any]],
        value_shape: tuple[int, ...],
    ) -> None:
        self._differences, self._decode = differences, decode
        count, _, *size = differences.shape
        self.shape = (count, *size, *value_shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        at = index if isinstance(index, tuple) else (index,)
        if len(at) != 3 or not all(isinstance(part, np.ndarray) and part.dtype == np.int64 for part in at):
            return np.asarray(np.asarray(self)[index])
        from .row_kernels import sum_rows

        frame, row, col = np.broadcast_arrays(*at)
        codes = sum_rows(self._differences, frame.ravel(), row.ravel(), col.ravel())
        return self._decode(codes.reshape(-1, *frame.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        codes = np.cumsum(self._differences, axis=-1, dtype=np.uint16)
        return np.asarray(self._decode(codes.swapaxes(0, 1)), dtype)
