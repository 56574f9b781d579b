"""Rigid instances: their pixels, carried by their poses, against the depth that is stored at the other time."""

from __future__ import annotations

import numpy as np

from datakit import geometry as g
from datakit.motion import MotionKind

from .agreement import Agreement, add_depth_residuals
from .certificate import PASS, CheckResult, Measure, make_check
from .draw import PairSample
from .judge import Context, Residuals, upper_verdict
from .knobs import DEPTH_TIME, INSTANCE_FAULTS, POSE_FAULTS, knobs
from .pairs import Tweak
from .played import play_out


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
