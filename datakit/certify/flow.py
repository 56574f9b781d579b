"""Stored optical flow against the flow that depth, pose and motion predict."""

from __future__ import annotations

import numpy as np

from datakit.motion import MotionKind

from .certificate import CheckResult, Measure, make_check
from .draw import PairSample, join, pixels_by_motion
from .frames import FrameData
from .judge import Context, Residuals, quantile_measure
from .knobs import FLOW_TIME, INSTANCE_FAULTS, NEGATED_FLOW, POSE_FAULTS, knobs
from .pairs import Points, Tweak
from .played import play_out
from .raster import Float
from .sampling import centres


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
        #: The same of deforming things, whose flow is predicted by tracks: base, negated, and of the next frame.
        self._tracked: dict[str, list[Float]] = {"": [], NEGATED_FLOW: [], FLOW_TIME: []}

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair if flow is stored between its frames."""
        data = sample.data
        step = data.target.index - data.source.index
        if data.source.view is not data.target.view or abs(step) != 1:
            return
        direction = "forward" if step == 1 else "backward"
        points = join((sample.static, sample.rigid))
        if len(points.uv_px) and f"flow_{direction}" in data.source.view.layers:
            self._see_points(context, sample, points, direction)
            self._see_tracks(context, sample, direction)

    def _see_points(self, context: Context, sample: PairSample, points: Points, direction: str) -> None:
        data = sample.data
        stored, later = _stored(data.source, direction, points.uv_px)

        def error_of(tweak: Tweak) -> Float:
            prediction = data.predict(points, tweak)
            return prediction.uv_colour - prediction.uv_colour_source - stored

        base = self._residuals.add(error_of, self.KNOBS, sample.number, context.setting("flow_tolerance"))
        self._errors[direction].append(_length(base))
        # Error + stored - other is the error against another flow.
        self._played[NEGATED_FLOW].append(_length(base + 2 * stored))
        self._played[FLOW_TIME].append(_length(base + stored - later))
        tweaks = {fault: Tweak(move_pose=move) for fault, move in POSE_FAULTS.items()}
        tweaks |= {fault: Tweak(move_instances=move) for fault, move in INSTANCE_FAULTS.items()}
        for fault, tweak in tweaks.items():
            self._played[fault].append(_length(error_of(tweak)))

    def _see_tracks(self, context: Context, sample: PairSample, direction: str) -> None:
        source, target = sample.data.source, sample.data.target
        count = int(context.setting("tracks_per_pair"))
        pixels, _ = pixels_by_motion(context, source, (MotionKind.POINTS,), count, 3000 + sample.number)
        if not len(pixels):
            return
        stored, later = _stored(source, direction, centres(pixels))
        uv = source.from_depth_grid("rgb", centres(pixels))
        moved = context.frames.scene.track(source.view.name, uv, source.index, target.index).uv_px - uv
        self._tracked[""].append(_length(moved - stored))
        self._tracked[NEGATED_FLOW].append(_length(moved + stored))
        self._tracked[FLOW_TIME].append(_length(moved - later))

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        errors = self._errors["forward"] + self._errors["backward"]
        if not errors:
            return make_check(self.name, (), "no flow is stored")
        judged = {
            fault: self._judge(context, "endpoint", e) for fault, e in {"": errors, **self._played}.items()
        }
        base, hint = play_out(judged.pop(""), judged, "endpoint")
        base += [m for d, e in self._errors.items() if e for m in self._judge(context, f"endpoint_{d}", e)]
        if self._tracked[""]:
            judged = {fault: self._judge(context, "endpoint_tracks", e) for fault, e in self._tracked.items()}
            base += play_out(judged.pop(""), judged, "endpoint_tracks")[0]
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("flow_floor"))
        return make_check(self.name, base + biases, hint=hint)

    def _judge(self, context: Context, name: str, errors: list[Float]) -> list[Measure]:
        return [quantile_measure(context, self.name, name, np.concatenate(errors), at=0.9)]


def _length(vectors: Float) -> Float:
    return np.linalg.norm(vectors, axis=1)


def _stored(frame: FrameData, direction: str, uv_px: Float) -> tuple[Float, Float]:
    """Read flow at depth-grid pixels from a frame and from the next one, (N, 2) px of the colour grid each.

    The second is NaN at the end of the clip.
    """
    layer = f"flow_{direction}"
    own = frame.view.layer_intrinsics(layer)[frame.index]
    to_colour = frame.colour_intrinsics[[0, 1], [0, 1]] / own[[0, 1], [0, 1]]
    out = []
    for index in (frame.index, frame.neighbour_index(1)):
        flow = None if index is None else frame.view.flow(index, direction)
        if flow is None:
            out.append(np.full((len(uv_px), 2), np.nan))
        else:
            out.append(frame.nearest(layer, flow, uv_px).astype(np.float64) * to_colour)
    return out[0], out[1]
