"""Rasters that stay in their stored codes: only the pixels that are asked for become values.

Queries touch a few thousand of a clip's millions of pixels; turning all codes into values costs more than decoding
them did. Both classes read like the array of values (`shape`, indexing, `np.asarray` for all of it), and cut windows
themselves, as `datakit.motion.sampling` asks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.motion.sampling import cut_windows
from datakit.shards.codecs import NORMAL_RESTART, sum_differences

Index = NDArray[np.int64]


class CodedRaster:
    """A raster of codes.

    Args:
        codes: (T, H, W), or (P, T, H, W) with P planes of codes a value.
        decode: Turns codes of any shape (...), or (P, ...), into values (...) or (..., C).
        value_shape: (C,) of one value, or ().

    Attributes:
        codes: As given.
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

    def cut(self, frame: Index, top: Index, left: Index, size: int) -> NDArray[Any]:
        """Do what `datakit.motion.sampling.cut_windows` does."""
        if self.codes.ndim == 3:
            return self.decode(cut_windows(self.codes, frame, top, left, size))
        return self.decode(np.stack([cut_windows(plane, frame, top, left, size) for plane in self.codes]))


class DifferenceRaster:
    """A raster in differences of codes along x.

    Summing up whole rasters costs several times what summing up to a few thousand pixels does.

    Args:
        differences: (T, P, H, W) uint16, as `datakit.shards.codecs.sum_differences` takes them.
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
        return np.asarray(np.asarray(self)[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self._decode(sum_differences(self._differences).swapaxes(0, 1)), dtype)

    def cut(self, frame: Index, top: Index, left: Index, size: int) -> NDArray[Any]:
        """Do what `datakit.motion.sampling.cut_windows` does."""
        from .row_kernels import sum_windows

        return self._decode(sum_windows(self._differences, frame, top, left, size, NORMAL_RESTART))
