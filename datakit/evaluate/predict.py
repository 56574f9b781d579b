"""Predictions of a model, or of whatever answers queries, for a benchmark's clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit.errors import LayoutError
from datakit.infer.answers import Answerer, ClipFrames, OpenClip
from datakit.infer.job import default_params, plan_windows
from datakit.infer.params import InferParams
from datakit.infer.stitch import Reconstruction, stitch
from datakit.infer.tracks import TrackQueries, carry_back, carry_tracks, follow, join_tracks
from datakit.infer.window import WindowResult, reconstruct_window

from .benchmarks import BenchmarkClip
from .predictions import Prediction


def predict(clip: BenchmarkClip, answerer: Answerer, params: InferParams | None = None) -> Prediction:
    """Ask for everything that benchmarks measure.

    Tracks in the cameras are asked with t_cam = t_tgt, those in one frame with t_cam held at the first frame. A clip
    longer than the answerer's is cut into windows that overlap and are joined by a similarity. A query is followed
    from the first window that holds its frame, over seams in both directions; beyond a seam where its point is not
    surely seen there is no answer (NaN, not visible).

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
    spans = plan_windows(clip.num_frames, params.window, params.overlap)
    stop_before = 0
    for first, stop in spans:
        carried = carry_tracks(windows[-1], params, stop_before - first) if windows and clip.tracks else None
        queries = _queries(clip, first, stop_before, stop, carried)
        windows.append(reconstruct_window(_open(clip, answerer, first, stop), params, queries))
        stop_before = stop
    for number in reversed(range(len(windows) - 1)):
        earlier, shared = windows[number], spans[number][1] - spans[number + 1][0]
        queries = carry_back(windows[number + 1], earlier, params, shared)
        if len(queries):
            opened = _open(clip, answerer, *spans[number])
            back = follow(opened, queries, params, earlier.fx_fy, earlier.world_from_cam)
            windows[number] = replace(earlier, tracks=join_tracks(earlier.tracks, back))
    return _prediction(clip, stitch(windows, params), params)


def _open(clip: BenchmarkClip, answerer: Answerer, first: int, stop: int) -> OpenClip:
    assert clip.rgb is not None  # `predict` has looked
    rgb = np.stack([clip.rgb(t) for t in range(first, stop)])
    return answerer.open(ClipFrames(rgb, _times(clip)[first:stop], np.arange(first, stop)))


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
