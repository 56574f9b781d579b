"""Tracks against depth: where `scene.track` and explicit trajectories say a point is, depth must say so too."""

from __future__ import annotations

import numpy as np

from datakit import geometry as g
from datakit.motion import MotionKind, Visibility
from datakit.motion.carry import instance_rows

from .certificate import CheckResult, Measure, make_check
from .draw import PairSample, pixels_by_motion
from .frames import FrameData
from .judge import Context, Residuals, quantile_measure, share_measure
from .knobs import DEPTH_TIME, POSE_FAULTS, SWAPPED_POINTS, knobs
from .pairs import PairData, Points, Tweak
from .played import play_out
from .raster import Float, Mask
from .sampling import centres


class TrackDepth:
    """Tracks must lie on the surface that depth shows, unless something hides them."""

    name = "track_depth"
    KNOBS = knobs(
        "shift_u",
        "shift_v",
        "focal",
        "scale",
        "ray",
        "pose_time",
        "motion_time",
        also={"pose_time": (DEPTH_TIME,), "motion_time": (DEPTH_TIME,)},
    )

    def __init__(self) -> None:
        self._gaps: list[Float] = []
        self._residuals = Residuals()
        self._trajectories = Counts()
        self._played = {fault: Counts() for fault in (*POSE_FAULTS, SWAPPED_POINTS)}

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Track pixels of moving instances from source to target through `scene.track`."""
        data = sample.data
        source, target, motion = data.source, data.target, data.motion
        if not np.isin(motion.instance_motion, (MotionKind.RIGID, MotionKind.POINTS)).any():
            return
        count = int(context.setting("tracks_per_pair"))
        kinds = (MotionKind.RIGID, MotionKind.POINTS)
        pixels, rows = pixels_by_motion(context, source, kinds, count, 1000 + sample.number)
        if not len(pixels):
            return
        uv = source.from_depth_grid("rgb", centres(pixels))
        tracks = context.frames.scene.track(
            source.view.name, uv, source.index, target.index, view_tgt=target.view.name
        )
        on_depth = _colour_to_depth(target, tracks.uv_px)
        observed, _ = data.observed(
            on_depth, Tweak(), context.setting("max_bend"), context.setting("max_step")
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.log(tracks.z_depth) - observed
            kept = data.same_instance(on_depth, rows) & (
                np.abs(residual) < context.setting("depth_tolerance")
            )
        self._gaps.append(np.abs(residual[kept]))

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Compare explicit trajectories with one frame's depth."""
        motion = context.frames.scene.motion
        if motion.points_world is None or motion.point_instance is None or frame.sample < 0:
            return
        labelled = np.flatnonzero(instance_rows(motion, motion.point_instance) >= 0)
        size = min(len(labelled), int(context.setting("points_per_pair")))
        chosen = np.sort(context.rng(4, number).choice(labelled, size, replace=False))
        track = motion.points_world[chosen].astype(np.float64)
        at = instance_rows(motion, motion.point_instance[chosen])
        none = np.full(size, np.nan)
        points = Points(np.full((size, 2), 0.5), np.ones(size), at, np.zeros(size, bool), none, none)
        pair = PairData(frame, frame, motion, 0)
        state = motion.point_state.get(frame.view.name)
        told = np.zeros(size, np.uint8) if state is None else state[chosen, frame.index]
        hidden = np.isin(told, (Visibility.OCCLUDED, Visibility.OUTSIDE))
        visible = told == Visibility.VISIBLE

        def look(tweak: Tweak, rows: np.ndarray = points.rows) -> tuple[Float, Mask, Mask]:
            world = track_at(track, frame.sample, tweak.motion_frames)
            prediction = pair.look(points, world, tweak)
            residual, _, same = pair.residual_of(
                prediction, points, tweak, context.setting("max_bend"), context.setting("max_step")
            )
            # Of the image itself: what can be interpolated ends a pixel and a half before its rim.
            uv, ahead = prediction.uv_colour, prediction.points_cam[:, 2] > 0
            with np.errstate(invalid="ignore"):
                inside = ((uv >= 0) & (uv <= frame.view.size)).all(axis=1) & ahead
            if rows is not points.rows:
                same = pair.same_instance(prediction.uv_depth, rows)
            return np.where(hidden, np.nan, residual), same, inside[visible]

        def residual_of(tweak: Tweak) -> Float:
            residual, same, _ = look(tweak)
            return np.where(same, residual, np.nan)

        tolerance = context.setting("depth_tolerance")
        self._residuals.add(residual_of, self.KNOBS, number, tolerance)
        self._trajectories.add(*look(Tweak()), tolerance)
        for fault, move in POSE_FAULTS.items():
            self._played[fault].add(*look(Tweak(move_pose=move)), tolerance)
        labels = np.unique(points.rows)
        other = labels[(np.searchsorted(labels, points.rows) + 1) % len(labels)]
        self._played[SWAPPED_POINTS].add(*look(Tweak(), other), tolerance)

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs and frames."""
        if not self._gaps and not self._residuals.values:
            return make_check(self.name, (), "nothing moves by poses or trajectories")
        measures = (
            [quantile_measure(context, self.name, "track_gap", np.concatenate(self._gaps))]
            if self._gaps
            else []
        )
        hint = ""
        if self._residuals.values:
            judged = {
                f: c.measures(context, self.name) for f, c in {"": self._trajectories, **self._played}.items()
            }
            base, hint = play_out(judged.pop(""), judged, "point_gap")
            measures += base
            measures += self._residuals.biases(context, self.name, self.KNOBS, context.setting("depth_floor"))
        return make_check(self.name, measures, hint=hint)


class Counts:
    """How trajectories compare with depth, counted over frames."""

    def __init__(self) -> None:
        self.gaps: list[Float] = []
        self.compared = self.agreeing = self.visible = self.inside = 0

    def add(self, residual: Float, same: Mask, inside: Mask, tolerance: float) -> None:
        """Count one frame's trajectories; `inside` is about those that the source calls visible."""
        self.visible += len(inside)
        self.inside += int(inside.sum())
        with np.errstate(invalid="ignore"):
            agrees = same & (np.abs(residual) <= tolerance)
        self.compared += int(np.isfinite(residual).sum())
        self.agreeing += int(agrees.sum())
        self.gaps.append(np.abs(residual[agrees]))

    def measures(self, context: Context, check: str) -> list[Measure]:
        """Judge the counts."""
        return [
            quantile_measure(context, check, "point_gap", np.concatenate(self.gaps)),
            share_measure(context, check, "points_agreeing", self.agreeing, self.compared),
            share_measure(context, check, "visible_inside", self.inside, self.visible),
        ]


def track_at(track: Float, sample: int, offset: float) -> Float:
    """Return (N, 3) positions of trajectories (N, M, 3) `offset` samples after a sample, linearly."""
    if not offset:
        return track[:, sample]
    side = 1 if offset > 0 else -1
    for step, amount in ((side, abs(offset)), (-side, -abs(offset))):
        if 0 <= sample + step < track.shape[1]:
            return track[:, sample] + amount * (track[:, sample + step] - track[:, sample])
    return track[:, sample]


def _colour_to_depth(frame: FrameData, uv_px: Float) -> Float:
    if np.array_equal(frame.colour_intrinsics, frame.depth_intrinsics):
        return uv_px
    return g.homography_points(frame.depth_intrinsics @ np.linalg.inv(frame.colour_intrinsics), uv_px)
