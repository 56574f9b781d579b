"""Depth, points, normals and motion on grids of any resolution, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .answers import OpenClip
from .grids import cell_at, cell_centres, grid_shape
from .params import InferParams

Map = NDArray[np.float32]


@dataclass(frozen=True)
class DepthMap:
    """Depth of one frame on a grid of (rows, columns) cells, asked for at their centres.

    Attributes:
        t: Frame of the clip.
        z_depth: (rows, columns) float32 along the optical axis in the clip's unit, NaN unknown or not in front.
        confidence: (rows, columns) float32.
        normal: (rows, columns, 3) float32 unit, camera frame.
    """

    t: int
    z_depth: Map
    confidence: Map
    normal: Map


@dataclass(frozen=True)
class PointMap:
    """Points of one frame, told in one camera.

    Attributes:
        t: Frame that shows them.
        points: (N, 3) float32 in the camera of `t_cam`, clip's unit, NaN unknown.
        confidence: (N,) float32.
        normal: (N, 3) float32 unit, the same camera.
        rgb: (N, 3) uint8, or None where no pictures were given.
    """

    t: int
    points: Map
    confidence: Map
    normal: Map
    rgb: NDArray[np.uint8] | None


def depth_maps(
    clip: OpenClip, shape: tuple[int, int], frames: Iterable[int] | None = None
) -> Iterator[DepthMap]:
    """Yield depth maps; one is in memory at a time.

    The resolution is free, that of the encoder is no limit: (u, v) is continuous, and edges follow the colour patch
    that is cut from the video's own frames (arXiv 2512.08924, table 10).

    Args:
        clip: Open clip.
        shape: (rows, columns).
        frames: Frames of the clip; None for all.
    """
    rows, columns = shape
    uv = cell_centres(columns, rows)
    for t in range(clip.num_frames) if frames is None else frames:
        when = np.full(len(uv), t, np.int64)
        answer = clip.ask(uv, when, when, when)
        z = np.asarray(answer.xyz[:, 2], np.float32)
        with np.errstate(invalid="ignore"):
            z_depth = np.where(z > 0, z, np.float32(np.nan)).reshape(shape)
        yield DepthMap(
            t,
            z_depth,
            np.asarray(answer.confidence, np.float32).reshape(shape),
            np.asarray(answer.normal, np.float32).reshape(*shape, 3),
        )


def point_maps(
    clip: OpenClip,
    shape: tuple[int, int],
    t_cam: int = 0,
    frames: Iterable[int] | None = None,
    rgb: NDArray[np.uint8] | None = None,
) -> Iterator[PointMap]:
    """Yield the points that frames show, all in one camera: the model's own point cloud, without any pose.

    Args:
        clip: Open clip.
        shape: (rows, columns).
        t_cam: Frame whose camera they are told in.
        frames: Frames of the clip; None for all.
        rgb: (T, H, W, 3) pictures to take colours from, at the pixels that hold the cells' centres.
    """
    rows, columns = shape
    uv = cell_centres(columns, rows)
    camera = np.full(len(uv), t_cam, np.int64)
    for t in range(clip.num_frames) if frames is None else frames:
        when = np.full(len(uv), t, np.int64)
        answer = clip.ask(uv, when, when, camera)
        colours = None
        if rgb is not None:
            row, col = cell_at(uv, rgb.shape[2], rgb.shape[1])
            colours = rgb[t, row, col]
        yield PointMap(
            t,
            np.asarray(answer.xyz, np.float32),
            np.asarray(answer.confidence, np.float32),
            np.asarray(answer.normal, np.float32),
            colours,
        )


def motion_targets(num_frames: int) -> tuple[int, ...]:
    """Return the times to which motion is asked for: both ends of the clip."""
    return (0, num_frames - 1) if num_frames > 1 else (0,)


def motion_maps(clip: OpenClip, shape: tuple[int, int]) -> Iterator[Map]:
    """Yield, frame by frame, how far what each cell shows moves in the world, as a share of its depth.

    The larger one of the displacements to the clip's two ends. NaN where unknown.

    Args:
        clip: Open clip.
        shape: (rows, columns).
    """
    rows, columns = shape
    uv = cell_centres(columns, rows)
    for t in range(clip.num_frames):
        when, largest = np.full(len(uv), t, np.int64), np.zeros(len(uv))
        for target in motion_targets(clip.num_frames):
            answer = clip.ask(uv, when, np.full(len(uv), target, np.int64), when)
            # The point's distance at the target time: it is where the displacement ends.
            distance = np.linalg.norm(np.asarray(answer.xyz, np.float64), axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                share = np.linalg.norm(np.asarray(answer.displacement, np.float64), axis=1) / distance
            largest = np.maximum(largest, share)
        yield largest.reshape(shape).astype(np.float32)


def is_static(motion: NDArray[np.floating], params: InferParams) -> NDArray[np.bool_]:
    """Tell what stands still; unknown motion does not."""
    with np.errstate(invalid="ignore"):
        return np.asarray(motion < params.static_at)


def depth_shape(params: InferParams, size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the depth grid over a picture (W, H)."""
    columns, rows = grid_shape(params.depth_size, size)
    return rows, columns


def motion_shape(params: InferParams, size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of the motion grid over a picture (W, H)."""
    columns, rows = grid_shape(params.motion_size, size)
    return rows, columns
