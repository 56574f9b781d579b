"""Predictions of a model, or of whatever answers queries, for a benchmark's clip."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import LayoutError
from datakit.infer.answers import Answerer, ClipFrames
from datakit.infer.job import default_params, plan_windows
from datakit.infer.params import InferParams
from datakit.infer.stitch import Reconstruction, stitch
from datakit.infer.tracks import TrackQueries, carry_tracks
from datakit.infer.window import WindowResult, reconstruct_window

from .benchmarks import BenchmarkClip
from .predictions import Prediction


def predict(clip: BenchmarkClip, answerer: Answerer, params: InferParams | None = None) -> Prediction:
    """Ask for everything that benchmarks measure.

    Tracks in the cameras are asked with t_cam = t_tgt, those in one frame with t_cam held at the first frame. A clip
    longer than the answerer's is cut into windows that overlap and are joined by a similarity; a query is followed
    from the first window that holds its frame, so its track has no answer (NaN, not visible) in windows before that.

    Args:
        clip: A benchmark's clip with its images.
        answerer: A model.
        params: How; None for the defaults.

    Returns:
        The prediction, in the unit of the first window.

    Raises:
        LayoutError: The clip's images are not there.
    """
    if clip.rgb is None:
        raise LayoutError("A clip has no images to look at", where=clip.name)
    params = params or default_params(answerer)
    windows: list[WindowResult] = []
    stop_before = 0
    for first, stop in plan_windows(clip.num_frames, params.window, params.overlap):
        rgb = np.stack([clip.rgb(t) for t in range(first, stop)])
        opened = answerer.open(ClipFrames(rgb, _times(clip)[first:stop], np.arange(first, stop)))
        carried = carry_tracks(windows[-1], params, stop_before - first) if windows and clip.tracks else None
        queries = _queries(clip, first, stop_before, stop, carried)
        windows.append(reconstruct_window(opened, params, queries))
        stop_before = stop
    return _prediction(clip, stitch(windows, params), params)


def _times(clip: BenchmarkClip) -> NDArray[np.float64]:
    increasing = bool((np.diff(clip.times_s) > 0).all())
    return clip.times_s if increasing else np.arange(clip.num_frames, dtype=np.float64)


def _queries(
    clip: BenchmarkClip, first: int, first_new: int, stop: int, carried: TrackQueries | None
) -> TrackQueries | None:
    """Tracks of the window before that were still seen, and queries whose frame this window is the first to hold."""
    if clip.tracks is None:
        return None
    frame = np.clip(np.round(clip.tracks.query_xyt[:, 2]).astype(np.int64), 0, clip.num_frames - 1)
    ids = np.flatnonzero((frame >= first_new) & (frame < stop))
    uv = np.clip(clip.tracks.query_xyt[ids, :2] / np.array(clip.size), 0.0, 1.0)
    if carried is None:
        return TrackQueries(uv, frame[ids] - first, ids)
    return TrackQueries(
        np.concatenate([carried.uv, uv]),
        np.concatenate([carried.frame, frame[ids] - first]),
        np.concatenate([carried.ids, ids]),
    )


def _prediction(clip: BenchmarkClip, rec: Reconstruction, params: InferParams) -> Prediction:
    frames = [rec.frame(t) for t in range(clip.num_frames)]
    z_depth = np.stack([each.z_depth for each in frames])
    height, width = z_depth.shape[1:]
    intrinsics = np.zeros((clip.num_frames, 3, 3))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = rec.fx_fy[:, 0] * width, rec.fx_fy[:, 1] * height
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1.0
    return Prediction(
        z_depth=z_depth,
        world_from_cam=rec.world_from_cam,
        intrinsics=intrinsics,
        **_tracks(clip, rec, params),
    )


def _tracks(clip: BenchmarkClip, rec: Reconstruction, params: InferParams) -> dict[str, Any]:
    """Place the tracks that were followed in the rows of their queries."""
    if clip.tracks is None or rec.tracks is None:
        return {}
    shape = (len(clip.tracks.query_xyt), clip.num_frames)
    world, xyz = np.full((*shape, 3), np.nan), np.full((*shape, 3), np.nan)
    uv, visible = np.full((*shape, 2), np.nan), np.zeros(shape, bool)
    found = rec.tracks
    world[found.ids], xyz[found.ids] = found.points_world, found.points_cam
    uv[found.ids] = found.uv * np.array(clip.size)
    visible[found.ids] = np.nan_to_num(found.visible) >= params.visible_at
    return {"tracks_world": world, "tracks_xyz": xyz, "tracks_uv": uv, "visible": visible}
