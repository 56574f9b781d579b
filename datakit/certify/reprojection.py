"""Depth of one frame, seen from another, against the depth that is stored there: the static part of a scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .agreement import Agreement, add_depth_residuals
from .certificate import NOT_TESTABLE, CheckResult, make_check
from .draw import PairSample
from .judge import Context, Residuals
from .knobs import DEPTH_TIME, POSE_FAULTS, knobs
from .pairs import Tweak
from .played import play_out


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
