"""Depth of one frame carried to another and compared with the depth that is stored there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datakit import geometry as g
from datakit.motion import MotionKind

from .certificate import (
    FAIL,
    NOT_TESTABLE,
    PASS,
    WARN,
    CheckResult,
    Measure,
    limit_ratio,
    make_check,
    worst_verdict,
)
from .draw import PairSample
from .judge import (
    Context,
    Residuals,
    quantile_measure,
    share_measure,
    upper_verdict,
    worst_instance_measure,
)
from .knobs import DEPTH_TIME, INSTANCE_FAULTS, POSE_FAULTS, Knob, knobs
from .pairs import NO_TWEAK, PairData, Points, Tweak
from .raster import Float

#: Pairs this close in time are where a point that was seen should mostly be seen again.
_NEAR = (1, 2)


@dataclass
class Agreement:
    """How predicted and observed depth compare, counted over frame pairs."""

    inside: dict[str, int] = field(default_factory=lambda: {"part": 0, "whole": 0})
    compared: list[int] = field(default_factory=list)
    in_front: int = 0
    near: list[bool] = field(default_factory=list)
    agreeing: list[int] = field(default_factory=list)
    residuals: list[Float] = field(default_factory=list)
    back_px: list[Float] = field(default_factory=list)
    motion_px: list[float] = field(default_factory=list)
    per_row: dict[int, list[Float]] = field(default_factory=dict)

    def add(self, context: Context, pair: PairData, points: Points, tweak: Tweak = NO_TWEAK) -> None:
        """Count one frame pair."""
        bend, step = context.setting("max_bend"), context.setting("max_step")
        prediction = pair.predict(points, tweak)
        residual, inside, same = pair.residual_of(prediction, points, tweak, bend, step)
        tolerance = context.setting("depth_tolerance")
        is_near = pair.baseline in _NEAR
        if pair.baseline == 1:
            self.inside["whole"] += len(inside)
            self.inside["part"] += int(inside.sum())
        known = np.isfinite(residual)
        with np.errstate(invalid="ignore"):
            agrees = known & same & (np.abs(residual) <= tolerance)
            # Nothing may stand before the surface that the target sees; behind it is occlusion.
            in_front = known & (residual < -tolerance)
            hidden = known & (residual > tolerance) & ~same
        self.near.append(is_near)
        self.compared.append(int(known.sum()))
        self.agreeing.append(int(agrees.sum()))
        self.in_front += int(in_front.sum())
        self.residuals.append(residual[agrees])
        for row in np.unique(points.rows[known]):
            # Behind another instance a point may be hidden. Before it, or off its own surface, it is wrong; the
            # tolerance stands for such a residual, so that it raises the instance's median.
            mine = known & (points.rows == row) & ~hidden
            if is_near and mine.any():
                self.per_row.setdefault(int(row), []).append(
                    np.where(agrees, np.abs(residual), tolerance)[mine]
                )
        moved = np.linalg.norm(prediction.uv_colour - prediction.uv_colour_source, axis=1)
        if np.isfinite(moved).any():
            self.motion_px.append(float(np.nanmedian(moved)))
        kept = points.take(agrees)
        self.back_px.append(_round_trip(pair, kept, prediction.points_cam[agrees], residual[agrees], tweak))

    def measures(self, context: Context, check: str) -> list[Measure]:
        """Judge the counts."""
        if not self.residuals:
            return []
        near = np.array(self.near) if any(self.near) else np.ones(len(self.near), dtype=bool)
        agreeing, compared = np.array(self.agreeing)[near].sum(), np.array(self.compared)[near].sum()
        return [
            share_measure(context, check, "overlap", self.inside["part"], self.inside["whole"]),
            share_measure(context, check, "agreeing", int(agreeing), int(compared)),
            share_measure(context, check, "in_front", self.in_front, sum(self.compared)),
            quantile_measure(context, check, "relative_z", np.concatenate(self.residuals)),
            quantile_measure(context, check, "forward_backward", np.concatenate(self.back_px)),
        ]

    def worst_instance(self, context: Context, check: str, names: Sequence[str]) -> Measure:
        """Judge the instance with the largest median residual between frames close in time."""
        rows = {row: np.concatenate(values) for row, values in self.per_row.items()}
        return worst_instance_measure(context, check, rows, names)

    @property
    def most_motion_px(self) -> float:
        """Largest median displacement of any pair, px."""
        return max(self.motion_px, default=0.0)


def _round_trip(pair: PairData, points: Points, points_cam: Float, residual: Float, tweak: Tweak) -> Float:
    """Carry the target's own depth back to the source; how far from the start it lands, px of the colour grid."""
    back = PairData(pair.target, pair.source, pair.motion, pair.baseline)
    # Seen along the same ray, so the observed point is the predicted one scaled to the observed depth.
    world = g.transform_points(pair.pose(pair.target, tweak), points_cam * np.exp(-residual)[:, None])
    moved = back.carry(points, world, tweak)
    cam = g.transform_points(g.invert_rigid(pair.pose(pair.source, tweak)), moved)
    start = pair.project(pair.source, cam, pair.depth_k(pair.source, tweak))
    to_colour = pair.source.colour_intrinsics[0, 0] / pair.source.depth_intrinsics[0, 0]
    return np.linalg.norm(start - points.uv_px, axis=1) * to_colour


def fails(measures: Sequence[Measure]) -> bool:
    """Say whether any measure failed."""
    return any(m.verdict == FAIL for m in measures)


def fails_clearly(measures: Sequence[Measure]) -> bool:
    """Say whether any measure is past its limit by a quarter: the real mistake draws other pixels than the played."""
    return any(m.verdict == FAIL and (limit_ratio(m) or 0.0) >= 1.25 for m in measures)


def play_out(
    base: Sequence[Measure], played: Mapping[str, Sequence[Measure]], carrier: str
) -> tuple[list[Measure], str]:
    """Judge the faults that were played through.

    Args:
        base: Measures of the scene as it is.
        played: Fault -> measures of the scene with that fault made once (more).
        carrier: Name of the measure that is to carry the faults that would show.

    Returns:
        `base` and, for faults that would not have shown, one more measure that lists them; and for a failing
        scene the faults that mend it: with involutions such as an inverted pose, what was done twice is undone.
    """
    failing = fails(base)
    shown = tuple(fault for fault, measures in played.items() if failing or fails_clearly(measures))
    blind = tuple(fault for fault in played if fault not in shown)
    out = [replace(m, sees=m.sees + shown) if m.name == carrier else m for m in base]
    if blind:
        out.append(Measure("played_faults", "1", None, NOT_TESTABLE, reason="would not show", sees=blind))
    mending = [f for f, ms in played.items() if worst_verdict(m.verdict for m in ms) in (PASS, WARN)]
    return out, f"looks like {' or '.join(mending)}" if failing and mending else ""


class DepthReprojection:
    """Static pixels: depth of one frame, seen from another, must be the depth stored there."""

    name = "depth_reprojection"
    KNOBS = knobs(
        "shift_u", "shift_v", "focal", "scale", "ray", "pose_time", also={"pose_time": (DEPTH_TIME,)}
    )

    def __init__(self) -> None:
        self._base = Agreement()
        self._played = {fault: Agreement() for fault in POSE_FAULTS}
        self._residuals = Residuals()

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair."""
        points = sample.static
        if not len(points.uv_px):
            return
        self._base.add(context, sample.data, points)
        add_depth_residuals(context, sample, points, self._residuals, self.KNOBS)
        few = points.take(np.arange(len(points.uv_px)) % 4 == 0)
        for fault, move in POSE_FAULTS.items():
            self._played[fault].add(context, sample.data, few, Tweak(move_pose=move))

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        if not self._base.residuals:
            return make_check(self.name, (), "no pair of frames with poses, depth and static pixels")
        least = context.setting("least_motion_px")
        base = self._base.measures(context, self.name)
        played = {f: a.measures(context, self.name) for f, a in self._played.items()}
        if self._base.most_motion_px < least:
            still = f"the camera does not move: nothing shifts by {least:g} px between any two frames"
            base = [replace(m, verdict=NOT_TESTABLE, reason=still) for m in base]
            played = {fault: [] for fault in played}
        base, hint = play_out(base, played, "relative_z")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("depth_floor"))
        return make_check(self.name, base + biases, hint=hint)


def add_depth_residuals(
    context: Context, sample: PairSample, points: Points, into: Residuals, chosen: Sequence[Knob]
) -> None:
    """Gather relative depth residuals of one pair and their slopes along knobs."""
    bend, step = context.setting("max_bend"), context.setting("max_step")

    def residual_of(tweak: Tweak) -> Float:
        residual, _, same = sample.data.depth_residual(points, tweak, bend, step)
        return np.where(same, residual, np.nan)

    into.add(residual_of, chosen, sample.number, context.setting("depth_tolerance"))


class RigidResidual:
    """Pixels of rigid instances, carried by the instances' poses, must meet the depth of the target frame."""

    name = "rigid_residual"
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
        self._base = Agreement()
        self._played = {fault: Agreement() for fault in {**POSE_FAULTS, **INSTANCE_FAULTS}}
        self._residuals = Residuals()

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair."""
        points = sample.rigid
        if not len(points.uv_px):
            return
        self._base.add(context, sample.data, points)
        add_depth_residuals(context, sample, points, self._residuals, self.KNOBS)
        tweaks = {fault: Tweak(move_pose=move) for fault, move in POSE_FAULTS.items()}
        tweaks |= {fault: Tweak(move_instances=move) for fault, move in INSTANCE_FAULTS.items()}
        for fault, tweak in tweaks.items():
            self._played[fault].add(context, sample.data, points, tweak)

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        if not self._base.residuals:
            return make_check(self.name, (), "no pixels of rigid instances")
        names = context.frames.scene.motion.instance_names
        judged = {
            fault: [*a.measures(context, self.name), a.worst_instance(context, self.name, names)]
            for fault, a in {"": self._base, **self._played}.items()
        }
        base, hint = play_out(judged.pop(""), judged, "relative_z")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("depth_floor"))
        drift = box_drift(context, self.name)
        return make_check(self.name, base + biases + drift, hint=hint)


def box_drift(context: Context, check: str) -> list[Measure]:
    """Judge whether each rigid instance's box stays where it is in the instance, relative to the box's size."""
    motion = context.frames.scene.motion
    if motion.world_from_box is None:
        return []
    worst, count = 0.0, 0
    for row in np.flatnonzero(motion.instance_motion == MotionKind.RIGID):
        pose, box = motion.world_from_instance[:, row], motion.world_from_box[:, row]
        known = np.isfinite(pose).all(axis=(1, 2)) & np.isfinite(box).all(axis=(1, 2))
        if known.sum() < 2:
            continue
        instance_from_box = g.invert_rigid(pose[known]) @ box[known]
        centre = np.median(instance_from_box, axis=0)
        size = np.linalg.norm(centre[:3, :3], axis=0).max()
        worst = max(worst, float(np.abs(instance_from_box - centre).max() / max(size, 1e-12)))
        count += int(known.sum())
    if not count:
        return []
    limit = context.limit(check, "box_drift")
    verdict = upper_verdict(worst, limit)
    reason = "" if verdict == PASS else f"boxes and poses part by {worst:.3g} of the box"
    return [Measure("box_drift", limit.unit, worst, verdict, limit.warn, limit.fail, count, reason=reason)]
