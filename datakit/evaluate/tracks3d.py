"""TAPVid-3D: 3D tracks in the camera of each frame (tapnet c2cbab8, tapvid3d/evaluation/metrics.py).

The official function is wrong for its documentation in four places; `tapvid3d` does what is documented, and with
`official=True` gives what the official evaluation prints beside it, as `<name>_official`:

* Nobody predicted visible: the scale is 0/0. Official points within are then 0 (a NaN is near nothing); here they
  are undefined. The Jaccard of such a video is 0 by its own definition, whatever the scale.
* `per_trajectory`, called as its documentation says, raises, and evaluate_model.py:222-231 reports zeros.
* `local_neighborhood` for a whole video raises AxisError (zeros again); only its form by track runs.
* A batch of more than one video raises, or, with as many videos as tracks, mixes them; see `tapvid3d_batch`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datakit.errors import UsageError

from .jaccard import THRESHOLDS_PX, Array, as_floats, averages, keep_floating, track_scores

#: Metres for each of THRESHOLDS_PX with `fixed_metric` (metrics.py:32-38).
FIXED_METRES = {1: 0.01, 2: 0.04, 4: 0.16, 8: 0.64, 16: 2.56}
#: Shorter side of the image that thresholds are meant for (evaluate_model.py:99-105).
_REFERENCE_SIDE = 256.0
#: Least norm (metrics.py:196-199, the square of it), and least depth at a query (metrics.py:204-213).
_NORM_FLOOR, _DEPTH_FLOOR = 1e-6, 1e-12

Scaling = Literal[
    "median", "mean", "per_trajectory", "local_neighborhood", "median_on_queries", "reproduce_2d", "none"
]
SCALINGS: tuple[Scaling, ...] = get_args(Scaling)
Alignment = Literal["median", "none"]
Float = NDArray[np.float64]

_NEEDS_QUERIES = ("per_trajectory", "local_neighborhood", "median_on_queries")
#: Modes that the official evaluation of a video cannot run: it reports zeros.
_OFFICIAL_RAISES = ("per_trajectory", "local_neighborhood")


def intrinsics_at_256(fx_fy_cx_cy: ArrayLike, size: tuple[float, float]) -> Float:
    """Scale intrinsics to the image whose shorter side is 256 (evaluate_model.py:99-105, 203-213).

    Without this every threshold is too strict: twice for 512 pixels, five times for 1280.

    Args:
        fx_fy_cx_cy: (..., 4) px of an image of `size`.
        size: (W, H).
    """
    return np.asarray(fx_fy_cx_cy, np.float64) * (_REFERENCE_SIDE / min(size))


def tapvid3d(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    fx_fy_cx_cy: ArrayLike,
    size: tuple[float, float] | None = None,
    *,
    scaling: Scaling = "median",
    query_frame: ArrayLike | None = None,
    fixed_metric: bool = False,
    radius: float = 0.05,
    official: bool = False,
) -> dict[str, float]:
    """Score the tracks of one video. The query frame and the frames before it count.

    Args:
        predicted: (N, T, 3) in the camera of each frame, up to scale; NaN is a miss.
        predicted_visible: (N, T) bool.
        target: (N, T, 3) metres, camera of each frame. NaN is harmless under occlusion, a miss if visible.
        visible: (N, T) bool, truth.
        fx_fy_cx_cy: (4,) px.
        size: (W, H) that the intrinsics belong to; None if they are already those at 256.
        scaling: What predictions are multiplied by (metrics.py:196-250); predictions are never moved or turned.
        query_frame: (N,) of each track; rounded half to even. Needed by modes that speak of queries.
        fixed_metric: Thresholds in metres (`FIXED_METRES`) in place of pixels at the true depth.
        radius: Metres within which `local_neighborhood` gathers truth.
        official: Add what the official evaluation prints, as `<name>_official`.

    Returns:
        occlusion_accuracy, pts_within_{k}, jaccard_{k}, average_pts_within_thresh (APD3D), average_jaccard (3D-AJ);
        NaN where undefined.

    Raises:
        UsageError: Shapes differ, a mode is unknown, or queries are missing.
    """
    clip = _Clip(predicted, predicted_visible, target, visible, fx_fy_cx_cy, size, fixed_metric)
    raw = clip.scores(scaling, query_frame, radius, by_track=False)
    ours = _without_scale(raw, clip, scaling, query_frame)
    values = as_floats(ours)
    if official:
        said = {name: 0.0 for name in raw} if scaling in _OFFICIAL_RAISES else as_floats(raw)
        values |= {f"{name}_official": value for name, value in said.items()}
    return values


def tapvid3d_tracks(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    fx_fy_cx_cy: ArrayLike,
    size: tuple[float, float] | None = None,
    *,
    scaling: Scaling = "median",
    query_frame: ArrayLike | None = None,
    fixed_metric: bool = False,
    radius: float = 0.05,
) -> dict[str, Array]:
    """Score each track alone (`get_trackwise_metrics`); the scale of the clip stays the clip's.

    Args: as of `tapvid3d`.

    Returns:
        Name -> (N,) float64.
    """
    clip = _Clip(predicted, predicted_visible, target, visible, fx_fy_cx_cy, size, fixed_metric)
    return _without_scale(
        clip.scores(scaling, query_frame, radius, by_track=True), clip, scaling, query_frame
    )


def tapvid3d_batch(
    predicted: ArrayLike,
    predicted_visible: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    fx_fy_cx_cy: ArrayLike,
    query_frame: ArrayLike | None = None,
    **options: Any,
) -> dict[str, Array]:
    """Score a batch as documented: every video on its own.

    Args:
        predicted: (B, N, T, 3); the other arrays likewise. `fx_fy_cx_cy` is (4,) or (B, 4).
        predicted_visible: (B, N, T).
        target: (B, N, T, 3).
        visible: (B, N, T).
        fx_fy_cx_cy: px.
        query_frame: (B, N), or None.
        options: Of `tapvid3d`.

    Returns:
        Name -> (B,) float64.
    """
    ours = np.asarray(predicted)
    cameras = np.broadcast_to(np.asarray(fx_fy_cx_cy, np.float64), (len(ours), 4))
    seen, theirs, truth = np.asarray(predicted_visible), np.asarray(target), np.asarray(visible)
    rows = [
        tapvid3d(
            *(ours[b], seen[b], theirs[b], truth[b], cameras[b]),
            query_frame=None if query_frame is None else np.asarray(query_frame)[b],
            **options,
        )
        for b in range(len(ours))
    ]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


class _Clip:
    """The arrays of one video, checked, with what thresholds are made of."""

    def __init__(
        self,
        predicted: ArrayLike,
        predicted_visible: ArrayLike,
        target: ArrayLike,
        visible: ArrayLike,
        fx_fy_cx_cy: ArrayLike,
        size: tuple[float, float] | None,
        fixed_metric: bool,
    ) -> None:
        self.predicted, self.target = keep_floating(predicted), keep_floating(target)
        self.predicted_visible = np.asarray(predicted_visible, bool)
        self.visible = np.asarray(visible, bool)
        shape = self.target.shape
        fits = (
            self.predicted.shape == shape and self.visible.shape == self.predicted_visible.shape == shape[:-1]
        )
        if not fits or len(shape) != 3 or shape[-1] != 3:
            raise UsageError(
                "Tracks do not fit each other",
                expected="points (N, T, 3) and visibilities (N, T)",
                found=(self.predicted.shape, shape, self.predicted_visible.shape, self.visible.shape),
            )
        camera = np.asarray(fx_fy_cx_cy, np.float64) if size is None else intrinsics_at_256(fx_fy_cx_cy, size)
        self.focal = np.sqrt(camera[0] * camera[1])
        self.fixed_metric = fixed_metric

    def threshold(self, k: int, target: Array) -> Array:
        """Distance in metres that k stands for at each point (metrics.py:23-38, 271-274)."""
        return np.asarray(FIXED_METRES[k]) if self.fixed_metric else k * (target[..., 2] / self.focal)

    def scores(
        self, scaling: Scaling, query_frame: ArrayLike | None, radius: float, *, by_track: bool
    ) -> dict[str, Array]:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            scale = _scale(self, scaling, query_frame)
            if scaling == "local_neighborhood":
                return self._local(scale, radius, by_track)
            scaled = self.predicted * scale
            squared = np.square(scaled - self.target).sum(axis=-1)
            return track_scores(
                lambda k: squared < np.square(self.threshold(k, self.target)),
                self.predicted_visible,
                self.visible,
                np.ones(self.visible.shape),
                -1 if by_track else None,
            )

    def _local(self, scale: Array, radius: float, by_track: bool) -> dict[str, Array]:
        """Every track with all truth near it, each re-weighted to its own count (metrics.py:41-87, 214-223)."""
        rows = [self._neighbours_of(i, scale[i, 0], radius) for i in range(len(self.target))]
        out = {}
        for name in (
            "occlusion_accuracy",
            *(f"{n}_{k}" for n in ("pts_within", "jaccard") for k in THRESHOLDS_PX),
        ):
            pairs = np.array([row[name] for row in rows], np.float64).reshape(-1, 2)
            top, bottom = (pairs if by_track else pairs.sum(axis=0, keepdims=True)).T
            out[name] = top / bottom if by_track else (top / bottom)[0]
        return out | averages(out)

    def _neighbours_of(self, i: int, scale: Array, radius: float) -> dict[str, Array]:
        """Return the numerator and denominator of each score of track i."""
        near = np.square(self.target - self.target[i]).sum(axis=-1) < radius * radius
        target, visible, claimed = self.target[near], self.visible[near], self.predicted_visible[near]
        squared = np.square(self.predicted[near] * scale - target).sum(axis=-1)
        weight = self.visible[i].sum() / max(1.0, float(visible.sum()))
        positives = visible.sum()
        out = {"occlusion_accuracy": [(claimed == visible).sum(), visible.size]}
        for k in THRESHOLDS_PX:
            right = (squared < np.square(self.threshold(k, target))) & visible
            out[f"pts_within_{k}"] = [right.sum(), positives]
            out[f"jaccard_{k}"] = [(right & claimed).sum(), positives + (claimed & ~right).sum()]
        return {name: weight * np.array(pair, np.float64) for name, pair in out.items()}


def _scale(clip: _Clip, scaling: Scaling, query_frame: ArrayLike | None) -> Array:
    """What predictions are multiplied by, broadcastable to (N, T, 1); NaN where nothing fixes it."""
    if scaling not in SCALINGS:
        raise UsageError("Unknown scaling", where="scaling", expected=", ".join(SCALINGS), found=scaling)
    if scaling == "none":
        return np.ones((1, 1, 1))
    z_target, z_predicted = clip.target[..., 2], clip.predicted[..., 2]
    if scaling == "reproduce_2d":
        return np.asarray((z_target / z_predicted)[..., None])
    at = _frames(query_frame, clip, scaling) if scaling in _NEEDS_QUERIES else None
    if scaling in ("per_trajectory", "local_neighborhood"):
        assert at is not None
        return np.asarray(_depth_at(z_target, at) / _depth_at(z_predicted, at))[:, None, None]
    both = clip.visible & clip.predicted_visible
    theirs, ours = (np.where(both, _norms(points), np.nan) for points in (clip.target, clip.predicted))
    if at is not None:
        rows = np.arange(len(at))
        theirs, ours = theirs[rows, at], ours[rows, at]
    if np.isnan(theirs).all() or np.isnan(ours).all():
        return np.full((1, 1, 1), np.nan)
    middle = np.nanmean if scaling == "mean" else np.nanmedian
    return np.reshape(middle(theirs) / middle(ours), (1, 1, 1))


def _norms(points: Array) -> Array:
    return np.asarray(np.sqrt(np.maximum(_NORM_FLOOR**2, np.square(points).sum(axis=-1))))


def _depth_at(z_depth: Array, frames: Array) -> Array:
    return np.asarray(np.maximum(z_depth[np.arange(len(frames)), frames], _DEPTH_FLOOR))


def _frames(query_frame: ArrayLike | None, clip: _Clip, scaling: str) -> NDArray[np.int64]:
    """Query frames as indices; np.round takes halves to the even frame, as metrics.py:205 does."""
    if query_frame is None:
        raise UsageError("This scaling needs the frames of the queries", where="query_frame", found=scaling)
    frames = np.round(np.asarray(query_frame, np.float64))
    num_tracks, num_frames = clip.visible.shape
    if frames.shape != (num_tracks,) or not ((frames >= 0) & (frames < num_frames)).all():
        raise UsageError(
            "Query frames do not fit the tracks",
            where="query_frame",
            expected=f"({num_tracks},) frames of [0, {num_frames})",
            found=np.asarray(query_frame).shape,
        )
    return frames.astype(np.int64)


def _without_scale(
    raw: dict[str, Array], clip: _Clip, scaling: Scaling, query_frame: ArrayLike | None
) -> dict[str, Array]:
    """Make distances undefined where no point fixes the scale of the clip; Jaccards stay as they are, 0."""
    both = clip.visible & clip.predicted_visible
    if scaling == "median_on_queries":
        at = _frames(query_frame, clip, scaling)
        both = both[np.arange(len(at)), at]
    if scaling not in ("median", "mean", "median_on_queries") or both.any():
        return raw
    undefined = {name: np.full_like(value, np.nan) for name, value in raw.items() if "pts_within" in name}
    return raw | undefined


def focal_at_256(intrinsics: ArrayLike, size: tuple[float, float]) -> Float:
    """Return sqrt(fx fy) in pixels of the image scaled to a shorter side of 256.

    Args:
        intrinsics: (..., 3, 3) in pixels of an image of `size`.
        size: (W, H).
    """
    matrix = np.asarray(intrinsics, np.float64)
    return np.sqrt(matrix[..., 0, 0] * matrix[..., 1, 1]) * (_REFERENCE_SIDE / min(size))


def median_scale(predicted: ArrayLike, target: ArrayLike, use: ArrayLike) -> float:
    """Return median |target| / median |predicted| over the points in use; NaN without any.

    Norms of the 3D vectors, not depths (metrics.py:225-232). Points that are not finite are left out.

    Args:
        predicted: (..., 3).
        target: (..., 3).
        use: (...) bool: in TAPVid-3D the points that are visible in truth and in the prediction.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    keep = np.asarray(use, bool) & np.isfinite(ours).all(axis=-1) & np.isfinite(theirs).all(axis=-1)
    if not keep.any():
        return float("nan")
    own = max(float(np.median(np.linalg.norm(ours[keep], axis=-1))), _NORM_FLOOR)
    return float(np.median(np.linalg.norm(theirs[keep], axis=-1))) / own


def points_within(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    focal_px: ArrayLike,
    *,
    align: Alignment = "median",
    predicted_visible: ArrayLike | None = None,
) -> Float:
    """Share of the visible points that lie within each threshold, k pixels at the true depth: k z / f.

    One clip at a time: the scale is the clip's. A prediction that is not finite is a miss, never left out.

    Args:
        predicted: (..., 3) camera frame, up to scale with `align="median"`.
        target: (..., 3) camera frame, finite wherever `visible`.
        visible: (...) bool, truth. Points of unknown visibility are not to be counted: False.
        focal_px: sqrt(fx fy) at a shorter side of 256 (`focal_at_256`), broadcastable to (...).
        align: One scale for the clip, or none.
        predicted_visible: (...) bool that the scale's points must satisfy too; None for all.

    Returns:
        (5,) shares for `THRESHOLDS_PX`; NaN if no point is visible.

    Raises:
        UsageError: Shapes differ, or a visible target is not finite.
    """
    ours, theirs = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    seen = np.asarray(visible, bool)
    if ours.shape != theirs.shape or ours.shape[:-1] != seen.shape or ours.shape[-1:] != (3,):
        raise UsageError(
            "Points do not fit each other",
            expected="predicted and target (..., 3), visible (...)",
            found=(ours.shape, theirs.shape, seen.shape),
        )
    if not np.isfinite(theirs[seen]).all():
        raise UsageError("A visible target is not finite", mend="leave points without truth out of `visible`")
    if not seen.any():
        return np.full(len(THRESHOLDS_PX), np.nan)
    scale = 1.0
    if align == "median":
        use = seen if predicted_visible is None else seen & np.asarray(predicted_visible, bool)
        scale = median_scale(ours, theirs, use)
    error = np.linalg.norm(scale * ours[seen] - theirs[seen], axis=-1)
    pixel = theirs[seen][:, 2] / np.broadcast_to(np.asarray(focal_px, np.float64), seen.shape)[seen]
    with np.errstate(invalid="ignore"):
        # Strict, as metrics.py:271-274; a comparison with NaN is false, which makes it a miss.
        return np.array([(error < k * pixel).mean() for k in THRESHOLDS_PX])


def apd3d(
    predicted: ArrayLike,
    target: ArrayLike,
    visible: ArrayLike,
    focal_px: ArrayLike,
    *,
    align: Alignment = "median",
    predicted_visible: ArrayLike | None = None,
) -> float:
    """Return the mean of `points_within` over its thresholds: APD3D of one clip; NaN if no point is visible."""
    shares = points_within(
        predicted, target, visible, focal_px, align=align, predicted_visible=predicted_visible
    )
    return float(shares.mean())
