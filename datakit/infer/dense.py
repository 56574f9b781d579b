"""Follow every cell of a grid: arXiv 2512.08924, algorithm 1, with an occupancy grid.

What the paper leaves open is a parameter each (`InferParams.dense_*`, `visible_at`, `position`): how a place is rounded
to cells, when a track counts as seen in a cell, how many cells are followed at a time, and when to stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .answers import OpenClip
from .depth import depth_maps
from .grids import cell_at, cell_centres, grid_shape
from .params import InferParams
from .tracks import ask_tracks, places

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Map = NDArray[np.float32]

#: In the map of tracks: not covered by any; and there is nothing to follow.
NO_TRACK, NOTHING_THERE = -1, -2


@dataclass
class Coverage:
    """Which track covers which cell: the dense correspondence.

    Attributes:
        track_of: (T, rows, columns) int32, number of the first track that covers a cell; -1 for none (depth alone is
            known of it), -2 where there is no answer to follow.
        z_depth: (T, rows, columns) float32 that tracks were compared with, and that stands for cells without a track;
            NaN unknown.
        num_tracks: Followed so far.
        num_queries: Asked so far, depth included.
        stop: Share of cells at which no more tracks are begun.
    """

    track_of: NDArray[np.int32]
    z_depth: Map
    num_tracks: int = 0
    num_queries: int = 0
    stop: float = 1.0

    @property
    def share(self) -> float:
        """Covered share of the cells that can be followed."""
        total = int((self.track_of != NOTHING_THERE).sum())
        return float((self.track_of >= 0).sum() / total) if total else 1.0

    @property
    def naive_queries(self) -> int:
        """Queries of following each cell of each frame to all frames."""
        frames, rows, columns = self.track_of.shape
        return frames * frames * rows * columns

    @property
    def saving(self) -> float:
        """How many times fewer queries were asked than the naive way asks."""
        return self.naive_queries / max(self.num_queries, 1)


@dataclass(frozen=True)
class DenseBatch:
    """Tracks that were followed together.

    Attributes:
        first: Number of the first of them; the others follow.
        query_uv: (N, 2) float32.
        query_frame: (N,) int64.
        points_cam: (N, T, 3) float32 at each frame's time in its camera.
        visible: (N, T) float32 probability.
        confidence: (N, T) float32.
    """

    first: int
    query_uv: Map
    query_frame: Index
    points_cam: Map
    visible: Map
    confidence: Map


@dataclass(frozen=True)
class DenseTracks:
    """All of a clip's dense tracks, as plain arrays; see `DenseBatch` and `Coverage`."""

    query_uv: Map
    query_frame: Index
    points_cam: Map
    visible: Map
    confidence: Map
    track_of: NDArray[np.int32]
    z_depth: Map
    num_queries: int
    saving: float
    share: float


def start_coverage(clip: OpenClip, params: InferParams) -> Coverage:
    """Return an empty grid of occupancy; depth of all its cells is asked for."""
    columns, rows = grid_shape(params.dense_size, clip.info.size)
    shape = (clip.num_frames, rows, columns)
    track_of, z_depth = np.full(shape, NO_TRACK, np.int32), np.empty(shape, np.float32)
    for found in depth_maps(clip, (rows, columns)):
        z_depth[found.t] = found.z_depth
        unknown = np.isnan(found.z_depth) | ~(found.confidence >= params.least_confidence)
        track_of[found.t][unknown] = NOTHING_THERE
    return Coverage(track_of, z_depth, num_queries=track_of.size, stop=params.dense_stop)


def dense_tracks(
    clip: OpenClip, coverage: Coverage, params: InferParams, fx_fy: Float | None = None
) -> Iterator[DenseBatch]:
    """Follow cells until all are covered; batches are yielded as they are done, and `coverage` filled in.

    First all of frame 0, then what is left of the last frame, then a share of every frame's rest at a time: what a
    frame's end shows, those between mostly show too.

    Args:
        clip: Open clip.
        coverage: From `start_coverage`; changed.
        params: How.
        fx_fy: (T, 2), for places that are `projected`.
    """
    if fx_fy is None:
        if params.position == "projected":
            raise ValueError("places are projected with focal lengths")
        fx_fy = np.full((clip.num_frames, 2), np.nan)
    _, rows, columns = coverage.track_of.shape
    centres = cell_centres(columns, rows)
    rng = np.random.default_rng(params.seed)
    while coverage.share < coverage.stop:
        frame, cell = _choose(coverage, params.dense_batch, rng)
        answer = ask_tracks(clip, centres[cell], frame)
        shape = (len(cell), clip.num_frames)
        uv, z = places(answer, shape, params, fx_fy), np.asarray(answer.xyz[:, 2], np.float64).reshape(shape)
        visible = np.asarray(answer.visible, np.float32).reshape(shape)
        _mark(coverage, uv, z, visible, frame, cell, params)
        batch = DenseBatch(
            coverage.num_tracks,
            centres[cell].astype(np.float32),
            frame,
            np.asarray(answer.xyz, np.float32).reshape(*shape, 3),
            visible,
            np.asarray(answer.confidence, np.float32).reshape(shape),
        )
        coverage.num_tracks += len(cell)
        coverage.num_queries += len(answer)
        yield batch


def all_dense_tracks(clip: OpenClip, params: InferParams, fx_fy: Float | None = None) -> DenseTracks:
    """Do what `dense_tracks` does, with all tracks in memory."""
    coverage = start_coverage(clip, params)
    batches = list(dense_tracks(clip, coverage, params, fx_fy))
    count = clip.num_frames

    def joined(name: str, *shape: int) -> NDArray:
        parts = [getattr(batch, name) for batch in batches]
        return np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)

    return DenseTracks(
        joined("query_uv", 2),
        joined("query_frame").astype(np.int64),
        joined("points_cam", count, 3),
        joined("visible", count),
        joined("confidence", count),
        coverage.track_of,
        coverage.z_depth,
        coverage.num_queries,
        coverage.saving,
        coverage.share,
    )


def _choose(coverage: Coverage, most: int, rng: np.random.Generator) -> tuple[Index, Index]:
    """Pick cells that nothing covers yet: their frames and numbers."""
    free = (coverage.track_of == NO_TRACK).reshape(len(coverage.track_of), -1)
    for end in (0, len(free) - 1):
        cells = np.flatnonzero(free[end])
        if cells.size:
            chosen = _some(cells, most, rng)
            return np.full(len(chosen), end, np.int64), chosen
    left = [np.flatnonzero(row) for row in free]
    frames = [t for t, cells in enumerate(left) if cells.size]
    share = max(1, most // len(frames))
    parts = [(t, _some(left[t], share, rng)) for t in frames][:most]
    return (
        np.concatenate([np.full(len(cells), t, np.int64) for t, cells in parts]),
        np.concatenate([cells for _, cells in parts]),
    )


def _some(cells: Index, most: int, rng: np.random.Generator) -> Index:
    return cells if len(cells) <= most else np.sort(rng.choice(cells, most, replace=False))


def _mark(
    coverage: Coverage,
    uv: Float,
    z: Float,
    visible: Map,
    frame: Index,
    cell: Index,
    params: InferParams,
) -> None:
    """Enter tracks (N, T) in the map wherever they are seen; what is covered already stays."""
    frames, rows, columns = coverage.track_of.shape
    number = coverage.num_tracks + np.arange(len(frame), dtype=np.int32)
    flat = coverage.track_of.reshape(-1)
    # A track covers the cell it was asked for, whatever is thought of it.
    _enter(flat, frame * rows * columns + cell, number)
    with np.errstate(invalid="ignore"):
        seen = (visible >= params.visible_at) & ((uv >= 0) & (uv <= 1)).all(axis=-1)
    track, t = np.nonzero(seen)
    for row, col in _cells_at(uv[track, t], columns, rows, params.dense_rounding):
        covers = (row >= 0) & (row < rows) & (col >= 0) & (col < columns)
        at = (t * rows + row) * columns + col
        if params.dense_agreement is not None:
            there = coverage.z_depth.reshape(-1)[np.where(covers, at, 0)]
            with np.errstate(invalid="ignore"):
                covers &= np.abs(z[track, t] - there) < params.dense_agreement * there
        _enter(flat, at[covers], number[track[covers]])


def _enter(flat: NDArray[np.int32], at: Index, number: NDArray[np.int32]) -> None:
    """Give cells to the first track of those that cover them."""
    cells, first = np.unique(at, return_index=True)
    open_cells = flat[cells] == NO_TRACK
    flat[cells[open_cells]] = number[first[open_cells]]


def _cells_at(uv: Float, columns: int, rows: int, rounding: str) -> Iterator[tuple[Index, Index]]:
    """Yield rows and columns of the cells that places cover; with `four` some may lie beyond the border."""
    if rounding == "nearest":  # the nearest centre is that of the cell that holds the place
        yield cell_at(uv, columns, rows)
        return
    left = np.floor(uv[:, 0] * columns - 0.5).astype(np.int64)
    top = np.floor(uv[:, 1] * rows - 0.5).astype(np.int64)
    for down in (0, 1):
        for right in (0, 1):
            yield top + down, left + right
