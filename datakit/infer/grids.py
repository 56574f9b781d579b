"""Grids of cells over a picture, whatever its resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def grid_shape(cells: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (columns, rows) of nearly square cells, `cells` along the longer side of a picture (W, H).

    >>> grid_shape(16, (640, 360))
    (16, 9)
    """
    width, height = size
    longest = max(width, height)
    return max(1, round(cells * width / longest)), max(1, round(cells * height / longest))


def cell_centres(columns: int, rows: int) -> Float:
    """Return the (rows * columns, 2) centres of cells, row by row, as shares of the picture's width and height.

    >>> cell_centres(2, 1).tolist()
    [[0.25, 0.5], [0.75, 0.5]]
    """
    v, u = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    return np.stack([u, v], axis=-1).reshape(-1, 2)


def cell_at(uv: NDArray[np.floating], columns: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the cells that hold places (..., 2) of the picture; its far edge is in the last.

    >>> [part.tolist() for part in cell_at(np.array([[0.5, 0.0], [1.0, 1.0]]), 2, 1)]
    [[0, 0], [1, 1]]
    """
    col = np.minimum((uv[..., 0] * columns).astype(np.int64), columns - 1)
    row = np.minimum((uv[..., 1] * rows).astype(np.int64), rows - 1)
    return row, col


def resample_nearest(raster: NDArray, shape: tuple[int, int]) -> NDArray:
    """Read a raster (..., h, w) at the centres of the cells of another grid (rows, columns) over the same picture."""
    rows, columns = shape
    height, width = raster.shape[-2:]
    row, col = cell_at(cell_centres(columns, rows), width, height)
    return raster[..., row, col].reshape(*raster.shape[:-2], rows, columns)
