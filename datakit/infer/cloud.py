"""Coloured world points of a scene's depth maps, frame by frame: what point-cloud files and the viewer show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import QualityError, UsageError
from datakit.motion import MotionKind
from datakit.scene import Scene, View

#: Frames whose confidences are looked at to find the limit.
_LIMIT_FRAMES = 64


@dataclass(frozen=True)
class CloudOptions:
    """Which points are taken.

    Attributes:
        most: Largest number of points, over all frames.
        drop: Share of the least confident cells that is left out, of those with depth. 0.15 keeps the 85 % on which
            D4RT aligns its chunks (arXiv 2512.08924 §4).
        edge: A cell is left out where the depth of a neighbour differs by more than this share: between a near and a
            far surface a model answers with something in the middle, which hangs in the air. 0 for no such check.
        seed: Of the choice where there are more than `most`.
    """

    most: int = 2_000_000
    drop: float = 0.15
    edge: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.most < 1 or not 0 <= self.drop < 1 or self.edge < 0:
            raise UsageError("Options of the point cloud are out of range", found=self)


@dataclass(frozen=True)
class FramePoints:
    """Points of one frame.

    Attributes:
        t: Frame of the view.
        xyz: (N, 3) float64, world.
        rgb: (N, 3) uint8.
        confidence: (N,) float32 in [0, 1]; ones where the scene has none.
        is_moving: (N,) bool, False only where the scene says that the point is static.
        spacing: (N,) float32, how wide the point's cell is at its depth, world units: far points stand further apart.
    """

    t: int
    xyz: NDArray[np.float64]
    rgb: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    is_moving: NDArray[np.bool_]
    spacing: NDArray[np.float32]


def pick_view(scene: Scene, name: str | None) -> View:
    """Return the view of that name, or the first that has depth.

    Raises:
        UsageError: No such view.
        QualityError: No view has depth.
    """
    if name is not None:
        if name not in scene.views:
            raise UsageError("No such view", where=scene.path, expected=", ".join(scene.views), found=name)
        return scene.views[name]
    for view in scene.views.values():
        if "z_depth" in view.layers:
            return view
    raise QualityError("No view has depth, so there are no points", where=scene.path)


def frame_points(
    scene: Scene, view: View, options: CloudOptions, frames: NDArray[np.int64] | None = None
) -> Iterator[FramePoints]:
    """Yield the points of each frame that has a pose and depth; the same bytes and options give the same points.

    Args:
        scene: Open scene.
        view: One of its views.
        options: Which points.
        frames: Frames to take; None for all.
    """
    chosen = np.arange(view.num_frames) if frames is None else frames
    chosen = chosen[view.pose_is_known[chosen]]
    limit = _confidence_limit(view, chosen, options.drop)
    total = sum(int(_kept(view, int(t), limit, options.edge)[0].sum()) for t in chosen)
    share = min(1.0, options.most / max(total, 1))
    static_ids = scene.motion.instance_ids[scene.motion.instance_motion == MotionKind.STATIC]
    for t in chosen.tolist():
        kept, z_depth, confidence = _kept(view, t, limit, options.edge)
        cells = np.flatnonzero(kept)
        if share < 1:
            rng = np.random.default_rng([options.seed, t])
            cells = np.sort(rng.choice(cells, int(len(cells) * share), replace=False))
        yield _lift(view, t, cells, z_depth, confidence, static_ids)


def _lift(
    view: View,
    t: int,
    cells: NDArray[np.intp],
    z_depth: NDArray[np.float32],
    confidence: NDArray[np.float32],
    static_ids: NDArray[np.uint32],
) -> FramePoints:
    height, width = z_depth.shape
    uv = g.pixel_centres((width, height)).reshape(-1, 2)[cells]
    points_cam = g.unproject_distorted(
        uv,
        z_depth.ravel()[cells],
        view.depth_intrinsics[t],
        view.record["camera_model"],
        view.record["distortion"],
    )
    ids = view.instances(t)
    if ids is None:
        is_moving = np.full(len(cells), 0 not in static_ids)
    else:
        is_moving = ~np.isin(_on_grid(ids, (width, height)).ravel()[cells], static_ids)
    return FramePoints(
        t,
        g.transform_points(view.world_from_cam[t], points_cam),
        _colours(view, t, (width, height)).reshape(-1, 3)[cells],
        confidence.ravel()[cells],
        is_moving,
        (z_depth.ravel()[cells] / view.depth_intrinsics[t, 0, 0]).astype(np.float32),
    )


def _colours(view: View, t: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Colours on the depth grid, averaged over each cell; grey where the view has none."""
    if "rgb" not in view.layers:
        return np.full((size[1], size[0], 3), 160, np.uint8)
    rgb = view.rgb(t)
    grid_from_colour = view.depth_intrinsics[t] @ np.linalg.inv(view.layer_intrinsics("rgb")[t])
    plain = np.diag([size[0] / rgb.shape[1], size[1] / rgb.shape[0], 1.0])
    if np.allclose(grid_from_colour, plain, rtol=1e-6, atol=1e-6 * max(size)):
        return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    # OpenCV counts from the middle of the first pixel, the contract from its corner.
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    matrix = np.linalg.inv(shift) @ grid_from_colour @ shift
    return np.asarray(cv2.warpPerspective(rgb, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)


def _on_grid(raster: NDArray[np.uint32], size: tuple[int, int]) -> NDArray[np.uint32]:
    """Sample another grid of the same picture at the centres of this one's cells, nearest."""
    height, width = raster.shape
    col = ((np.arange(size[0]) + 0.5) / size[0] * width).astype(np.intp)
    row = ((np.arange(size[1]) + 0.5) / size[1] * height).astype(np.intp)
    return raster[row[:, None], col]


def _kept(
    view: View, t: int, limit: float, edge: float
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
    z_depth = view.z_depth(t)
    if z_depth is None:
        raise QualityError("View has no depth", where=f"view {view.name}")
    confidence = _confidence(view, t, z_depth.shape)
    with np.errstate(invalid="ignore"):
        kept = np.isfinite(z_depth) & (z_depth > 0) & (confidence >= limit)
    if edge > 0:
        kept &= ~_is_edge(z_depth, edge)
    return kept, z_depth, confidence


def _is_edge(z_depth: NDArray[np.float32], edge: float) -> NDArray[np.bool_]:
    """Tell where the step from one side to the other exceeds a share of depth by more than the slope explains.

    A slanted floor has large steps far away, but equal ones on both sides. So a cell is an edge where its two steps
    along a row or column differ by more than `edge` of its depth.
    """
    is_edge = np.zeros(z_depth.shape, bool)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            step = np.diff(z_depth, axis=axis)
            before, after = (step[:-1], step[1:]) if axis == 0 else (step[:, :-1], step[:, 1:])
            inner = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
            is_edge[inner] |= np.abs(after - before) > edge * z_depth[inner]
    return is_edge


def _confidence(view: View, t: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    confidence = view.depth_confidence(t)
    if confidence is None or confidence.shape != shape:
        return np.ones(shape, np.float32)
    return confidence


def _confidence_limit(view: View, frames: NDArray[np.int64], drop: float) -> float:
    """Return the confidence below which `drop` of the cells with depth lie."""
    if drop == 0 or "depth_confidence" not in view.layers or not len(frames):
        return -np.inf
    looked = frames[np.unique(np.linspace(0, len(frames) - 1, _LIMIT_FRAMES).round().astype(int))]
    values = []
    for t in looked.tolist():
        z_depth = view.z_depth(t)
        if z_depth is not None:
            values.append(_confidence(view, t, z_depth.shape)[np.isfinite(z_depth)])
    every = np.concatenate(values) if values else np.zeros(0, np.float32)
    return float(np.quantile(every, drop)) if every.size else -np.inf
