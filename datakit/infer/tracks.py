"""Tracks of chosen pixels through a clip, in each frame's camera and in one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import UsageError

from .answers import Answer, OpenClip
from .params import InferParams

if TYPE_CHECKING:
    from .window import WindowResult

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Map = NDArray[np.float32]

#: Queries of a call: memory of the answers stays bounded.
_MOST_QUERIES = 1 << 18


@dataclass(frozen=True)
class TrackQueries:
    """Pixels to follow.

    Attributes:
        uv: (N, 2) places, shares of the picture's width and height.
        frame: (N,) int64 frame of the clip in which each is there.
        ids: (N,) int64, by which tracks of several windows are joined.
    """

    uv: NDArray[np.floating[Any]]
    frame: Index
    ids: Index

    def __post_init__(self) -> None:
        if self.uv.shape != (len(self.ids), 2) or self.frame.shape != self.ids.shape:
            raise UsageError(
                "Track queries do not fit each other", found=(self.uv.shape, self.frame.shape, self.ids.shape)
            )
        if len(np.unique(self.ids)) != len(self.ids):
            raise UsageError("Two tracks have one id", where="ids")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any]) -> TrackQueries:
        """Return some of them."""
        return TrackQueries(self.uv[rows], self.frame[rows], self.ids[rows])


@dataclass(frozen=True)
class TracksResult:
    """N tracks through T frames.

    Attributes:
        ids: (N,) int64.
        query_uv: (N, 2) float32 where each was asked for.
        query_frame: (N,) int64 and when.
        points_cam: (N, T, 3) float32, at each frame's time in its camera.
        points_world: (N, T, 3) float32, at each frame's time in the world's frame; NaN unknown.
        visible: (N, T) float32 probability; NaN unknown.
        uv: (N, T, 2) float32 where each is in each frame, shares of the picture; also outside.
        confidence: (N, T) float32; NaN unknown.
    """

    ids: Index
    query_uv: Map
    query_frame: Index
    points_cam: Map
    points_world: Map
    visible: Map
    uv: Map
    confidence: Map


def follow(
    clip: OpenClip, queries: TrackQueries, params: InferParams, fx_fy: Float, world_from_cam: Float
) -> TracksResult:
    """Follow pixels through all frames of a clip.

    Args:
        clip: Open clip.
        queries: What to follow.
        params: How.
        fx_fy: (T, 2) focal lengths, for places that are `projected`.
        world_from_cam: (T, 4, 4), for tracks in the world by `poses`.
    """
    count = clip.num_frames
    points, uv, visible, confidence = _empty(len(queries), count)
    world = np.empty_like(points)
    step = max(1, _MOST_QUERIES // count)
    for at in range(0, len(queries), step):
        part = slice(at, at + step)
        answer = ask_tracks(clip, queries.uv[part], queries.frame[part])
        shape = answer.visible.reshape(-1, count).shape
        points[part] = answer.xyz.reshape(*shape, 3)
        uv[part] = places(answer, shape, params, fx_fy)
        visible[part], confidence[part] = answer.visible.reshape(shape), answer.confidence.reshape(shape)
        if params.world_tracks == "queries":
            world[part] = ask_tracks(clip, queries.uv[part], queries.frame[part], t_cam=0).xyz.reshape(
                *shape, 3
            )
        else:
            world[part] = g.transform_points(world_from_cam, points[part])
    return TracksResult(
        queries.ids, queries.uv.astype(np.float32), queries.frame, points, world, visible, uv, confidence
    )


def ask_tracks(
    clip: OpenClip, uv: NDArray[np.floating[Any]], frame: Index, t_cam: int | None = None
) -> Answer:
    """Ask for N places at all T times: N * T answers, times innermost.

    Args:
        clip: Open clip.
        uv: (N, 2).
        frame: (N,).
        t_cam: Frame whose camera they are told in; None for that of each time.
    """
    count = clip.num_frames
    t_tgt = np.tile(np.arange(count), len(uv))
    camera = t_tgt if t_cam is None else np.full_like(t_tgt, t_cam)
    return clip.ask(np.repeat(uv, count, axis=0), np.repeat(frame, count), t_tgt, camera)


def places(answer: Answer, shape: tuple[int, ...], params: InferParams, fx_fy: Float) -> Float:
    """Return where tracks are in the picture, (N, T, 2), by the rule `params.position`.

    Args:
        answer: N * T answers with t_cam = t_tgt, times innermost.
        shape: (N, T).
        params: How.
        fx_fy: (T, 2).
    """
    if params.position == "head":
        return np.asarray(answer.uv, np.float64).reshape(*shape, 2)
    points = np.asarray(answer.xyz, np.float64).reshape(*shape, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        projected = fx_fy * points[..., :2] / points[..., 2:] + 0.5
    return np.where(points[..., 2:] > 0, projected, np.nan)


def carry_tracks(previous: WindowResult, params: InferParams, shared: int) -> TrackQueries:
    """Ask the next window for the tracks of one before: at the last frame of the overlap where each is surely seen.

    A track that is not surely seen in the overlap ends: there is no pixel to ask with.

    Args:
        previous: The window before.
        params: How; what counts as seen, and as sure.
        shared: Frames that both windows have, the last ones of `previous`.

    Returns:
        Queries with the same ids; frames count in the next window.
    """
    tracks, count = previous.tracks, len(previous.numbers)
    if not 1 <= shared <= count:
        raise UsageError("Windows share no frames", expected=f"1 to {count}", found=shared)
    if tracks is None or not len(tracks.ids):
        return TrackQueries(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    uv = tracks.uv[:, count - shared :]
    sure = _can_be_asked(tracks, params)[:, count - shared :]
    rows = np.flatnonzero(sure.any(axis=1))
    last = shared - 1 - np.argmax(sure[rows, ::-1], axis=1)
    return TrackQueries(uv[rows, last], last.astype(np.int64), tracks.ids[rows])


def carry_back(later: WindowResult, earlier: WindowResult, params: InferParams, shared: int) -> TrackQueries:
    """Ask the window before for tracks that it lacks: at the first frame of the overlap where each is surely seen.

    Args:
        later: A window.
        earlier: The one before it.
        params: How; what counts as seen, and as sure.
        shared: Frames that both windows have.

    Returns:
        Queries with the same ids; frames count in the earlier window.
    """
    tracks = later.tracks
    if tracks is None:
        return TrackQueries(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    is_new = ~np.isin(tracks.ids, [] if earlier.tracks is None else earlier.tracks.ids)
    sure = _can_be_asked(tracks, params)[:, :shared] & is_new[:, None]
    rows = np.flatnonzero(sure.any(axis=1))
    first = np.argmax(sure[rows], axis=1).astype(np.int64)
    return TrackQueries(tracks.uv[rows, first], len(earlier.numbers) - shared + first, tracks.ids[rows])


def join_tracks(one: TracksResult | None, two: TracksResult) -> TracksResult:
    """Put tracks of the same window together."""
    if one is None:
        return two
    pairs = {each.name: (getattr(one, each.name), getattr(two, each.name)) for each in fields(TracksResult)}
    return TracksResult(**{name: np.concatenate(pair) for name, pair in pairs.items()})


def _can_be_asked(tracks: TracksResult, params: InferParams) -> NDArray[np.bool_]:
    """Tell (N, T) where a track is surely seen in the picture, so that its pixel can be asked about."""
    with np.errstate(invalid="ignore"):
        inside = ((tracks.uv >= 0) & (tracks.uv <= 1)).all(axis=-1)
    return np.asarray(is_surely_seen(tracks, params) & inside)


def is_surely_seen(tracks: TracksResult, params: InferParams) -> NDArray[np.bool_]:
    """Tell (N, T) where tracks are seen, and not much less sure than usual."""
    with np.errstate(invalid="ignore"):
        seen = tracks.visible >= params.visible_at
        sure = tracks.confidence >= params.least_confidence
        known = seen & sure & np.isfinite(tracks.points_cam).all(axis=-1)
        if known.any():
            known &= tracks.confidence >= params.relative_confidence * np.median(tracks.confidence[known])
    return np.asarray(known)


def track_queries(params: InferParams, num_frames: int, num_tracks: int) -> int:
    """Count the queries of `follow`."""
    return num_tracks * num_frames * (2 if params.world_tracks == "queries" else 1)


def _empty(count: int, num_frames: int) -> tuple[Map, Map, Map, Map]:
    shapes = ((count, num_frames, 3), (count, num_frames, 2), (count, num_frames), (count, num_frames))
    points, uv, visible, confidence = (np.empty(shape, np.float32) for shape in shapes)
    return points, uv, visible, confidence
