"""TAP-Vid: 2D tracks on a 256 x 256 raster (tapnet c2cbab8, tapvid/evaluation_datasets.py:48-192, 200-340).

Re-detection, AJ_RD, is tapnextpp/metrics/aj_rd.py of the same commit. Every video is scored on its own, so that the
occlusion accuracy of co-tracker's copy, which divides by the points of a whole batch, has no place here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

from .jaccard import THRESHOLDS_PX, Array, Mask, as_floats, keep_floating, track_scores

#: Side of the raster that thresholds are pixels of.
_RASTER = 256.0
#: Least number of frames unseen for each AJ_RD (aj_rd.py: compute_redetection_metrics).
MIN_GAPS = (1, 4, 16, 64, 256)

QueryMode = Literal["first", "strided"]


def to_raster(uv: ArrayLike, size: tuple[float, float]) -> NDArray[np.float64]:
    """Scale pixels of an image of `size` (W, H) to those of 256 x 256; each axis by its own factor."""
    return np.asarray(uv, np.float64) * (_RASTER / np.asarray(size, np.float64))


def tapvid2d(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    query_frame: ArrayLike,
    *,
    mode: QueryMode = "first",
    size: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Score the tracks of one video.

    Args:
        predicted: (N, T, 2) px; NaN is a miss.
        predicted_visible: (N, T) bool.
        target: (N, T, 2) px.
        visible: (N, T) bool, truth.
        query_frame: (N,), rounded half to even.
        mode: `first` scores the frames after the query's, `strided` all but the query's.
        size: (W, H) of the image that pixels are of; None if they are already of a 256 raster.

    Returns:
        occlusion_accuracy, pts_within_{k}, jaccard_{k}, average_pts_within_thresh, average_jaccard; NaN where
        undefined.

    Raises:
        UsageError: Shapes differ, or a mode is unknown.
    """
    return as_floats(_scores(predicted, predicted_visible, target, visible, query_frame, mode, size, None))


def tapvid2d_tracks(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    query_frame: ArrayLike,
    *,
    mode: QueryMode = "first",
    size: tuple[float, float] | None = None,
) -> dict[str, Array]:
    """Score each track alone; arguments as of `tapvid2d`, values (N,) float64."""
    return _scores(predicted, predicted_visible, target, visible, query_frame, mode, size, -1)


def _scores(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    query_frame: ArrayLike,
    mode: QueryMode,
    size: tuple[float, float] | None,
    axis: int | None,
) -> dict[str, Array]:
    ours, claimed, theirs, seen = _arrays(predicted, predicted_visible, target, visible, size)
    frames = np.round(np.asarray(query_frame, np.float64))
    if frames.shape != seen.shape[:1] or not ((frames >= 0) & (frames < seen.shape[1])).all():
        raise UsageError(
            "Query frames do not fit the tracks",
            where="query_frame",
            expected=f"{seen.shape[:1]} frames of [0, {seen.shape[1]})",
            found=frames.shape,
        )
    at = np.arange(seen.shape[1])
    if mode == "first":
        counts = at > frames[:, None]
    elif mode == "strided":
        counts = at != frames[:, None]
    else:
        raise UsageError("Unknown query mode", where="mode", expected="first or strided", found=mode)
    with np.errstate(invalid="ignore", over="ignore"):
        squared = np.square(ours - theirs).sum(axis=-1)
    return track_scores(lambda k: squared < k * k, claimed, seen, counts, axis)


def queries_first(target: ArrayLike, visible: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Ask for each track where it is first visible; tracks that never are get no query (`sample_queries_first`).

    Args:
        target: (N, T, 2) x, y.
        visible: (N, T) bool.

    Returns:
        (M, 3) t, y, x, and (M,) the track of each.
    """
    points, seen = keep_floating(target), np.asarray(visible, bool)
    tracks = np.flatnonzero(seen.any(axis=1))
    frames = seen[tracks].argmax(axis=1)
    return _tyx(points, tracks, frames), tracks


def queries_strided(
    target: ArrayLike, visible: ArrayLike, stride: int = 5
) -> tuple[Array, NDArray[np.int64]]:
    """Ask every `stride` frames for each track that is visible there (`sample_queries_strided`).

    Args:
        target: (N, T, 2) x, y.
        visible: (N, T) bool.
        stride: Frames.

    Returns:
        (M, 3) t, y, x by frame, then track; and (M,) the track of each. A track has as many queries as frames.
    """
    points, seen = keep_floating(target), np.asarray(visible, bool)
    steps, tracks = np.nonzero(seen[:, ::stride].T)
    return _tyx(points, tracks, steps * stride), tracks


def _tyx(points: Array, tracks: NDArray[np.int64], frames: NDArray[np.int64]) -> Array:
    at = points[tracks, frames]
    return np.stack([frames.astype(np.float64), at[:, 1], at[:, 0]], axis=-1)


def redetection(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    *,
    size: tuple[float, float] | None = None,
    official: bool = False,
) -> dict[str, float]:
    """Score how tracks are found again: AJ_RD.

    An event is a point that is seen again after a gap longer than all earlier gaps of its track; its Jaccard runs from
    there to the end, a distance of exactly the threshold being near (<=). Means over the events with at least a number
    of frames unseen, then over thresholds, then over `MIN_GAPS`. The official script takes a late first appearance
    for a re-appearance; here a point must have been seen before.

    Args:
        predicted: (N, T, 2) px; NaN is a miss.
        predicted_visible: (N, T) bool.
        target: (N, T, 2) px.
        visible: (N, T) bool, truth.
        size: (W, H) of the image that pixels are of; None if they are already of a 256 raster.
        official: Add the official values, as `<name>_official`.

    Returns:
        AJ_RD, AJ_RD_dmin{d}, AJ_RD_D{k}_dmin{d}, num_events; NaN where there is no event.

    Raises:
        UsageError: Shapes differ.
    """
    arrays = _arrays(predicted, predicted_visible, target, visible, size)
    out = _redetection(*arrays, late_first=False)
    if official:
        out |= {f"{name}_official": value for name, value in _redetection(*arrays, late_first=True).items()}
    return out


def _redetection(
    predicted: Array, predicted_visible: Mask, target: Array, visible: Mask, *, late_first: bool
) -> dict[str, float]:
    tracks, frames, gaps = _events(visible, late_first)
    with np.errstate(invalid="ignore"):
        distance = np.linalg.norm(predicted - target, axis=-1)
    scores = {}
    for k in THRESHOLDS_PX:
        right = (distance <= k) & visible
        hits, false = right & predicted_visible, predicted_visible & ~right
        tail_hits, tail_false, tail_seen = (
            _tail_counts(mask)[tracks, frames] for mask in (hits, false, visible)
        )
        scores[k] = tail_hits / (tail_seen + tail_false)
    out: dict[str, float] = {"num_events": float(len(tracks))}
    for gap in MIN_GAPS:
        long = gaps >= gap
        for k in THRESHOLDS_PX:
            out[f"AJ_RD_D{k}_dmin{gap}"] = float(scores[k][long].mean()) if long.any() else float("nan")
        out[f"AJ_RD_dmin{gap}"] = float(np.mean([out[f"AJ_RD_D{k}_dmin{gap}"] for k in THRESHOLDS_PX]))
    known = [out[f"AJ_RD_dmin{gap}"] for gap in MIN_GAPS if not np.isnan(out[f"AJ_RD_dmin{gap}"])]
    return out | {"AJ_RD": float(np.mean(known)) if known else float("nan")}


def _events(
    visible: Mask, late_first: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Tracks, frames and gaps of re-appearances that are longer than all before them on their track."""
    num_frames = visible.shape[1]
    last_seen = np.maximum.accumulate(np.where(visible, np.arange(num_frames), -1), axis=1)
    tracks, frames = np.nonzero(visible[:, 1:] & ~visible[:, :-1])
    gaps = frames - last_seen[tracks, frames]
    if not late_first:
        before = last_seen[tracks, frames] >= 0
        tracks, frames, gaps = tracks[before], frames[before], gaps[before]
    longest: dict[int, int] = {}
    keep = np.zeros(len(tracks), bool)
    for event, (track, gap) in enumerate(zip(tracks.tolist(), gaps.tolist(), strict=True)):
        keep[event] = gap > longest.get(track, -1)
        longest[track] = max(gap, longest.get(track, -1))
    return tracks[keep], frames[keep] + 1, gaps[keep]


def _tail_counts(mask: Mask) -> Array:
    """How many are set from each frame to the end, (N, T)."""
    return np.asarray(mask[:, ::-1].cumsum(axis=1)[:, ::-1], np.float64)


def _arrays(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    size: tuple[float, float] | None,
) -> tuple[Array, Mask, Array, Mask]:
    ours, theirs = keep_floating(predicted), keep_floating(target)
    claimed, seen = np.asarray(predicted_visible, bool), np.asarray(visible, bool)
    fits = ours.shape == theirs.shape and claimed.shape == seen.shape == theirs.shape[:-1]
    if not fits or theirs.ndim != 3 or theirs.shape[-1] != 2:
        raise UsageError(
            "Tracks do not fit each other",
            expected="pixels (N, T, 2) and visibilities (N, T)",
            found=(ours.shape, theirs.shape, claimed.shape, seen.shape),
        )
    if size is not None:
        ours, theirs = to_raster(ours, size), to_raster(theirs, size)
    return ours, claimed, theirs, seen
