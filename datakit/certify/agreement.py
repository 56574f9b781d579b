"""How depth carried from one frame compares with the depth of another: counts, quantiles, slopes along knobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from datakit import geometry as g

from .certificate import PASS, Measure
from .draw import PairSample
from .judge import Context, Residuals, quantile_measure, share_measure, worst_instance_measure
from .knobs import Knob
from .pairs import NO_TWEAK, PairData, Points, Tweak
from .raster import Float

#: Pairs this close in time are where a point that was seen should mostly be seen again.
_NEAR = (1, 2)
#: Share of what disagrees that makes one frame the culprit, and how many times as often as others it must disagree.
_MOST, _AS_OFTEN = 0.8, 5.0


@dataclass
class Agreement:
    """How predicted and observed depth compare, counted over frame pairs."""

    inside: dict[str, int] = field(default_factory=lambda: {"part": 0, "whole": 0})
    compared: list[int] = field(default_factory=list)
    in_front: int = 0
    near: list[bool] = field(default_factory=list)
    agreeing: list[int] = field(default_factory=list)
    frames: list[tuple[tuple[str, int], tuple[str, int]]] = field(default_factory=list)
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
        self.frames.append(
            ((pair.source.view.name, pair.source.index), (pair.target.view.name, pair.target.index))
        )
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
            self._blamed(share_measure(context, check, "agreeing", int(agreeing), int(compared))),
            self._blamed(share_measure(context, check, "in_front", self.in_front, sum(self.compared))),
            quantile_measure(context, check, "relative_z", np.concatenate(self.residuals)),
            quantile_measure(context, check, "forward_backward", np.concatenate(self.back_px)),
        ]

    def _blamed(self, measure: Measure) -> Measure:
        """Name the one frame whose pairs hold nearly all that disagrees, where a measure is beyond its limit."""
        compared = np.array(self.compared, dtype=np.float64)
        apart = compared - self.agreeing
        if measure.verdict == PASS or not measure.reason or not apart.any():
            return measure
        for frame in sorted({frame for both in self.frames for frame in both}):
            mine = np.array([frame in both for both in self.frames])
            if not compared[~mine].any() or mine.sum() < 2:
                continue
            rate, other_rate = (apart[m].sum() / max(compared[m].sum(), 1.0) for m in (mine, ~mine))
            if apart[mine].sum() >= _MOST * apart.sum() and rate >= _AS_OFTEN * other_rate:
                view, index = frame
                share = apart[mine].sum() / apart.sum()
                told = f"{share:.0%} of what disagrees is in pairs with frame {index} of {view}"
                return replace(measure, reason=f"{measure.reason}; {told}")
        return measure

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


def add_depth_residuals(
    context: Context, sample: PairSample, points: Points, into: Residuals, chosen: Sequence[Knob]
) -> None:
    """Gather relative depth residuals of one pair and their slopes along knobs."""
    bend, step = context.setting("max_bend"), context.setting("max_step")

    def residual_of(tweak: Tweak) -> Float:
        residual, _, same = sample.data.depth_residual(points, tweak, bend, step)
        return np.where(same, residual, np.nan)

    into.add(residual_of, chosen, sample.number, context.setting("depth_tolerance"))
