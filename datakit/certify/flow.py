"""Stored optical flow against the flow that depth, pose and motion predict."""

from __future__ import annotations

import numpy as np

from .certificate import CheckResult, Measure, make_check
from .draw import PairSample, join
from .judge import Context, Residuals, quantile_measure
from .knobs import FLOW_TIME, INSTANCE_FAULTS, NEGATED_FLOW, POSE_FAULTS, knobs
from .pairs import Tweak
from .raster import Float
from .reprojection import play_out


class FlowAgreement:
    """Flow to the next and to the previous frame must be what the geometry says."""

    name = "flow"
    KNOBS = knobs(
        "grid_shift_u",
        "grid_shift_v",
        "shift_u",
        "shift_v",
        "focal",
        "scale",
        "ray",
        "pose_time",
        "motion_time",
        "depth_time",
    )

    def __init__(self) -> None:
        self._residuals = Residuals()
        self._errors: dict[str, list[Float]] = {"forward": [], "backward": []}
        faults = (*POSE_FAULTS, *INSTANCE_FAULTS, NEGATED_FLOW, FLOW_TIME)
        self._played: dict[str, list[Float]] = {fault: [] for fault in faults}

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair if flow is stored between its frames."""
        data = sample.data
        step = data.target.index - data.source.index
        if data.source.view is not data.target.view or abs(step) != 1:
            return
        direction = "forward" if step == 1 else "backward"
        flow = data.source.view.flow(data.source.index, direction)
        points = join((sample.static, sample.rigid))
        if flow is None or not len(points.uv_px):
            return
        layer = f"flow_{direction}"
        to_colour = (
            data.source.colour_intrinsics[[0, 1], [0, 1]]
            / (data.source.view.layer_intrinsics(layer)[data.source.index][[0, 1], [0, 1]])
        )
        stored = data.source.nearest(layer, flow, points.uv_px).astype(np.float64) * to_colour

        def error_of(tweak: Tweak) -> Float:
            prediction = data.predict(points, tweak)
            return prediction.uv_colour - prediction.uv_colour_source - stored

        # error + stored - other is the error against another flow.
        base = self._residuals.add(error_of, self.KNOBS, sample.number, context.setting("flow_tolerance"))
        self._errors[direction].append(np.linalg.norm(base, axis=1))
        self._played[NEGATED_FLOW].append(np.linalg.norm(base + 2 * stored, axis=1))
        later = data.source.neighbour_index(1)
        if later is not None and (next_flow := data.source.view.flow(later, direction)) is not None:
            late = data.source.nearest(layer, next_flow, points.uv_px).astype(np.float64) * to_colour
            self._played[FLOW_TIME].append(np.linalg.norm(base + stored - late, axis=1))
        tweaks = {fault: Tweak(move_pose=move) for fault, move in POSE_FAULTS.items()}
        tweaks |= {fault: Tweak(move_instances=move) for fault, move in INSTANCE_FAULTS.items()}
        for fault, tweak in tweaks.items():
            self._played[fault].append(np.linalg.norm(error_of(tweak), axis=1))

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        errors = self._errors["forward"] + self._errors["backward"]
        if not errors:
            return make_check(self.name, (), "no flow is stored")
        judged = {
            fault: self._judge(context, "endpoint", e)
            for fault, e in {"": errors, **self._played}.items()
            if e
        }
        base, hint = play_out(judged.pop(""), judged, "endpoint")
        base += [m for d, e in self._errors.items() if e for m in self._judge(context, f"endpoint_{d}", e)]
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("flow_floor"))
        return make_check(self.name, base + biases, hint=hint)

    def _judge(self, context: Context, name: str, errors: list[Float]) -> list[Measure]:
        return [quantile_measure(context, self.name, name, np.concatenate(errors), at=0.9)]
