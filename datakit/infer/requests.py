"""Which pixels are followed: a grid that is filled up as things come into sight, or the lines of a CSV file."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import FormatError, LayoutError, UsageError

from .grids import cell_at, cell_centres, grid_shape
from .video import SourceInfo

#: Ids of grid tracks are this times the window they begin in, plus their cell, so that no two windows need to talk.
ID_STRIDE = 1 << 24
_MOST_REQUESTS = 1 << 22


@dataclass(frozen=True)
class TrackRequests:
    """What to follow.

    Attributes:
        grid: Cells along the longer side of a grid of tracks, begun in the first frame and filled up in every later
            window where nothing is followed; 0 for none.
        frame: (N,) int64, used frame (not number in the source) of each single request.
        uv: (N, 2) float32 place in it, shares of width and height.
    """

    grid: int
    frame: NDArray[np.int64]
    uv: NDArray[np.float32]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be followed."""
        return not self.grid and not len(self.frame)

    def expected(self, size: tuple[int, int]) -> int:
        """Return how many tracks a window will have, about: all of the grid, and all single ones."""
        columns, rows = grid_shape(self.grid, size) if self.grid else (0, 0)
        return columns * rows + len(self.frame)

    def describe(self) -> dict[str, Any]:
        """Return what makes the requests what they are, as plain data."""
        digest = (
            hashlib.sha256(self.frame.tobytes() + self.uv.tobytes()).hexdigest() if len(self.frame) else ""
        )
        return {"grid": self.grid, "points": len(self.frame), "sha256": digest}

    def begin(
        self,
        window: int,
        first_new: int,
        stop: int,
        size: tuple[int, int],
        taken_uv: NDArray[np.floating[Any]],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the tracks that begin in a window.

        Args:
            window: Its number.
            first_new: First used frame that no earlier window had.
            stop: One after its last used frame.
            size: (W, H) of the video.
            taken_uv: (M, 2) places in frame `first_new`, or just before it, of tracks that go on; NaN unknown.

        Returns:
            ids (K,), used frame (K,), uv (K, 2) float32.
        """
        rows = np.flatnonzero((self.frame >= first_new) & (self.frame < stop))
        ids, frames, uv = rows.astype(np.int64), self.frame[rows], self.uv[rows]
        if self.grid:
            cells = _free_cells(self.grid, size, taken_uv)
            count = len(self.frame)
            ids = np.concatenate([ids, count + window * ID_STRIDE + cells])
            frames = np.concatenate([frames, np.full(len(cells), first_new)])
            centres = cell_centres(*grid_shape(self.grid, size)).astype(np.float32)
            uv = np.concatenate([uv, centres[cells]])
        return ids, frames, uv


def _free_cells(cells: int, size: tuple[int, int], taken_uv: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    columns, rows = grid_shape(cells, size)
    row, col = cell_at(taken_uv[((taken_uv >= 0) & (taken_uv <= 1)).all(axis=1)], columns, rows)
    is_free = np.ones(columns * rows, bool)
    is_free[row * columns + col] = False
    return np.flatnonzero(is_free)


def parse_requests(text: str, info: SourceInfo) -> TrackRequests:
    """Read what the user wants followed: `none`, `grid:N`, or a CSV file.

    The file has a heading and the columns `frame` (number in the source), `x` and `y` (pixels of the shown picture,
    corner origin: the centre of the first pixel is 0.5, 0.5).

    Raises:
        UsageError: The text is none of these, or a frame is not among those used.
        LayoutError: There is no such file.
        FormatError: A line cannot be read or lies outside the picture.
    """
    nothing = TrackRequests(0, np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
    if text == "none":
        return nothing
    if text.startswith("grid:"):
        count = text.removeprefix("grid:")
        if not count.isdecimal() or not 1 <= int(count) <= 1024:
            raise UsageError("A grid of tracks has 1 to 1024 cells a side", expected="grid:N", found=text)
        return TrackRequests(int(count), nothing.frame, nothing.uv)
    if not text.lower().endswith(".csv"):
        raise UsageError("Unknown kind of tracks", expected="none, grid:N, or FILE.csv", found=text)
    return _read_csv(Path(text), info)


def _read_csv(path: Path, info: SourceInfo) -> TrackRequests:
    if not path.is_file():
        raise LayoutError("No such file of tracks", where=path, expected="columns frame, x, y")
    used = {int(number): index for index, number in enumerate(info.numbers)}
    frames, places = [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"frame", "x", "y"} - set(reader.fieldnames or ())
            if missing:
                raise FormatError(
                    "A column is missing", where=path, expected="frame, x, y", found=reader.fieldnames
                )
            for row in reader:
                frame, x, y = _read_row(row, f"{path}, line {reader.line_num}", info.size)
                if frame not in used:
                    raise UsageError(
                        "A track begins in a frame that is not used",
                        where=f"{path}, line {reader.line_num}",
                        expected=f"a number from {info.numbers[0]} to {info.numbers[-1]} that was chosen",
                        found=frame,
                    )
                frames.append(used[frame])
                places.append((x / info.size[0], y / info.size[1]))
                if len(frames) > _MOST_REQUESTS:
                    raise FormatError("Too many tracks", where=path, expected=f"at most {_MOST_REQUESTS}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError("The file is not CSV", where=path, found=error) from error
    if not frames:
        raise FormatError("The file names no pixel", where=path, expected="a line for each track")
    return TrackRequests(0, np.array(frames, np.int64), np.array(places, np.float32).clip(0, 1))


def _read_row(row: dict[str, Any], where: str, size: tuple[int, int]) -> tuple[int, float, float]:
    try:
        frame, x, y = int(row["frame"]), float(row["x"]), float(row["y"])
    except (TypeError, ValueError) as error:
        raise FormatError("A line cannot be read", where=where, expected="frame,x,y", found=error) from error
    if not (math.isfinite(x) and math.isfinite(y) and 0 <= x <= size[0] and 0 <= y <= size[1]):
        raise FormatError(
            "A pixel lies outside the picture", where=where, expected=f"0..{size}", found=(x, y)
        )
    return frame, x, y
