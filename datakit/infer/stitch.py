"""Join the windows of a long video: one world, seams that say how well they hold, nothing held but two windows.

arXiv 2512.08924, appendix B: overlapping windows, Sim(3) by Umeyama on the most confident 85 % of the overlap's points,
no loop closure. Ours besides: still points only, a second estimate from the cameras, and both versions of what two
windows tell are compared before they are blended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datakit import geometry as g
from datakit.errors import UsageError

from .depth import is_static
from .grids import cell_centres
from .params import InferParams
from .robust import Fit, fit_similarity, mean_pose
from .tracks import is_surely_seen
from .window import WindowResult

Float = NDArray[np.float64]
Index = NDArray[np.int64]
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Share of an overlap's points that count as still where fewer are below the limit: those that move least.
_STILLEST = 0.25
#: Two estimates differ where they do so by more than chance explains, in deviations.
_SURE = 2.0


@dataclass(frozen=True)
class Seam:
    """How two windows were joined; what is unknown is NaN.

    Attributes:
        first: First frame of the overlap, in the reconstruction.
        last: Its last.
        num_points: Still and confident points that the fit is from.
        method: `points`; `cameras` where too few points fix a fit; `none` where nothing does: poses from here on are
            unknown.
        scale: A length in the first window's unit is so many times what the second window says.
        residual: Mean distance of the points after the fit, as a share of depth.
        scale_from_cameras: The same scale from the spread of the overlap's cameras.
        disagreement: |scale_from_cameras / scale - 1|.
        deviation: What of that chance explains: of the scale from cameras, whose poses are as good as their residuals
            say, as a share.
        rotation_deg: Angle between the rotation from points and that from cameras.
        depth_error: Median difference of depth after the fit, as a share.
        track_error: Median distance between both versions of tracks that are surely seen in both, as a share of depth.
        is_bad: Scale or rotation from points and from cameras contradict each other, or no points joined the windows.
            Cameras that hardly move contradict no scale.
    """

    first: int
    last: int
    num_points: int
    method: str
    scale: float
    residual: float
    scale_from_cameras: float
    disagreement: float
    deviation: float
    rotation_deg: float
    depth_error: float
    track_error: float
    is_bad: bool


@dataclass(frozen=True)
class JoinedTracks:
    """N tracks through all T frames.

    Attributes:
        ids: (N,) int64.
        query_uv: (N, 2) float32 where each was first asked for.
        query_frame: (N,) int64 frame of the reconstruction.
        points_world: (N, T, 3) float32, NaN unknown.
        points_cam: (N, T, 3) float32 in each frame's camera, in the reconstruction's unit, NaN unknown.
        uv: (N, T, 2) float32 where each is in each frame, shares of the picture, also outside; NaN unknown.
        visible: (N, T) float32 probability, NaN unknown.
        confidence: (N, T) float32, NaN unknown.
    """

    ids: Index
    query_uv: Map
    query_frame: Index
    points_world: Map
    points_cam: Map
    uv: Map
    visible: Map
    confidence: Map


@dataclass(frozen=True)
class FrameMaps:
    """The grids of one frame, in the reconstruction's unit.

    Attributes:
        z_depth: (h, w) float32, NaN unknown.
        confidence: (h, w) float32.
        motion: (h, w) float32, share of depth, NaN unknown.
        normal: (h, w, 3) float32 unit, camera frame; or None.
        static: (h, w) bool.
    """

    z_depth: Map
    confidence: Map
    motion: Map
    normal: Map | None
    static: Mask


@dataclass(frozen=True)
class Placed:
    """Where a window lies: points_world = scale * rotation @ points_window + translation.

    Attributes:
        first: Its first frame in the reconstruction.
        stop: One after its last.
        fit: The similarity; None where nothing is known.
        weights: (T,) share that each of its frames has in the blend.
    """

    first: int
    stop: int
    fit: Fit | None
    weights: Float


class Reconstruction:
    """A whole video; the world is the camera of frame 0, its unit that of the first window.

    Attributes:
        numbers: (T,) int64 frame numbers.
        times_s: (T,) float64.
        size: (W, H).
        fx_fy: (T, 2) float64, NaN unknown.
        intrinsics_residual: (T,) float64.
        world_from_cam: (T, 4, 4) float64, NaN unknown.
        pose_residual: (T,) float64.
        tracks: Joined tracks, or None.
        seams: One for each pair of windows that follow each other.
        placed: Where each window lies.
    """

    def __init__(
        self,
        windows: Sequence[WindowResult],
        params: InferParams,
        placed: Sequence[Placed],
        seams: Sequence[Seam],
    ) -> None:
        self.params, self.placed, self.seams = params, tuple(placed), tuple(seams)
        self._windows = windows
        self._held: dict[int, WindowResult] = {}
        count = placed[-1].stop
        self.numbers, self.times_s = np.zeros(count, np.int64), np.zeros(count)
        self.size = (0, 0)
        fx_fy, rest = _Blend((count, 2)), _Blend((count, 2))
        poses: list[list[tuple[Float, float]]] = [[] for _ in range(count)]
        for number, place in enumerate(placed):
            window, frames = self._window(number), slice(place.first, place.stop)
            self.size = window.size
            self.numbers[frames], self.times_s[frames] = window.numbers, window.times_s
            fx_fy.add(frames, window.fx_fy, place.weights)
            rest.add(
                frames, np.stack([window.intrinsics_residual, window.pose_residual], axis=1), place.weights
            )
            if place.fit is not None:
                for t, pose in enumerate(_placed_poses(window.world_from_cam, place.fit)):
                    if np.isfinite(pose).all():
                        poses[place.first + t].append((pose, place.weights[t]))
        self.fx_fy, (self.intrinsics_residual, self.pose_residual) = fx_fy.mean(), rest.mean().T
        self.world_from_cam = np.full((count, 4, 4), np.nan)
        for t, found in enumerate(poses):
            if found:
                each, weights = zip(*found, strict=True)
                self.world_from_cam[t] = mean_pose(np.stack(each), np.array(weights))

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.numbers)

    @property
    def pose_is_known(self) -> Mask:
        """(T,) bool."""
        return np.asarray(np.isfinite(self.world_from_cam).all(axis=(1, 2)))

    def frame(self, t: int) -> FrameMaps:
        """Return a frame's grids, blended from all windows that have it.

        Depth is in the reconstruction's unit; where a window's place is unknown it counts only if no other has the
        frame, and then in its own unit.

        Raises:
            UsageError: No such frame.
        """
        if not 0 <= t < self.num_frames:
            raise UsageError("No such frame", expected=f"0 to {self.num_frames - 1}", found=t)
        having = [k for k, place in enumerate(self.placed) if place.first <= t < place.stop]
        having = [k for k in having if self.placed[k].fit is not None] or having[:1]
        shape = self._window(having[0]).z_depth.shape[1:]
        z_depth, confidence, motion = (_Blend(shape) for _ in range(3))
        normal = _Blend((*shape, 3)) if self._window(having[0]).normal is not None else None
        for k in having:
            window, place = self._window(k), self.placed[k]
            at, weight = t - place.first, place.weights[t - place.first]
            scale = 1.0 if place.fit is None else place.fit.scale
            z_depth.add(..., scale * window.z_depth[at], weight)
            confidence.add(..., window.confidence[at], weight)
            motion.add(..., window.motion[at], weight)
            if normal is not None and window.normal is not None:
                normal.add(..., window.normal[at], weight)
        moved = motion.mean().astype(np.float32)
        return FrameMaps(
            z_depth.mean().astype(np.float32),
            confidence.mean().astype(np.float32),
            moved,
            None if normal is None else _unit(normal.mean()).astype(np.float32),
            is_static(moved, self.params),
        )

    @cached_property
    def tracks(self) -> JoinedTracks | None:
        """Tracks of all windows, joined by their ids and blended where two windows have them."""
        begun: dict[int, tuple[NDArray[np.float32], int]] = {}
        for number, place in enumerate(self.placed):
            tracks = self._window(number).tracks
            for row in range(0 if tracks is None else len(tracks.ids)):
                assert tracks is not None
                frame = place.first + int(tracks.query_frame[row])
                begun.setdefault(int(tracks.ids[row]), (tracks.query_uv[row], frame))
        if not begun:
            return None
        rows_of = {track: row for row, track in enumerate(begun)}
        shape = (len(begun), self.num_frames)
        points, points_cam, uv = _Blend((*shape, 3)), _Blend((*shape, 3)), _Blend((*shape, 2))
        rest = _Blend((*shape, 2))
        for number, place in enumerate(self.placed):
            tracks = self._window(number).tracks
            if tracks is None or place.fit is None or not len(tracks.ids):
                continue
            rows = np.array([rows_of[int(track)] for track in tracks.ids])
            at = (rows[:, None], np.arange(place.first, place.stop))
            points.add(at, place.fit.apply(tracks.points_world.astype(np.float64)), place.weights)
            points_cam.add(at, place.fit.scale * tracks.points_cam, place.weights)
            uv.add(at, tracks.uv, place.weights)
            rest.add(at, np.stack([tracks.visible, tracks.confidence], axis=-1), place.weights)
        visible, confidence = np.moveaxis(rest.mean().astype(np.float32), -1, 0)
        return JoinedTracks(
            np.array(list(begun), np.int64),
            np.stack([uv for uv, _ in begun.values()]).astype(np.float32),
            np.array([frame for _, frame in begun.values()], np.int64),
            points.mean().astype(np.float32),
            points_cam.mean().astype(np.float32),
            uv.mean().astype(np.float32),
            visible,
            confidence,
        )

    def _window(self, number: int) -> WindowResult:
        """Read a window; the last two that were asked for are held."""
        if number not in self._held:
            while len(self._held) >= 2:
                del self._held[next(iter(self._held))]
            self._held[number] = self._windows[number]
        return self._held[number]


def stitch(windows: Sequence[WindowResult], params: InferParams) -> Reconstruction:
    """Join windows that follow each other; each is read a few times, and no more than two are held.

    Args:
        windows: In order; each shares frames, told by their numbers, with the one before.
        params: How.

    Raises:
        UsageError: There is no window, or two that follow each other do not overlap at their ends.
    """
    if not len(windows):
        raise UsageError("There is no window to join")
    previous = windows[0]
    identity = Fit(1.0, np.eye(3), np.zeros(3), 0.0)
    spans, fits, seams = [(0, len(previous.numbers))], [identity if _is_placed(previous) else None], []
    for number in range(1, len(windows)):
        window = windows[number]
        shared = _shared(previous, window, number)
        first = spans[-1][1] - shared
        seam, fit = _join(previous, window, shared, first, params)
        seams.append(seam)
        fits.append(_chained(fits[-1], fit))
        spans.append((first, first + len(window.numbers)))
        previous = window
    placed = [
        Placed(first, stop, fit, _ramp(spans, number))
        for number, ((first, stop), fit) in enumerate(zip(spans, fits, strict=True))
    ]
    return Reconstruction(windows, params, placed, seams)


def _is_placed(window: WindowResult) -> bool:
    return bool(window.pose_is_known[0])


def _shared(previous: WindowResult, window: WindowResult, number: int) -> int:
    """Return how many frames two windows share: the last of one, the first of the other."""
    shared = int(np.isin(window.numbers, previous.numbers).sum())
    fits = shared > 0 and np.array_equal(previous.numbers[-shared:], window.numbers[:shared])
    if not fits or window.size != previous.size or window.z_depth.shape[1:] != previous.z_depth.shape[1:]:
        raise UsageError(
            "A window does not follow the one before",
            where=f"window {number}",
            expected="frames that begin with the last ones of the window before, on the same grid",
            found=f"{previous.numbers[0]}..{previous.numbers[-1]}, then {window.numbers[0]}..{window.numbers[-1]}",
        )
    return shared


def _ramp(spans: Sequence[tuple[int, int]], number: int) -> Float:
    """Weights of a window's frames: 1 inside, falling linearly over what it shares with its neighbours."""
    first, stop = spans[number]
    t = np.arange(first, stop)
    weights = np.ones(stop - first)
    if number:
        weights = np.minimum(weights, (t - first + 1) / (spans[number - 1][1] - first + 1))
    if number + 1 < len(spans):
        weights = np.minimum(weights, (stop - t) / (stop - spans[number + 1][0] + 1))
    return weights


# --- one seam --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Overlap:
    """What two windows say of the same cells, each in its own world and unit.

    Attributes:
        first: (N, 3) points of the first window.
        second: (N, 3) points of the second.
        depth: (N, 2) their depth in their frame's camera.
        confidence: (N,).
        motion: (N,) share of depth.
    """

    first: Float
    second: Float
    depth: Float
    confidence: Float
    motion: Float

    def at(self, rows: Index | Mask) -> _Overlap:
        return _Overlap(*(getattr(self, name)[rows] for name in vars(self)))


def _join(
    previous: WindowResult, window: WindowResult, shared: int, first: int, params: InferParams
) -> tuple[Seam, Fit | None]:
    """Return the seam, and the similarity that maps points of `window` to the world of `previous`."""
    overlap = _overlap(previous, window, shared)
    used = _choose(overlap, params)
    fit = None
    if len(used.first) >= params.least_points:
        fit = fit_similarity(
            used.second,
            used.first,
            used.confidence,
            used.depth[:, 0],
            with_scale=True,
            rounds=params.huber_rounds,
        )
    from_points = fit is not None
    cameras = _Centres.of(previous, window, shared)
    if fit is None:
        fit = _fit_of_cameras(cameras, overlap)
    method = "points" if from_points else ("cameras" if fit is not None else "none")
    scale = np.nan if fit is None else fit.scale
    from_cameras, deviation = cameras.scale(_median(overlap.depth[:, 0]), params)
    disagreement = abs(from_cameras / scale - 1)
    rotation = np.nan if fit is None else cameras.angle_to(fit.rotation)
    contradicts = disagreement > max(params.scale_disagreement, _SURE * deviation)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth_error = _median(np.abs(scale * used.depth[:, 1] / used.depth[:, 0] - 1))
    seam = Seam(
        first=first,
        last=first + shared - 1,
        num_points=len(used.first) if from_points else 0,
        method=method,
        scale=float(scale),
        residual=float(fit.residual) if fit is not None else np.nan,
        scale_from_cameras=float(from_cameras),
        disagreement=float(disagreement),
        deviation=float(deviation),
        rotation_deg=float(rotation),
        depth_error=float(depth_error),
        track_error=_track_error(previous, window, shared, fit, params),
        is_bad=bool(not from_points or contradicts or rotation > params.rotation_disagreement),
    )
    return seam, fit


def _overlap(previous: WindowResult, window: WindowResult, shared: int) -> _Overlap:
    """Lift the cells of all shared frames by both windows."""
    count = len(previous.numbers)
    sides = [
        _lift(previous, range(count - shared, count)),
        _lift(window, range(shared)),
    ]
    (first, first_z, first_trust, first_motion), (second, second_z, second_trust, second_motion) = sides
    both = _Overlap(
        first,
        second,
        np.stack([first_z, second_z], axis=1),
        np.minimum(first_trust, second_trust),
        np.maximum(first_motion, second_motion),
    )
    with np.errstate(invalid="ignore"):
        known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1) & (both.confidence > 0)
    return both.at(known)


def _lift(window: WindowResult, frames: range) -> tuple[Float, Float, Float, Float]:
    """World points (N, 3), depth, confidence and motion of all cells of some frames."""
    rows, columns = window.z_depth.shape[1:]
    off = cell_centres(columns, rows) - 0.5
    z = window.z_depth[frames.start : frames.stop].astype(np.float64).reshape(len(frames), -1)
    points = []
    for at, t in enumerate(frames):
        rays = np.concatenate([off / window.fx_fy[t], np.ones((len(off), 1))], axis=1)
        points.append(g.transform_points(window.world_from_cam[t], rays * z[at][:, None]))
    part = slice(frames.start, frames.stop)
    confidence, motion = window.confidence[part].ravel(), window.motion[part].ravel()
    return np.concatenate(points), z.ravel(), confidence.astype(np.float64), motion.astype(np.float64)


def _choose(overlap: _Overlap, params: InferParams) -> _Overlap:
    """Pick still points, of them the most confident, of them so many as are needed."""
    still = is_static(overlap.motion, params)
    if still.sum() < max(params.least_points, _STILLEST * len(still)) and len(still):
        known = np.isfinite(overlap.motion)
        least = np.quantile(overlap.motion[known], _STILLEST) if known.any() else np.nan
        with np.errstate(invalid="ignore"):
            still = overlap.motion <= least
    rows = np.flatnonzero(still & (overlap.confidence >= params.least_confidence))
    if len(rows):
        order = np.argsort(-overlap.confidence[rows], kind="stable")
        rows = np.sort(rows[order[: int(np.ceil(params.keep_confident * len(rows)))]])
    # Evenly over the overlap, without chance.
    if len(rows) > params.seam_points:
        rows = rows[np.linspace(0, len(rows) - 1, params.seam_points).astype(np.int64)]
    return overlap.at(rows)


@dataclass(frozen=True)
class _Centres:
    """The overlap's cameras by both windows, where both know them.

    Attributes:
        first: (M, 4, 4) in the first window's world.
        second: (M, 4, 4) in the second's.
        residual: (M, 2) of each pose, as a share of depth.
    """

    first: Float
    second: Float
    residual: Float

    @classmethod
    def of(cls, previous: WindowResult, window: WindowResult, shared: int) -> _Centres:
        first, second = previous.world_from_cam[-shared:], window.world_from_cam[:shared]
        known = previous.pose_is_known[-shared:] & window.pose_is_known[:shared]
        residual = np.stack([previous.pose_residual[-shared:], window.pose_residual[:shared]], axis=1)
        return cls(first[known], second[known], residual[known])

    @property
    def rotation(self) -> Float:
        """Mean of first_from_second."""
        turns = self.first @ g.invert_rigid(self.second)
        return mean_pose(turns, np.ones(len(turns)))[:3, :3]

    def angle_to(self, rotation: Float) -> float:
        """Degrees; NaN without cameras."""
        if not len(self.first):
            return np.nan
        return float(np.rad2deg(g.rotation_angle(self.rotation.T @ rotation)))

    def scale(self, depth: float, params: InferParams) -> tuple[float, float]:
        """Return first / second by the spread of the cameras' centres, and its deviation as a share.

        Both are NaN where the cameras hardly move. Positions are as uncertain as the residual of their fit over the
        root of its points; an error that all points of a frame share is not in that.

        Args:
            depth: Median, in the first window's unit.
            params: How.
        """
        if len(self.first) < 3:
            return np.nan, np.nan
        first, second = (side[:, :3, 3] - side[:, :3, 3].mean(axis=0) for side in (self.first, self.second))
        spread = float(np.sqrt((first**2).sum(axis=1).mean()))
        if not spread >= params.least_baseline * depth:
            return np.nan, np.nan
        turned = second @ self.rotation.T
        scale = float((first * turned).sum() / (turned**2).sum())
        error = np.sqrt((self.residual**2).sum(axis=1).mean()) * depth / params.camera_grid
        return scale, float(error / (spread * np.sqrt(len(first))))


def _fit_of_cameras(cameras: _Centres, overlap: _Overlap) -> Fit | None:
    """Join by cameras alone, with the scale of depth."""
    if not len(cameras.first) or not len(overlap.depth):
        return None
    scale, rotation = _median(overlap.depth[:, 0] / overlap.depth[:, 1]), cameras.rotation
    shifts = cameras.first[:, :3, 3] - scale * cameras.second[:, :3, 3] @ rotation.T
    return Fit(float(scale), rotation, shifts.mean(axis=0), np.nan)


def _track_error(
    previous: WindowResult, window: WindowResult, shared: int, fit: Fit | None, params: InferParams
) -> float:
    """Median distance between both versions of the tracks that go over a seam, as a share of depth."""
    one, two = previous.tracks, window.tracks
    if fit is None or one is None or two is None:
        return np.nan
    _, rows, their_rows = np.intersect1d(one.ids, two.ids, assume_unique=True, return_indices=True)
    seen = is_surely_seen(one, params)[rows, -shared:] & is_surely_seen(two, params)[their_rows, :shared]
    ours = one.points_world[rows, -shared:].astype(np.float64)
    theirs = fit.apply(two.points_world[their_rows, :shared].astype(np.float64))
    depth = one.points_cam[rows, -shared:, 2].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.linalg.norm(ours - theirs, axis=-1) / depth
    return _median(errors[seen & np.isfinite(errors)])


def _median(values: Float) -> float:
    return float(np.median(values)) if len(values) else np.nan


def _chained(world_from_first: Fit | None, first_from_second: Fit | None) -> Fit | None:
    if world_from_first is None or first_from_second is None:
        return None
    return Fit(
        world_from_first.scale * first_from_second.scale,
        world_from_first.rotation @ first_from_second.rotation,
        world_from_first.apply(first_from_second.translation),
        first_from_second.residual,
    )


def _placed_poses(world_from_cam: Float, fit: Fit) -> Float:
    """Move poses (T, 4, 4) by a similarity: centres are scaled, axes stay of unit length."""
    return g.rigid_from(fit.rotation @ world_from_cam[:, :3, :3], fit.apply(world_from_cam[:, :3, 3]))


class _Blend:
    """A weighted mean of arrays that may be unknown in places."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum, self._weight = np.zeros(shape), np.zeros(shape)

    def add(self, at: Any, values: NDArray[Any], weights: Float | float) -> None:
        """Add values at places; `weights` are one number, or (T,) for values (T, ...) or (N, T, ...)."""
        share = np.asarray(weights, np.float64)
        if share.ndim:
            axis = 0 if isinstance(at, slice) else 1
            share = share.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        known = np.isfinite(values)
        self._sum[at] += np.where(known, values, 0.0) * share
        self._weight[at] += known * share

    def mean(self) -> Float:
        """NaN where nothing is known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._sum / self._weight)


def _unit(vectors: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
