"""Read raster layers at continuous pixels without mixing surfaces.

Rasters come as stacks (T, H, W[, C]) so that points of many frames are read in one go. A stack is an array, or
anything that is indexed like one and tells its `shape`. One that keeps its pixels in codes cuts its windows itself, so
that only what is looked at becomes values: its method `cut` does what `cut_windows` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Quad:
    """The 2x2 pixel centres around N continuous pixels of a stack of rasters, and the pixel that contains each.

    Attributes:
        frame: (N,) int64, which raster of the stack.
        top: (N,) int64 row of the upper two; -1 in the upper half of the first row.
        left: (N,) int64 column of the left two; -1 likewise.
        share: (N, 2) float64 (u, v) from the upper left one's centre, 0 to 1 pixel.
        row: (N,) int64 of the containing pixel.
        col: (N,) int64 of the containing pixel.
        is_inside: (N,) bool, False where the position is off the raster (all else is that of the first pixel).
        size: (W, H).
    """

    frame: Index
    top: Index
    left: Index
    share: Float
    row: Index
    col: Index
    is_inside: NDArray[np.bool_]
    size: tuple[int, int]

    @property
    def place(self) -> tuple[Index, Index, Float, Index, Index, NDArray[np.bool_]]:
        """What kernels are told: top, left, share, row, col, is_inside."""
        return self.top, self.left, self.share, self.row, self.col, self.is_inside

    def at(self, index: Index) -> Quad:
        """Pick some of the positions."""
        return Quad(
            self.frame[index],
            self.top[index],
            self.left[index],
            self.share[index],
            self.row[index],
            self.col[index],
            self.is_inside[index],
            self.size,
        )


def quad_at(uv_px: Float, size: tuple[int, int], frame: Index | int = 0) -> Quad:
    """Find the pixels around continuous positions.

    Args:
        uv_px: (N, 2) corner origin; NaN counts as outside.
        size: (W, H).
        frame: (N,) or one index into the stack.

    >>> quad = quad_at(np.array([[1.0, 0.5]]), (2, 1))
    >>> quad.left.tolist(), quad.top.tolist(), quad.share.tolist()
    ([0], [0], [[0.5, 0.0]])
    """
    from .surface_kernels import locate

    width, height = size
    frames = np.ascontiguousarray(np.broadcast_to(np.asarray(frame, np.int64), len(uv_px)))
    top, left, share, row, col, is_inside = locate(np.ascontiguousarray(uv_px, np.float64), height, width)
    return Quad(frames, top, left, share, row, col, is_inside, size)


def windows(quad: Quad, raster: Any, size: int) -> NDArray[Any]:
    """Cut the pixels around positions out of a raster; beyond its border the edge repeats.

    Args:
        quad: N positions.
        raster: (T, H, W[, C]).
        size: 2 for the 2x2 alone, 4 with the pixels around it, and so on; even.

    Returns:
        (N, size, size[, C]).
    """
    around = size // 2 - 1
    top, left = quad.top - around, quad.left - around
    cut = getattr(raster, "cut", None)
    return cut(quad.frame, top, left, size) if cut else cut_windows(raster, quad.frame, top, left, size)


def cut_windows(raster: Any, frame: Index, top: Index, left: Index, size: int) -> NDArray[Any]:
    """Cut square windows out of a raster; beyond its border the edge repeats.

    Args:
        raster: (T, H, W[, C]).
        frame: (N,) which raster of the stack; not checked.
        top: (N,) first row of each window, may lie outside.
        left: (N,) first column, likewise.
        size: Pixels of a window's side.

    Returns:
        (N, size, size[, C]).
    """
    from .surface_kernels import DTYPES, cut_2x2, cut_4x4, cut_any

    if not isinstance(raster, np.ndarray) or raster.dtype not in DTYPES:
        height, width = raster.shape[1:3]
        rows = np.clip(top[:, None] + np.arange(size), 0, height - 1)
        cols = np.clip(left[:, None] + np.arange(size), 0, width - 1)
        return np.asarray(raster[frame[:, None, None], rows[:, :, None], cols[:, None, :]])
    cut = {2: cut_2x2, 4: cut_4x4}.get(size, lambda *place: cut_any(*place, size))
    if raster.ndim == 3:
        return np.asarray(cut(raster, frame, top, left))
    return np.stack([cut(plane, frame, top, left) for plane in np.moveaxis(raster, -1, 0)], axis=-1)


def depth_windows(quad: Quad, z_depth: Any) -> NDArray[np.float32]:
    """Cut (N, 4, 4) depth windows: the 2x2 and the pixels around it."""
    return np.ascontiguousarray(windows(quad, z_depth, 4), np.float32)


def label_windows(quad: Quad, instances: NDArray[Any] | None) -> NDArray[np.uint32]:
    """Cut (N, 2, 2) label windows; all 0 where there are no labels."""
    if instances is None:
        return np.zeros((len(quad.row), 2, 2), np.uint32)
    return np.ascontiguousarray(windows(quad, instances, 2), np.uint32)


def is_one_surface(quad: Quad, z_depth: Any, instances: NDArray[Any] | None) -> Mask:
    """Tell which quads lie on one surface: all depths known, no depth step along any side, one instance.

    A large step is no edge where 1/z goes on changing at the same rate on one of its sides: planes are linear in
    1/z, and a floor seen at a grazing angle changes by more than `DEPTH_STEP` a pixel.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        instances: (T, H, W), or None.

    Returns:
        (N,) bool.
    """
    return smooth_at(quad, depth_windows(quad, z_depth), label_windows(quad, instances))


def smooth_at(quad: Quad, z_around: NDArray[np.float32], labels_around: NDArray[np.uint32]) -> Mask:
    """Do what `is_one_surface` does with windows that are cut already."""
    from .surface_kernels import find_smooth

    smooth: Mask = find_smooth(*quad.place, z_around, labels_around)
    return smooth


def sample_z(quad: Quad, z_depth: Any, smooth: Mask) -> tuple[Float, Float]:
    """Read depth: 1/z bilinearly where `smooth`, else the containing pixel's surface extended; exact on planes.

    Args:
        quad: N quads.
        z_depth: (T, H, W), NaN unknown.
        smooth: (N,) from `is_one_surface`.

    Returns:
        z (N,) float64, NaN where unknown or off the raster; and how much depth changes over a pixel there, (N,).
    """
    return read_z(quad, depth_windows(quad, z_depth), smooth)


def read_z(quad: Quad, z_around: NDArray[np.float32], smooth: Mask) -> tuple[Float, Float]:
    """Do what `sample_z` does with windows that are cut already."""
    from .surface_kernels import read_depth

    width, height = quad.size
    z, change = read_depth(*quad.place, z_around, smooth, height, width)
    return z, change


def sample_vectors(quad: Quad, raster: Any, smooth: Mask) -> Float:
    """Read (T, H, W, C) rasters: bilinearly where `smooth`, the containing pixel elsewhere.

    Returns:
        (N, C) float64, NaN off the raster.
    """
    from .surface_kernels import read_vectors

    around = np.ascontiguousarray(windows(quad, raster, 2), np.float32)
    vectors: Float = read_vectors(*quad.place, around, smooth)
    return vectors
