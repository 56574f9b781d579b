"""All that is inferred from one clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .answers import Answer, ClipInfo, OpenClip
from .cameras import camera_queries, find_cameras
from .dense import DenseTracks, all_dense_tracks
from .depth import depth_maps, depth_shape, motion_maps, motion_shape, motion_targets
from .grids import grid_shape, resample_nearest
from .params import InferParams
from .tracks import TrackQueries, TracksResult, follow, track_queries

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Map = NDArray[np.float32]

#: Of the naive cost of dense tracking, for an estimate: the paper found 1/5 to 1/15 (section 3).
_DENSE_SAVING = 5


@dataclass(frozen=True)
class WindowResult:
    """What is known of T frames after one clip; lengths are in the clip's own unit.

    Attributes:
        numbers: (T,) int64, of the frames in the video.
        times_s: (T,) float64.
        size: (W, H) of the video.
        fx_fy: (T, 2) float64 focal lengths in image widths and heights, principal point in the middle; NaN unknown.
        intrinsics_residual: (T,) float64; see `Cameras`.
        world_from_cam: (T, 4, 4) float64, world = camera of the first frame; NaN unknown.
        pose_residual: (T,) float64.
        pose_scale: (T,) float64.
        z_depth: (T, h, w) float32 at the centres of a grid's cells, NaN unknown.
        confidence: (T, h, w) float32.
        motion: (T, h, w) float32, motion to the clip's ends as a share of depth, NaN unknown.
        normal: (T, h, w, 3) float32 unit, camera frame; or None.
        tracks: Tracks that were asked for, or None.
        dense: Tracks of all cells of a grid, or None.
    """

    numbers: Index
    times_s: Float
    size: tuple[int, int]
    fx_fy: Float
    intrinsics_residual: Float
    world_from_cam: Float
    pose_residual: Float
    pose_scale: Float
    z_depth: Map
    confidence: Map
    motion: Map
    normal: Map | None
    tracks: TracksResult | None
    dense: DenseTracks | None

    @property
    def pose_is_known(self) -> NDArray[np.bool_]:
        """(T,) bool."""
        return np.asarray(np.isfinite(self.world_from_cam).all(axis=(1, 2)))


def reconstruct_window(
    clip: OpenClip,
    params: InferParams,
    tracks: TrackQueries | None = None,
    progress: Callable[[int], object] | None = None,
) -> WindowResult:
    """Ask for everything that is wanted of a clip. The result follows from the arguments alone.

    Args:
        clip: Open clip.
        params: What is wanted.
        tracks: Pixels to follow; None for none.
        progress: Told the number of queries after each answer.
    """
    if progress is not None:
        clip = _Watched(clip, progress)
    info = clip.info
    cameras = find_cameras(clip, params)
    shape = depth_shape(params, info.size)
    z_depth, confidence = (np.empty((clip.num_frames, *shape), np.float32) for _ in range(2))
    normal = np.empty((clip.num_frames, *shape, 3), np.float32) if params.normals else None
    for found in depth_maps(clip, shape):
        z_depth[found.t], confidence[found.t] = found.z_depth, found.confidence
        if normal is not None:
            normal[found.t] = found.normal
    moving = np.stack(list(motion_maps(clip, motion_shape(params, info.size))))
    followed = None
    if tracks is not None and len(tracks):
        followed = follow(clip, tracks, params, cameras.fx_fy, cameras.world_from_cam)
    return WindowResult(
        numbers=info.numbers,
        times_s=info.times_s,
        size=info.size,
        fx_fy=cameras.fx_fy,
        intrinsics_residual=cameras.intrinsics_residual,
        world_from_cam=cameras.world_from_cam,
        pose_residual=cameras.pose_residual,
        pose_scale=cameras.pose_scale,
        z_depth=z_depth,
        confidence=confidence,
        motion=resample_nearest(moving, shape),
        normal=normal,
        tracks=followed,
        dense=all_dense_tracks(clip, params, cameras.fx_fy) if params.dense else None,
    )


def count_queries(
    params: InferParams, num_frames: int, num_tracks: int, size: tuple[int, int]
) -> dict[str, int]:
    """Count the queries of `reconstruct_window` before it starts; exact but for `dense`, which is an estimate.

    Args:
        params: What is wanted.
        num_frames: Frames of the clip.
        num_tracks: Pixels to follow.
        size: (W, H) of the video.

    Returns:
        Queries by what they are for: cameras, depth, motion, tracks, dense.
    """
    rows, columns = depth_shape(params, size)
    motion_rows, motion_columns = motion_shape(params, size)
    dense = 0
    if params.dense:
        cells = int(np.prod(grid_shape(params.dense_size, size)))
        dense = num_frames * cells + num_frames**2 * cells // _DENSE_SAVING
    return {
        "cameras": camera_queries(params, num_frames, size),
        "depth": num_frames * rows * columns,
        "motion": num_frames * motion_rows * motion_columns * len(motion_targets(num_frames)),
        "tracks": track_queries(params, num_frames, num_tracks),
        "dense": dense,
    }


@dataclass(frozen=True)
class _Watched:
    """An open clip that tells how many queries it has answered."""

    clip: OpenClip
    progress: Callable[[int], object]

    @property
    def info(self) -> ClipInfo:
        return self.clip.info

    @property
    def num_frames(self) -> int:
        return self.clip.num_frames

    def ask(self, uv: NDArray[np.floating], t_src: Index, t_tgt: Index, t_cam: Index) -> Answer:
        answer = self.clip.ask(uv, t_src, t_tgt, t_cam)
        self.progress(len(answer))
        return answer
